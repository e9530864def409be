"""Hinge losses on triplets: a query, what belongs to it, and what does not."""

from typing import Literal

from torch import Tensor

Hinges = Literal["sum", "max"]


def triplet(cosines: Tensor, positives: Tensor, *, margin: float, hinges: Hinges) -> Tensor:
    """By how much others come closer than `margin` to what belongs to each row.

    For a positive p of row i: the sum over the row's other columns n of max(0, margin − c_ip + c_in), or the greatest
    of these hinges. A row with several positives has their mean; none of them is ever the other of another one.

    Args:
        cosines: (R,C) in [−1, 1].
        positives: (R,C) in [0, 1], weights of a row's positives; only where it is 0 a column is another one. A row
            without a positive gives NaN.
        margin: in cosine units, in (0, 2].
        hinges: `sum` of a row's hinges or their `max`.

    Returns:
        (R,), ≥ 0, fp32 or wider.

    Raises:
        ValueError: if the shapes differ, the margin is outside (0, 2], or `hinges` is neither of the two.

    Source: Faghri et al. 2017, "VSE++", Eq. 5 (`sum`) and 6 (`max`), arXiv 1707.05612.
    Differs: several positives per row; a value per row in place of the batch's sum.
    """
    if cosines.ndim != 2 or cosines.shape != positives.shape:
        shapes = f"{tuple(cosines.shape)} and {tuple(positives.shape)}"
        raise ValueError(f"cosines and positives must be matrices of one shape, got {shapes}")
    if not 0 < margin <= 2:
        raise ValueError(f"margin must lie in (0, 2], got {margin}")
    if hinges not in ("sum", "max"):
        raise ValueError(f"hinges must be sum or max, got {hinges!r}")
    cosines = cosines if cosines.dtype.itemsize >= 4 else cosines.float()
    positives = positives.to(cosines)
    row, column = positives.nonzero().unbind(1)
    others = cosines.masked_fill(positives > 0, -2 - margin)  # so low that its hinge is 0
    short = margin - cosines[row, column]
    if hinges == "max":
        each = (short + others.amax(1)[row]).clamp_min(0)
    else:
        each = (short[:, None] + others[row]).clamp_min(0).sum(1)
    total = each.new_zeros(len(cosines)).index_add(0, row, positives[row, column] * each)
    return total / positives.sum(1)
