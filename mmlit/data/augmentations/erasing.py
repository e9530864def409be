"""A rectangle of the picture is painted over."""

from typing import ClassVar

from torch import Tensor
from torchvision.transforms import v2

from mmlit.data.augmentation import PictureAugmentation


class Erasing(PictureAugmentation):
    """Random erasing, or Cutout with a fixed share and `ratio` [1, 1]: a rectangle becomes mid-grey.

    Args:
        probability: in [0, 1].
        scale: least and greatest share of the picture, 0 < least ≤ greatest ≤ 1.
        ratio: least and greatest height : width of the rectangle, > 0.

    Raises:
        ValueError: if a number is out of range.

    Source: Zhong et al. 2017, "Random erasing data augmentation", Alg. 1, arXiv 1708.04896; DeVries, Taylor 2017
    (Cutout), arXiv 1708.04552.
    Differs: grey instead of random values; a rectangle that does not fit is drawn anew ten times, then left out, and
    lies wholly in the picture, while Cutout's square may reach over its edge.
    """

    late: ClassVar[bool] = True
    contradicts: ClassVar[frozenset[str]] = frozenset({"objects"})

    def __init__(self, *, probability: float, scale: tuple[float, float], ratio: tuple[float, float]) -> None:
        if not 0 <= probability <= 1:
            raise ValueError(f"augmentation.erasing.probability must lie in [0, 1], got {probability}")
        if not 0 < scale[0] <= scale[1] <= 1:
            raise ValueError(
                f"augmentation.erasing.scale must be two shares in (0, 1], the smaller one first, got {list(scale)}"
            )
        if not 0 < ratio[0] <= ratio[1]:
            raise ValueError(f"augmentation.erasing.ratio must be two numbers > 0, smaller first, got {list(ratio)}")
        self.transform = v2.RandomErasing(p=probability, scale=tuple(scale), ratio=tuple(ratio), value=127)

    def changed(self, pixels: Tensor) -> Tensor:
        """See `PictureAugmentation.changed`."""
        return self.transform(pixels)
