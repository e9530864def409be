"""The softmax contrastive loss with several positives per row."""

import torch.nn.functional as F
from torch import Tensor


def info_nce(scores: Tensor, positives: Tensor) -> Tensor:
    """Cross-entropy of each row's softmax against the uniform distribution over the row's positives.

    Args:
        scores: (R,C), already divided by the temperature.
        positives: (R,C) in [0, 1]; each row's are normalized to sum 1. A row without a positive gives NaN.

    Returns:
        (R,), ≥ 0, in nats, fp32 or wider.

    Raises:
        ValueError: if the shapes differ or are not matrices.

    Source: Khosla et al. 2020, "Supervised contrastive learning", Eq. 2 (L_out), arXiv 2004.11362; with one positive
    per row van den Oord et al. 2018, Eq. 4, arXiv 1807.03748.
    """
    if scores.ndim != 2 or scores.shape != positives.shape:
        shapes = f"{tuple(scores.shape)} and {tuple(positives.shape)}"
        raise ValueError(f"scores and positives must be matrices of one shape, got {shapes}")
    log_softmax = F.log_softmax(scores if scores.dtype.itemsize >= 4 else scores.float(), dim=1)
    return -(positives * log_softmax).sum(1) / positives.sum(1)
