"""Momentum contrast: candidates from slow towers and a queue of what they said before, with soft targets."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmlit.contracts import Alignment, Encoded, ImageSpec, Pairs, TextSpec
from mmlit.layers.heads import HeadKind, SharedSpace
from mmlit.layers.similarity import Temperature, cosine, pooled_only


class MomentumContrast(Alignment):
    """InfoNCE of each item against the momentum towers' other side: of the global batch, and of a queue.

    A row's target is a mixture: uniform over all that has its image id, in the batch and in the queue, and the softmax
    that the momentum towers give for the same row and candidates.

    Args:
        image: the image encoder's spec.
        text: the text encoder's spec.
        dim: E, or None for the width of the side whose head is `identity`.
        image_head: the image side's head.
        text_head: the text side's head.
        dropout: in the heads, in [0, 1).
        temperature: divides all cosines; the start value where it is learned, then in [0.01, 1].
        learn_temperature: whether it is learned.
        momentum: of the moving averages, in [0, 1).
        queue_size: embeddings of each side that are kept, ≥ 0; the oldest leave first.
        distillation: α, the soft target's share, in [0, 1].

    Raises:
        ValueError: if a number is out of range, or the heads do not fit.

    Source: Li et al. 2021 (ALBEF), Sec. 3.2 and 3.3, Eq. 1 and 6, arXiv 2107.07651; a queue of positives known by
    their ids: there Sec. 5 (retrieval); He et al. 2019 (MoCo), Sec. 3.2, arXiv 1911.05722.
    Differs: without matching and masked words; the queue begins empty, not with random vectors; cross-entropy where
    Eq. 6 has the divergence, which differs by what has no gradient; α is not ramped up. A mixed picture is kept in the
    queue as the image that it shows most of.
    When: batches are small: the queue brings candidates, the soft target forgives captions that fit other images, too.
    """

    def __init__(
        self,
        *,
        image: ImageSpec,
        text: TextSpec,
        dim: int | None,
        image_head: HeadKind,
        text_head: HeadKind,
        dropout: float,
        temperature: float,
        learn_temperature: bool,
        momentum: float,
        queue_size: int,
        distillation: float,
    ) -> None:
        super().__init__()
        if not 0 <= momentum < 1:
            raise ValueError(f"momentum must lie in [0, 1), got {momentum}")
        if queue_size < 0:
            raise ValueError(f"queue_size must be >= 0, got {queue_size}")
        if not 0 <= distillation <= 1:
            raise ValueError(f"distillation must lie in [0, 1], got {distillation}")
        self.space = SharedSpace(
            image=image, text=text, dim=dim, image_head=image_head, text_head=text_head, dropout=dropout
        )
        self.temperature = Temperature(initial=temperature, learn=learn_temperature)
        self.image_queue, self.text_queue = (_Queue(queue_size, self.space.dim) for _ in range(2))
        self.momentum, self.distillation = momentum, distillation

    def embed_image(self, image: Encoded) -> Encoded:
        """Unit vector of each image."""
        return pooled_only(self.space.embed_image(image.pooled))

    def embed_text(self, text: Encoded) -> Encoded:
        """Unit vector of each text."""
        return pooled_only(self.space.embed_text(text.pooled))

    def losses(self, pairs: Pairs) -> dict[str, Tensor]:
        """Half of the cross-entropy of each image against texts, and half of each text's against images."""
        teacher_image, teacher_text = _taught(pairs)
        images, image_ids = self.image_queue.behind(teacher_image, pairs.all_image_id)
        texts, text_ids = self.text_queue.behind(teacher_text, pairs.all_text_image_id)
        weights = _lengthened(pairs, image_ids, text_ids)
        i2t = weights.positives(pairs.image_rows, slice(None))
        t2i = weights.positives(slice(None), pairs.text_rows).T
        return {
            "i2t": 0.5 * self._cross_entropy(pairs.image.pooled, teacher_image[pairs.image_rows], texts, i2t),
            "t2i": 0.5 * self._cross_entropy(pairs.text.pooled, teacher_text[pairs.text_rows], images, t2i),
        }

    def score(self, image: Encoded, text: Encoded) -> Tensor:
        """Cosine of the two unit vectors."""
        return cosine(image.pooled, text.pooled)

    def after_step(self, pairs: Pairs) -> None:
        """The global batch enters the queues; the learned temperature is kept in bounds."""
        self.temperature.clamp()
        image, text = _taught(pairs)
        ids = pairs.all_image_id
        if pairs.all_mix_image_id is not None and pairs.all_mix_weight is not None:
            ids = torch.where(pairs.all_mix_weight < 0.5, pairs.all_mix_image_id, ids)
        self.image_queue.push(image, ids)
        self.text_queue.push(text, pairs.all_text_image_id)

    def _cross_entropy(self, query: Tensor, teacher_query: Tensor, candidates: Tensor, positives: Tensor) -> Tensor:
        """(R,) of own queries (R,E), the teacher's of the same rows, candidates (C,E), `positives` (R,C)."""
        with torch.no_grad():
            soft = self.temperature(cosine(teacher_query, candidates)).softmax(1)
            hard = positives / positives.sum(1, keepdim=True)
            target = (1 - self.distillation) * hard + self.distillation * soft
        return -(target * F.log_softmax(self.temperature(cosine(query, candidates)), dim=1)).sum(1)


