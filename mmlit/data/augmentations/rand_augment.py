"""Random ones of fourteen changes of shape and colour."""

from typing import ClassVar

from torch import Tensor
from torchvision.transforms import v2

from mmlit.data.augmentation import PictureAugmentation


class RandAugment(PictureAugmentation):
    """torchvision's RandAugment: shears, shifts, rotations, brightness, colour, contrast, posterizing, solarizing …

    Args:
        number: of changes in turn, ≥ 1.
        magnitude: 0 … 30.

    Raises:
        ValueError: if a number is out of range.

    Source: Cubuk et al. 2019, "RandAugment: practical automated data augmentation with a reduced search space",
    arXiv 1909.13719.
    """

    contradicts: ClassVar[frozenset[str]] = frozenset({"colours", "objects"})

    def __init__(self, *, number: int, magnitude: int) -> None:
        if number < 1:
            raise ValueError(f"augmentation.rand_augment.number must be >= 1, got {number}")
        if not 0 <= magnitude <= 30:
            raise ValueError(f"augmentation.rand_augment.magnitude must lie in 0 … 30, got {magnitude}")
        self.transform = v2.RandAugment(num_ops=number, magnitude=magnitude)

    def changed(self, pixels: Tensor) -> Tensor:
        """See `PictureAugmentation.changed`."""
        return self.transform(pixels)
