"""Alignment by projection: two heads, and a loss on each pair's own cosine."""

from torch import Tensor

from mmlit.contracts import Alignment, Encoded, ImageSpec, Pairs, TextSpec
from mmlit.layers.heads import HeadKind, SharedSpace
from mmlit.layers.similarity import cosine, pooled_only
from mmlit.losses.cosine_margin import cosine_margin


class Projection(Alignment):
    """Pulls pairs to cosine 1 and pushes other pairs below a margin; no softmax over the batch.

    Args:
        image: the image encoder's spec.
        text: the text encoder's spec.
        dim: E, or None for the width of the side whose head is `identity`.
        image_head: the image side's head.
        text_head: the text side's head.
        dropout: in the heads, in [0, 1).
        margin: cosine above which a non-pair is pushed away, in [−1, 1).

    Raises:
        ValueError: if `margin` is outside [−1, 1), or the heads do not fit.

    Source: the plain baseline of the field; loss as in `mmlit.losses.cosine_margin`.
    When: the plainest baseline; small batches, where a softmax has few negatives to compare with.
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
        margin: float,
    ) -> None:
        super().__init__()
        if not -1 <= margin < 1:
            raise ValueError(f"margin must lie in [-1, 1), got {margin}")
        self.space = SharedSpace(
            image=image, text=text, dim=dim, image_head=image_head, text_head=text_head, dropout=dropout
        )
        self.margin = margin

    def embed_image(self, image: Encoded) -> Encoded:
        """Unit vector of each image."""
        return pooled_only(self.space.embed_image(image.pooled))

    def embed_text(self, text: Encoded) -> Encoded:
        """Unit vector of each text."""
        return pooled_only(self.space.embed_text(text.pooled))

    def losses(self, pairs: Pairs) -> dict[str, Tensor]:
        """Half of the loss of each image's row and half of each text's."""
        all_texts, all_images = slice(None), slice(None)
        i2t = cosine(pairs.image.pooled, pairs.all_text.pooled)
        t2i = cosine(pairs.text.pooled, pairs.all_image.pooled)
        return {
            "i2t": 0.5 * cosine_margin(i2t, pairs.positives(pairs.image_rows, all_texts), margin=self.margin),
            "t2i": 0.5 * cosine_margin(t2i, pairs.positives(all_images, pairs.text_rows).T, margin=self.margin),
        }

    def score(self, image: Encoded, text: Encoded) -> Tensor:
        """Cosine of the two unit vectors."""
        return cosine(image.pooled, text.pooled)
