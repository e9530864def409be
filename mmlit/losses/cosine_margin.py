"""The cosine embedding loss over all pairs of a batch: no softmax, no competition between candidates."""

from torch import Tensor


def cosine_margin(cosines: Tensor, positives: Tensor, *, margin: float) -> Tensor:
    """Positives are pulled to cosine 1, every other pair is pushed below `margin`.

    For row i: mean over its positives of (1 − c_ij) + mean over its other pairs *above the margin* of (c_ij − margin).

    Args:
        cosines: (R,C) in [−1, 1].
        positives: (R,C) in [0, 1], at least one > 0 in each row.
        margin: in cosine units, in [−1, 1).

    Returns:
        (R,), ≥ 0, fp32 or wider.

    Raises:
        ValueError: if the shapes differ, or the margin is outside [−1, 1).

    Source: `torch.nn.CosineEmbeddingLoss`.
    Differs: applied to all pairs of the batch, and the mean over other pairs counts only those that violate the margin
    (as Hermans et al. 2017, Sec. 2, arXiv 1703.07737, found for the triplet loss): as soon as most pairs are
    satisfied, a mean over all of them lets the pull on the one positive drown the few pushes that still matter.
    """
    if cosines.ndim != 2 or cosines.shape != positives.shape:
        shapes = f"{tuple(cosines.shape)} and {tuple(positives.shape)}"
        raise ValueError(f"cosines and positives must be matrices of one shape, got {shapes}")
    if not -1 <= margin < 1:
        raise ValueError(f"margin must lie in [-1, 1), got {margin}")
    cosines = cosines if cosines.dtype.itemsize >= 4 else cosines.float()
    pull = (positives * (1 - cosines)).sum(1) / positives.sum(1)
    excess = (1 - positives) * (cosines - margin).clamp_min(0)
    push = excess.sum(1) / (excess > 0).sum(1).clamp_min(1)
    return pull + push
