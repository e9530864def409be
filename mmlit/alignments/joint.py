"""Joint alignment: a contrastive term, and a fusion encoder that judges the pairs the contrast finds hard."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmlit.contracts import Alignment, Encoded, ImageSpec, Pairs, TextSpec
from mmlit.layers.fusion import FusionEncoder, in_chunks
from mmlit.layers.heads import HeadKind, SharedSpace
from mmlit.layers.similarity import Temperature, cosine
from mmlit.losses.info_nce import info_nce

#: pairs fused at a time when all pairs of a block are scored
PAIRS_PER_CHUNK = 1024


class Joint(Alignment):
    """InfoNCE on pooled vectors, plus matching by deep fusion on hard negatives drawn from the contrastive scores.

    Ranks by the sum of two log-odds: contrastive score / temperature + `match_weight` · matching logit. Candidates
    for reranking come from the contrastive cosine (`coarse`).

    Args:
        image: the image encoder's spec.
        text: the text encoder's spec.
        dim: E, of the shared space; None = the width of the side whose head is `identity`.
        image_head: the image side's head.
        text_head: the text side's head.
        token_dim: width of the fusion encoder, a multiple of `num_heads`.
        num_layers: fusion layers.
        num_heads: attention heads of a fusion layer.
        dropout: in heads and fusion, in [0, 1).
        temperature: divides the cosines; the start value where it is learned, then in [0.01, 1].
        learn_temperature: whether it is learned.
        match_weight: of the matching logit in `score`, ≥ 0.

    Raises:
        ValueError: if a number is out of range, or the heads do not fit.

    Source: Li et al. 2021 (ALBEF), Eq. 2–4 and Sec. 3.2, arXiv 2107.07651.
    Differs: no momentum towers; binary cross-entropy on one logit; ranks by both scores together (a young matching
    head must not rank by itself); a caption of the same image is never drawn as a negative.
    """

    needs_tokens = True

    def __init__(
        self,
        *,
        image: ImageSpec,
        text: TextSpec,
        dim: int | None,
        image_head: HeadKind,
        text_head: HeadKind,
        token_dim: int,
        num_layers: int,
        num_heads: int,
        dropout: float,
        temperature: float,
        learn_temperature: bool,
        match_weight: float,
    ) -> None:
        super().__init__()
        if match_weight < 0:
            raise ValueError(f"match_weight must be >= 0, got {match_weight}")
        self.space = SharedSpace(
            image=image, text=text, dim=dim, image_head=image_head, text_head=text_head, dropout=dropout
        )
        self.temperature = Temperature(initial=temperature, learn=learn_temperature)
        self.fusion = FusionEncoder(dim=token_dim, num_layers=num_layers, num_heads=num_heads, dropout=dropout)
        self.image_tokens = nn.Linear(image.dim, token_dim)
        self.text_tokens = nn.Linear(text.dim, token_dim)
        self.match = nn.Linear(token_dim, 1)
        self.match_weight = match_weight

    def embed_image(self, image: Encoded) -> Encoded:
        """Unit vector of each image, and its patches in the fusion's width."""
        return Encoded(self.image_tokens(image.tokens), self.space.embed_image(image.pooled), image.mask)

    def embed_text(self, text: Encoded) -> Encoded:
        """Unit vector of each text, and its words in the fusion's width."""
        return Encoded(self.text_tokens(text.tokens), self.space.embed_text(text.pooled), text.mask)

    def losses(self, pairs: Pairs) -> dict[str, Tensor]:
        """Contrastive terms as in `contrastive`, and `match` on the local pairs and their mined negatives."""
        i2t = self.temperature(cosine(pairs.image.pooled, pairs.all_text.pooled))
        t2i = self.temperature(cosine(pairs.text.pooled, pairs.all_image.pooled))
        i2t_positives = pairs.positives(pairs.image_rows, slice(None))
        t2i_positives = pairs.positives(slice(None), pairs.text_rows).T
        i2t_draws = pairs.draws(pairs.image_rows, slice(None))
        t2i_draws = pairs.draws(slice(None), pairs.text_rows).T
        return {
            "i2t": 0.5 * info_nce(i2t, i2t_positives),
            "t2i": 0.5 * info_nce(t2i, t2i_positives),
            "match": self._match_loss(
                pairs,
                t2i_positives,
                _mine(i2t, i2t_positives, i2t_draws),
                _mine(t2i, t2i_positives, t2i_draws),
            ),
        }

    def coarse(self, image: Encoded, text: Encoded) -> Tensor:
        """Cosine of the two unit vectors: (N,M)."""
        return cosine(image.pooled, text.pooled)

    def score(self, image: Encoded, text: Encoded) -> Tensor:
        """Not a cosine: cosine / temperature + match_weight · matching logit, a sum of log-odds."""
        logits = [self._logit(*chunk) for chunk in in_chunks(image, text, PAIRS_PER_CHUNK)]
        contrast = self.temperature(self.coarse(image, text))
        return contrast + self.match_weight * torch.cat(logits).float().view_as(contrast)

    def after_step(self, pairs: Pairs) -> None:
        """Keeps the learned temperature in bounds."""
        self.temperature.clamp()

    def _match_loss(self, pairs: Pairs, positives: Tensor, hard_text: Tensor, hard_image: Tensor) -> Tensor:
        """One value per fused pair: each text with its image, with a hard image, and each image with a hard text.

        Each copy of an image is paired with its texts: one seen only among negatives would learn to match nothing.
        Where nothing else is in the batch to draw, `_mine` gives −1 and the pair drops out.
        """
        image_at, text_at = (hard_text >= 0).nonzero().flatten(), (hard_image >= 0).nonzero().flatten()
        own_text, own_image = (positives > 0).nonzero().unbind(1)
        left = [
            pairs.all_image.take(own_image),
            pairs.all_image.take(hard_image[text_at]),
            pairs.image.take(image_at),
        ]
        right = [pairs.text.take(own_text), pairs.text.take(text_at), pairs.all_text.take(hard_text[image_at])]
        logits = self._logit(_concatenate(left), _concatenate(right)).float()
        target = torch.zeros_like(logits)
        target[: len(own_image)] = positives[own_text, own_image]
        return F.binary_cross_entropy_with_logits(logits, target, reduction="none")

    def _logit(self, image: Encoded, text: Encoded) -> Tensor:
        """Image b with text b → (B,), the log-odds that they belong together."""
        return self.match(self.fusion(image, text)).squeeze(-1)


@torch.no_grad()
def _mine(scores: Tensor, positives: Tensor, draws: Tensor) -> Tensor:
    """For each row one column that is no positive, drawn in proportion to its softmax score; −1 where there is none.

    The Gumbel-max trick on given uniform draws: the same choice on every device.
    """
    noisy = scores.double() - (-draws.log()).log()
    noisy = noisy.masked_fill(positives > 0, -torch.inf)
    return noisy.argmax(1).masked_fill((positives > 0).all(1), -1)


def _concatenate(parts: list[Encoded]) -> Encoded:
    return Encoded(*(torch.cat(part) for part in zip(*parts, strict=True)))
