"""Left and right change places."""

from typing import ClassVar

import torch
from torch import Tensor

from mmlit.data.augmentation import PictureAugmentation


class Flip(PictureAugmentation):
    """Mirrors left and right.

    Args:
        probability: in [0, 1].

    Raises:
        ValueError: if it is out of range.
    """

    contradicts: ClassVar[frozenset[str]] = frozenset({"sides"})

    def __init__(self, *, probability: float) -> None:
        if not 0 <= probability <= 1:
            raise ValueError(f"augmentation.flip.probability must lie in [0, 1], got {probability}")
        self.probability = probability

    def changed(self, pixels: Tensor) -> Tensor:
        """See `PictureAugmentation.changed`."""
        return pixels.flip(2) if torch.rand(()) < self.probability else pixels
