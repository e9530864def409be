"""Joint alignment: contrast, and a fusion encoder that judges the pairs it finds hard, or guesses masked words."""

from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmlit.contracts import Alignment, Encoded, ImageSpec, Pairs, TextSpec, uniform
from mmlit.layers.fusion import FusionEncoder, in_chunks
from mmlit.layers.heads import HeadKind, SharedSpace
from mmlit.layers.similarity import Temperature, cosine
from mmlit.losses.info_nce import info_nce

#: pairs fused at a time when all pairs of a block are scored
PAIRS_PER_CHUNK = 1024
#: of a text's words that are masked, at least one
MASKED = 0.15


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
        contrast_term: weight of the contrastive terms in the loss, > 0.
        match_term: weight of the matching term, > 0.
        words_term: weight of the masked-word term, ≥ 0. The fusion encoder guesses masked words from the rest of a text
            and its image; the text encoder runs once more, on the masked text.
        distillation: share of the contrastive targets that momentum towers give, in [0, 1].
        momentum: of those towers, in [0, 1); None: there are none, and `distillation` is 0.

    Raises:
        ValueError: if a number is out of range, the heads do not fit, or words are to be masked for a text encoder that
            knows no mask.

    Source: Li et al. 2021 (ALBEF), Eq. 1–4 and 6, Sec. 3.2 and 3.3, arXiv 2107.07651.
    Differs: no queue: both sides of the contrast are the batch's own embeddings, not momentum features; momentum towers
    give targets for the contrast alone, by cross-entropy where Eq. 6 has the divergence (which differs by what has no
    gradient), and their share is not ramped up; masked
    words are all replaced by the mask, and a text's count as their mean; binary cross-entropy on one logit; ranks by
    both scores together (a young matching head must not rank by itself); a caption of the same image is never drawn as
    a negative.
    When: ranking quality counts more than its cost: candidates come from the cosine, a fusion encoder orders them.
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
        contrast_term: float,
        match_term: float,
        words_term: float,
        distillation: float,
        momentum: float | None,
    ) -> None:
        super().__init__()
        _check(match_weight, contrast_term, match_term, words_term, distillation, momentum)
        if words_term and text.mask_id is None:
            raise ValueError(f"words_term={words_term} masks words, and this text encoder has no token for that")
        self.space = SharedSpace(
            image=image, text=text, dim=dim, image_head=image_head, text_head=text_head, dropout=dropout
        )
        self.temperature = Temperature(initial=temperature, learn=learn_temperature)
        self.fusion = FusionEncoder(dim=token_dim, num_layers=num_layers, num_heads=num_heads, dropout=dropout)
        self.image_tokens = nn.Linear(image.dim, token_dim)
        self.text_tokens = nn.Linear(text.dim, token_dim)
        self.match = nn.Linear(token_dim, 1)
        self.match_weight = match_weight
        self.contrast_term, self.match_term, self.words_term = contrast_term, match_term, words_term
        self.distillation, self.momentum, self.spec = distillation, momentum, text
        self.words = nn.Linear(token_dim, text.vocabulary_size) if words_term else None

    def embed_image(self, image: Encoded) -> Encoded:
        """Unit vector of each image, and its patches in the fusion's width."""
        return Encoded(self.image_tokens(image.tokens), self.space.embed_image(image.pooled), image.mask)

    def embed_text(self, text: Encoded) -> Encoded:
        """Unit vector of each text, and its words in the fusion's width."""
        return Encoded(self.text_tokens(text.tokens), self.space.embed_text(text.pooled), text.mask)

    def losses(self, pairs: Pairs) -> dict[str, Tensor]:
        """Contrastive terms as in `contrastive`, `match` on local pairs and mined negatives, `words` of each text."""
        i2t = self.temperature(cosine(pairs.image.pooled, pairs.all_text.pooled))
        t2i = self.temperature(cosine(pairs.text.pooled, pairs.all_image.pooled))
        i2t_positives = pairs.positives(pairs.image_rows, slice(None))
        t2i_positives = pairs.positives(slice(None), pairs.text_rows).T
        i2t_draws = pairs.draws(pairs.image_rows, slice(None))
        t2i_draws = pairs.draws(slice(None), pairs.text_rows).T
        match = self._match_loss(
            pairs,
            t2i_positives,
            _mine(i2t, i2t_positives, i2t_draws),
            _mine(t2i, t2i_positives, t2i_draws),
        )
        i2t_soft, t2i_soft = self._soft_targets(pairs)
        terms = {
            "i2t": 0.5 * self.contrast_term * self._contrast(i2t, i2t_positives, i2t_soft),
            "t2i": 0.5 * self.contrast_term * self._contrast(t2i, t2i_positives, t2i_soft),
            "match": self.match_term * match,
        }
        return (
            terms if self.words is None else terms | {"words": self.words_term * self._word_loss(pairs, t2i_positives)}
        )

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

    def _contrast(self, scores: Tensor, positives: Tensor, soft: Tensor | None) -> Tensor:
        """Cross-entropy against the positives and, where there are any, soft targets (R,C)."""
        hard = info_nce(scores, positives)
        if soft is None:
            return hard
        return (1 - self.distillation) * hard - self.distillation * (soft * scores.log_softmax(1)).sum(1)

    @torch.no_grad()
    def _soft_targets(self, pairs: Pairs) -> tuple[Tensor, Tensor] | tuple[None, None]:
        """What the momentum towers' softmax says of this device's images, and of its texts."""
        if self.momentum is None:
            return None, None
        if pairs.teacher is None:
            raise ValueError("joint with a momentum learns from momentum towers, and pairs.teacher is None")
        image, text = (side.pooled for side in pairs.teacher)
        i2t, t2i = cosine(image[pairs.image_rows], text), cosine(text[pairs.text_rows], image)
        return self.temperature(i2t).softmax(1), self.temperature(t2i).softmax(1)

    def _word_loss(self, pairs: Pairs, positives: Tensor) -> Tensor:
        """Of each text the mean cross-entropy of its masked words: (M,); 0 where nothing can be masked."""
        ids, mask, spec = pairs.batch.token_ids, pairs.batch.token_mask, self.spec
        hidden = _masked(pairs.draw_key, pairs.batch.text_id, ids, mask, spec)
        text = pairs.encode_text(ids.masked_fill(hidden, _mask_id(spec)), mask)
        image = pairs.all_image.take(positives.argmax(1))
        row, place = hidden.nonzero().unbind(1)
        logits = cast(nn.Linear, self.words)(self.fusion.words(image, text)[row, place])
        losses = F.cross_entropy(logits.float(), ids[row, place], reduction="none")
        return losses.new_zeros(len(ids)).index_add(0, row, losses) / hidden.sum(1).clamp_min(1)

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