class _Queue(nn.Module):
    """The last `size` vectors with the ids of their images; it begins empty."""

    keys: Tensor
    ids: Tensor
    place: Tensor
    filled: Tensor

    def __init__(self, size: int, dim: int) -> None:
        super().__init__()
        self.size = size
        self.register_buffer("keys", torch.zeros(size, dim))
        self.register_buffer("ids", torch.zeros(size, dtype=torch.int64))
        self.register_buffer("place", torch.zeros((), dtype=torch.int64))
        self.register_buffer("filled", torch.zeros((), dtype=torch.int64))

    def behind(self, keys: Tensor, ids: Tensor) -> tuple[Tensor, Tensor]:
        """These vectors and ids, and what the queue holds."""
        filled = int(self.filled)
        return torch.cat([keys, self.keys[:filled]]), torch.cat([ids, self.ids[:filled]])

    @torch.no_grad()
    def push(self, keys: Tensor, ids: Tensor) -> None:
        """In place of the oldest; of more than there is room for, the last ones."""
        if self.size == 0:
            return
        keys, ids = keys[-self.size :], ids[-self.size :]
        at = (self.place + torch.arange(len(keys), device=keys.device)) % self.size
        self.keys[at], self.ids[at] = keys.to(self.keys), ids
        self.place.copy_((self.place + len(keys)) % self.size)
        self.filled.add_(len(keys)).clamp_(max=self.size)


def _taught(pairs: Pairs) -> tuple[Tensor, Tensor]:
    if pairs.teacher is None:
        raise ValueError("momentum_contrast learns from momentum towers, and pairs.teacher is None")
    image, text = pairs.teacher
    return image.pooled, text.pooled


def _lengthened(pairs: Pairs, image_ids: Tensor, text_ids: Tensor) -> Pairs:
    """With the ids of what lies in the queues behind those of the batch."""
    pairs = pairs._replace(all_image_id=image_ids, all_text_image_id=text_ids)
    if pairs.all_mix_image_id is None or pairs.all_mix_weight is None:
        return pairs
    count = len(pairs.all_mix_image_id)
    whole = pairs.all_mix_weight.new_ones(len(image_ids) - count)
    return pairs._replace(
        all_mix_image_id=torch.cat([pairs.all_mix_image_id, image_ids[count:]]),
        all_mix_weight=torch.cat([pairs.all_mix_weight, whole]),
    )
