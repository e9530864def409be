"""Learning-rate schedules, counted in optimizer steps."""

import math

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR


def warmup_cosine(optimizer: Optimizer, *, total_steps: int, warmup: float) -> LambdaLR:
    """Linear from 0 over the first `warmup` share of all steps, then half a cosine down to 0.

    Args:
        optimizer: whose learning rates are multiplied.
        total_steps: optimizer steps of the whole run, ≥ 1.
        warmup: in [0, 1).

    Raises:
        ValueError: if `warmup` is out of range.
    """
    warm = _warm(warmup, total_steps)

    def factor(step: int) -> float:
        if step < warm:
            return (step + 1) / (warm + 1)
        return 0.5 * (1 + math.cos(math.pi * min(1.0, (step - warm) / max(1, total_steps - warm))))

    return LambdaLR(optimizer, factor)


def constant(optimizer: Optimizer, *, total_steps: int, warmup: float) -> LambdaLR:
    """Linear from 0 over the first `warmup` share of all steps, then as it is.

    Args:
        optimizer: whose learning rates are multiplied.
        total_steps: optimizer steps of the whole run, ≥ 1.
        warmup: in [0, 1).

    Raises:
        ValueError: if `warmup` is out of range.
    """
    warm = _warm(warmup, total_steps)
    return LambdaLR(optimizer, lambda step: min(1.0, (step + 1) / (warm + 1)))


def inverse_sqrt(optimizer: Optimizer, *, total_steps: int, warmup: float) -> LambdaLR:
    """Linear from 0 over the first `warmup` share of all steps, then falling as 1 / √step.

    Args:
        optimizer: whose learning rates are multiplied.
        total_steps: optimizer steps of the whole run, ≥ 1.
        warmup: in [0, 1); with 0 it falls from the first step on.

    Raises:
        ValueError: if `warmup` is out of range.

    Source: Vaswani et al. 2017, Sec. 5.3, Eq. 3, arXiv 1706.03762.
    Differs: the highest rate is the optimizer's.
    """
    warm = _warm(warmup, total_steps)
    return LambdaLR(optimizer, lambda step: min((step + 1) / (warm + 1), math.sqrt((warm + 1) / (step + 1))))


def _warm(warmup: float, total_steps: int) -> int:
    if not 0 <= warmup < 1:
        raise ValueError(f"schedule.warmup must lie in [0, 1), got {warmup}")
    return round(warmup * total_steps)