def _check(  # noqa: PLR0917
    match_weight: float,
    contrast_term: float,
    match_term: float,
    words_term: float,
    distillation: float,
    momentum: float | None,
) -> None:
    for name, value in {"match_weight": match_weight, "words_term": words_term}.items():
        if not value >= 0:
            raise ValueError(f"{name} must be >= 0, got {value}")
    for name, value in {"contrast_term": contrast_term, "match_term": match_term}.items():
        if not value > 0:
            raise ValueError(f"{name} must be > 0, got {value}")
    if not 0 <= distillation <= 1:
        raise ValueError(f"distillation must lie in [0, 1], got {distillation}")
    if momentum is not None and not 0 <= momentum < 1:
        raise ValueError(f"momentum must be null or lie in [0, 1), got {momentum}")
    if (momentum is None) != (distillation == 0):
        raise ValueError(
            f"distillation > 0 and a momentum go together, got distillation={distillation}, momentum={momentum}"
        )


def _mask_id(spec: TextSpec) -> int:
    return -1 if spec.mask_id is None else spec.mask_id


def _masked(key: int, text_id: Tensor, ids: Tensor, mask: Tensor, spec: TextSpec) -> Tensor:
    """Which tokens (M,L) are hidden: each word with probability `MASKED`, and of each text that of the least draw."""
    words = mask & ~torch.isin(ids, torch.tensor(spec.special_ids, device=ids.device))
    places = torch.arange(ids.shape[1], device=ids.device)
    draws = uniform(key, text_id[:, None], places).masked_fill(~words, 2.0)
    return words & ((draws < MASKED) | (draws == draws.amin(1, keepdim=True)))


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
