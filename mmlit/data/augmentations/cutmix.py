"""A rectangle of a picture shows another one."""

from typing import ClassVar

import numpy as np
from torch import Tensor

from mmlit.data.augmentation import MixAugmentation


class Cutmix(MixAugmentation):
    """A rectangle with a share 1 − λ of the picture is the next picture's, λ from Beta(α, α), at a place drawn evenly.

    The rectangle has the picture's proportions and is cut at its edges; either's captions are true by the share that is
    then seen of it.

    Args:
        alpha: α > 0.

    Raises:
        ValueError: if `alpha` is out of range.

    Source: Yun et al. 2019, "CutMix: regularization strategy to train strong classifiers with localizable features",
    Eq. 1 and 2, arXiv 1905.04899.
    Differs: targets are pairs instead of classes; a picture's partner is the next one, batches being shuffled already.
    """

    contradicts: ClassVar[frozenset[str]] = frozenset({"objects"})  # a share of the picture is none of its objects

    def __init__(self, *, alpha: float) -> None:
        if not alpha > 0:
            raise ValueError(f"augmentation.cutmix.alpha must be > 0, got {alpha}")
        self.alpha = alpha

    def mixed(self, pixels: Tensor, others: Tensor, generator: np.random.Generator) -> tuple[Tensor, float]:
        """See `MixAugmentation.mixed`."""
        height, width = pixels.shape[-2:]
        half = 0.5 * np.sqrt(1 - generator.beta(self.alpha, self.alpha))
        centre = generator.uniform(size=2)
        sides = [
            (round(max(0.0, at - half) * length), round(min(1.0, at + half) * length))
            for at, length in zip(centre, (height, width), strict=True)
        ]
        (top, bottom), (left, right) = sides
        found = pixels.clone()
        found[..., top:bottom, left:right] = others[..., top:bottom, left:right]
        return found, 1 - (bottom - top) * (right - left) / (height * width)
