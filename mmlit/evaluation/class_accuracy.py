"""Scores of classes → accuracies."""

import numpy as np
import torch
from torch import Tensor

#: from how many classes on the five best say anything
_MORE_THAN = 5


def class_accuracy(scores: Tensor, labels: Tensor) -> tuple[dict[str, float], dict[str, np.ndarray]]:
    """Scores (N,C) and classes (N,) → numbers in percent, and for each item whether it was right.

    `top1`; `top5` where there are more than five classes; `mean_per_class`, the mean of `top1` over the classes that
    have items. Ties count against the model.
    """
    rank = (scores >= scores.gather(1, labels[:, None])).sum(1)
    right = {"top1": rank == 1}
    if scores.shape[1] > _MORE_THAN:
        right["top5"] = rank <= _MORE_THAN
    metrics = {name: 100 * each.double().mean().item() for name, each in right.items()}
    number = torch.bincount(labels, minlength=scores.shape[1])
    hits = torch.bincount(labels, weights=right["top1"].double(), minlength=scores.shape[1])
    metrics["mean_per_class"] = 100 * (hits[number > 0] / number[number > 0]).mean().item()
    return metrics, {name: each.numpy() for name, each in right.items()}
