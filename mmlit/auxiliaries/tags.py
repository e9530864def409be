"""What is in the picture, told from its embedding: a task beside the alignment."""

from collections.abc import Sequence
from typing import ClassVar

import torch.nn.functional as F
from torch import Tensor, nn

from mmlit.contracts import Auxiliary, ImageSpec, Pairs


class Tags(Auxiliary):
    """Multi-label classification of the embedded image: weight · mean over K tags of the binary cross-entropy.

    The head stands on what `Alignment.embed_image` pools, L_align and L_task thus share all but their last layer, and
    the task also shapes the heads of frozen towers. `Batch.labels` says which tags an image has: those of the data's
    column, or the categories of COCO's instances file (of the rendered scenes: their scene graphs' shapes and colours).

    When: pictures come with labels besides their captions, and what those name should be found in the embedding. Tags
    that the captions tell anyway add little.

    Args:
        image: the image encoder's spec.
        width: E of the embeddings.
        weight: of the term, > 0.

    Raises:
        ValueError: if `weight` is out of range.

    Source: Huang et al. 2023, "Tag2Text: guiding vision-language model via image tagging", Sec. 3 (tagging beside
    alignment on shared image features), arXiv 2303.05657.
    Differs: a layer norm and a linear layer with a plain binary cross-entropy instead of a decoder with a query for
    each tag and an asymmetric loss; tags are annotations, not parsed from captions.
    """

    needs_tags: ClassVar[bool] = True

    def __init__(self, *, image: ImageSpec, width: int, weight: float) -> None:
        super().__init__()
        if not weight > 0:
            raise ValueError(f"auxiliary.tags.weight must be > 0, got {weight}")
        self.weight = weight
        # unit vectors, and stacks of any length, become inputs of one scale
        self.norm = nn.LayerNorm(width)
        self.head: nn.Linear | None = None

    def begin(self, tags: Sequence[str]) -> None:
        """A logit for each tag."""
        self.head = nn.Linear(self.norm.normalized_shape[0], len(tags))

    def losses(self, pairs: Pairs) -> dict[str, Tensor]:
        """`cross_entropy` (N,) of this device's images.

        Raises:
            ValueError: if `begin` was not called, or the batch has no labels.
        """
        labels = pairs.batch.labels
        if self.head is None or labels is None:
            raise ValueError("auxiliary=[tags] needs to know the tags before training, and labels in each batch")
        logits = self.head(self.norm(pairs.image.pooled)).float()
        loss = F.binary_cross_entropy_with_logits(logits, labels.float(), reduction="none")
        return {"cross_entropy": self.weight * loss.mean(1)}
