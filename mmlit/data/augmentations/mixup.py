"""Two pictures shine through each other."""

import numpy as np
import torch
from torch import Tensor

from mmlit.data.augmentation import MixAugmentation


class Mixup(MixAugmentation):
    """λ · picture + (1 − λ) · the next one of the batch, λ from Beta(α, α); either's captions are true by its share.

    Args:
        alpha: α > 0.

    Raises:
        ValueError: if `alpha` is out of range.

    Source: Zhang et al. 2017, "mixup: beyond empirical risk minimization", Sec. 2, arXiv 1710.09412; λ is drawn
    once for a batch, as there.
    Differs: targets are pairs instead of classes; a picture's partner is the next one, batches being shuffled already.
    """

    def __init__(self, *, alpha: float) -> None:
        if not alpha > 0:
            raise ValueError(f"augmentation.mixup.alpha must be > 0, got {alpha}")
        self.alpha = alpha

    def mixed(self, pixels: Tensor, others: Tensor, generator: np.random.Generator) -> tuple[Tensor, float]:
        """See `MixAugmentation.mixed`."""
        weight = float(generator.beta(self.alpha, self.alpha))
        return torch.lerp(others.float(), pixels.float(), weight).round().byte(), weight
