"""Triplet alignment: two heads, and a margin between a pair and the batch's other candidates."""

from functools import partial

from torch import Tensor

from mmlit.contracts import Alignment, Encoded, ImageSpec, Pairs, TextSpec
from mmlit.layers.heads import HeadKind, SharedSpace
from mmlit.layers.similarity import cosine, pooled_only
from mmlit.losses.triplet import Hinges, triplet


class Triplet(Alignment):
    """Hinges on cosines, both ways: all of a row's or its hardest only. A caption of the same image is never one.

    Args:
        image: the image encoder's spec.
        text: the text encoder's spec.
        dim: E, or None for the width of the side whose head is `identity`.
        image_head: the image side's head.
        text_head: the text side's head.
        dropout: in the heads, in [0, 1).
        margin: in cosine units, in (0, 2].
        hinges: `sum` or `max` of the hinges of a row. `max` needs towers that know something: from random weights it
            draws all vectors together, where every hinge is the margin and no gradient is left. Start it from a
            checkpoint that `sum` has trained, or from pretrained towers.

    Raises:
        ValueError: if `margin` or `hinges` is out of range, or the heads do not fit.

    Source: Faghri et al. 2017, "VSE++", Eq. 5 (`sum`) and 6 (`max`), arXiv 1707.05612; that the hardest negatives alone
    may make all items collapse into one: Schroff et al. 2015, "FaceNet", Sec. 3.2, arXiv 1503.03832.
    Differs: several positives per row; means over the batch in place of sums.
    When: to compare with the ranking losses before contrastive pre-training; small batches.
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
        hinges: Hinges,
    ) -> None:
        super().__init__()
        if not 0 < margin <= 2:
            raise ValueError(f"margin must lie in (0, 2], got {margin}")
        if hinges not in ("sum", "max"):
            raise ValueError(f"hinges must be sum or max, got {hinges!r}")
        self.space = SharedSpace(
            image=image, text=text, dim=dim, image_head=image_head, text_head=text_head, dropout=dropout
        )
        self.margin, self.hinges = margin, hinges

    def embed_image(self, image: Encoded) -> Encoded:
        """Unit vector of each image."""
        return pooled_only(self.space.embed_image(image.pooled))

    def embed_text(self, text: Encoded) -> Encoded:
        """Unit vector of each text."""
        return pooled_only(self.space.embed_text(text.pooled))

    def losses(self, pairs: Pairs) -> dict[str, Tensor]:
        """The hinges of each image's row and those of each text's."""
        loss, everyone = partial(triplet, margin=self.margin, hinges=self.hinges), slice(None)
        i2t = cosine(pairs.image.pooled, pairs.all_text.pooled)
        t2i = cosine(pairs.text.pooled, pairs.all_image.pooled)
        return {
            "i2t": loss(i2t, pairs.positives(pairs.image_rows, everyone)),
            "t2i": loss(t2i, pairs.positives(everyone, pairs.text_rows).T),
        }

    def score(self, image: Encoded, text: Encoded) -> Tensor:
        """Cosine of the two unit vectors."""
        return cosine(image.pooled, text.pooled)
