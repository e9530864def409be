"""Single stream: one transformer over the tokens of both sides judges a pair."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmlit.contracts import Alignment, Encoded, ImageSpec, Pairs, TextSpec
from mmlit.layers.fusion import in_chunks
from mmlit.layers.heads import HeadKind, SharedSpace
from mmlit.layers.similarity import Temperature, cosine
from mmlit.losses.info_nce import info_nce

#: pairs in the transformer at a time when all pairs of a block are scored
PAIRS_PER_CHUNK = 1024
#: pairs of texts of like length that go through it together at least, and parts that a batch is split into at most
LEAST, MOST = 32, 4


class SingleStream(Alignment):
    """A class token, the image's tokens and the text's are one sequence of one transformer; it says match or not.

    Every pair that is scored goes through all layers as a sequence of its own. The matching head, on the class token,
    learns from all true pairs of the batch and from hard negatives: for each text images that do not belong to it, for
    each image texts, drawn in proportion to a softmax of the cosines of the pooled vectors. These have an InfoNCE of
    their own, and find the candidates for reranking (`coarse`). A head that sees only what this softmax draws learns
    by how much the softmax is wrong: so score = cosine / temperature + matching logit.

    Args:
        image: the image encoder's spec.
        text: the text encoder's spec.
        dim: width of the pooled vectors' space; None = the width of the side whose head is `identity`.
        image_head: head of the image's pooled vector.
        text_head: head of the text's pooled vector.
        token_dim: E, width of the transformer, a multiple of `num_heads`.
        num_layers: its layers, ≥ 1.
        num_heads: attention heads.
        dropout: on pooled vectors and in the transformer, in [0, 1).
        temperature: divides the cosines; the start value where it is learned, then in [0.01, 1].
        learn_temperature: whether it is learned.
        num_negatives: hard negatives of each text, and of each image, ≥ 1; fewer where the batch has no more.

    Raises:
        ValueError: if a number is out of range, or the heads do not fit.

    Source: Kim, Son, Kim 2021 (ViLT), Sec. 3.1 and 3.2, arXiv 2102.03334; mined negatives: Li et al. 2021 (ALBEF),
    Sec. 3.2, arXiv 2107.07651.
    Differs: it stands on two encoders, as every method here, where ViLT embeds patches and words by one linear map.
    The two projections into the transformer have the type embeddings as their biases; positions are the encoders'. A
    light contrastive branch, which ViLT lacks, mines the negatives, which are random there, is part of the score, as
    in `joint`, and ranks all but the best candidates, for the transformer cannot score a whole gallery. No masked
    words, no word–patch alignment; binary cross-entropy on one logit; a caption of the same image is never drawn as a
    negative, and another image that comes twice may be drawn twice.
    When: to see the unified end of the spectrum, where both sides share one transformer; the costliest to train.
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
        num_negatives: int,
    ) -> None:
        super().__init__()
        _check(token_dim=token_dim, num_layers=num_layers, num_heads=num_heads, num_negatives=num_negatives)
        self.space = SharedSpace(
            image=image, text=text, dim=dim, image_head=image_head, text_head=text_head, dropout=dropout
        )
        self.temperature = Temperature(initial=temperature, learn=learn_temperature)
        self.image_tokens = nn.Linear(image.dim, token_dim)
        self.text_tokens = nn.Linear(text.dim, token_dim)
        self.class_token = nn.Parameter(0.02 * torch.randn(token_dim))
        layer = nn.TransformerEncoderLayer(
            token_dim, num_heads, 4 * token_dim, dropout, "gelu", batch_first=True, norm_first=True
        )
        layer.dropout.p = 0.0  # none on the widened vectors, as in `mmlit.layers.fusion`
        self.layers = nn.TransformerEncoder(layer, num_layers, nn.LayerNorm(token_dim), enable_nested_tensor=False)
        self.match = nn.Linear(token_dim, 1)
        self.num_negatives = num_negatives

    def embed_image(self, image: Encoded) -> Encoded:
        """Unit vector of each image, and its patches in the transformer's width."""
        return Encoded(self.image_tokens(image.tokens), self.space.embed_image(image.pooled), image.mask)

    def embed_text(self, text: Encoded) -> Encoded:
        """Unit vector of each text, and its words in the transformer's width."""
        return Encoded(self.text_tokens(text.tokens), self.space.embed_text(text.pooled), text.mask)

    def losses(self, pairs: Pairs) -> dict[str, Tensor]:
        """Contrastive terms of the pooled vectors, and `match` on the true pairs and their mined negatives."""
        rows, columns, everyone = pairs.image_rows, pairs.text_rows, slice(None)
        i2t = self.temperature(cosine(pairs.image.pooled, pairs.all_text.pooled))
        t2i = self.temperature(cosine(pairs.text.pooled, pairs.all_image.pooled))
        own_texts, own_images = pairs.positives(rows, everyone), pairs.positives(everyone, columns).T
        hard_texts = hard_negatives(i2t, own_texts, pairs.draws(rows, everyone), count=self.num_negatives)
        hard_images = hard_negatives(t2i, own_images, pairs.draws(everyone, columns).T, count=self.num_negatives)
        return {
            "i2t": 0.5 * info_nce(i2t, own_texts),
            "t2i": 0.5 * info_nce(t2i, own_images),
            "match": self._match_loss(pairs, own_images, hard_texts, hard_images),
        }

    def coarse(self, image: Encoded, text: Encoded) -> Tensor:
        """Cosine of the two pooled unit vectors: (N,M)."""
        return cosine(image.pooled, text.pooled)

    def score(self, image: Encoded, text: Encoded) -> Tensor:
        """Not a cosine: cosine / temperature + matching logit, a sum of log-odds."""
        logits = [self._logit(*chunk) for chunk in in_chunks(image, text, PAIRS_PER_CHUNK)]
        contrast = self.temperature(self.coarse(image, text))
        return contrast + torch.cat(logits).float().view_as(contrast)

    def after_step(self, pairs: Pairs) -> None:
        """Keeps the learned temperature in bounds."""
        self.temperature.clamp()

    def _match_loss(self, pairs: Pairs, own_images: Tensor, hard_texts: Tensor, hard_images: Tensor) -> Tensor:
        """Of each true pair, then each (text, hard image), then each (image, hard text) of this device one value."""
        text_of_true, true_image = (own_images > 0).nonzero().unbind(1)
        text_of_hard, hard_image = hard_images.nonzero().unbind(1)
        image_of_hard, hard_text = hard_texts.nonzero().unbind(1)
        image = (pairs.all_image.take(torch.cat([true_image, hard_image])), pairs.image.take(image_of_hard))
        text = (pairs.text.take(torch.cat([text_of_true, text_of_hard])), pairs.all_text.take(hard_text))
        logits = self._logit(*(Encoded(*map(torch.cat, zip(*side, strict=True))) for side in (image, text))).float()
        target = torch.zeros_like(logits)
        target[: len(true_image)] = own_images[text_of_true, true_image]
        return F.binary_cross_entropy_with_logits(logits, target, reduction="none")

    def _logit(self, image: Encoded, text: Encoded) -> Tensor:
        """Image b with text b → (B,). Texts of like length go together, so that little of it is padding."""
        order = text.ends().argsort(stable=True)
        parts = order.chunk(max(1, min(MOST, len(order) // LEAST)))
        logits = [self._stream(image.take(part), text.take(part).trimmed()) for part in parts]
        return torch.cat(logits)[order.argsort()]

    def _stream(self, image: Encoded, text: Encoded) -> Tensor:
        start = self.class_token.to(image.tokens.dtype).expand(len(image.tokens), 1, -1)
        sequence = torch.cat([start, image.tokens, text.tokens], dim=1)
        kept = torch.cat([image.mask.new_ones(len(image.mask), 1), image.mask, text.mask], dim=1)
        return self.match(self.layers(sequence, src_key_padding_mask=~kept)[:, 0]).squeeze(-1)


@torch.no_grad()
def hard_negatives(scores: Tensor, positives: Tensor, draws: Tensor, *, count: int) -> Tensor:
    """For each row up to `count` columns that are no positives, drawn without replacement by its softmax: (R,C) bool.

    The greatest of score + Gumbel noise, made of the given uniform draws: the same choice on every device.

    Source: Kool et al. 2019, "Stochastic beams and where to find them" (Gumbel-top-k), arXiv 1903.06059.
    """
    noisy = scores.double() - (-draws.log()).log()
    noisy = noisy.masked_fill(positives > 0, -torch.inf)
    value, column = noisy.topk(min(count, noisy.shape[1]), dim=1)
    return torch.zeros_like(noisy, dtype=torch.bool).scatter(1, column, value.isfinite())


def _check(*, token_dim: int, num_layers: int, num_heads: int, num_negatives: int) -> None:
    if num_layers < 1:
        raise ValueError(f"num_layers must be >= 1, got {num_layers}")
    if num_heads < 1 or token_dim < num_heads or token_dim % num_heads:
        raise ValueError(f"token_dim must be a multiple of num_heads, got token_dim={token_dim}, num_heads={num_heads}")
    if num_negatives < 1:
        raise ValueError(f"num_negatives must be >= 1, got {num_negatives}")
