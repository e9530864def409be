"""InfoNCE with smoothed labels, with harder negatives, or without its positives in the denominator."""

import math

import torch
from torch import Tensor

from mmlit.contracts import Pairs
from mmlit.losses.tiled_info_nce import tiled_others
from mmlit.losses.tiles import TrueEntries, Truth, wide


def reweighted_info_nce(
    pairs: Pairs, scale: Tensor, *, label_smoothing: float, hardness: float, decoupled: bool
) -> tuple[Tensor, Tensor]:
    """`tiled_info_nce` with three options; with 0, 0 and False it is the same loss, made in another way.

    Of row i with scores s_ij = scale · cosine_ij, weights w_ij = `Pairs.positives` of C columns and n_i = Σ_j 1 − w_ij:

        −(1 − ε) Σ_j w_ij s_ij / Σ_j w_ij − ε Σ_j s_ij / C + log(α Σ_j w_ij e^s_ij + n_i A_i(1 + β) / A_i(β))

    where A_i(k) = Σ_j (1 − w_ij) exp(k s_ij): the others' mean of e^s, each weighted by e^βs.

    Memory grows with N + M and the number of true pairs; `hardness` > 0 makes all tiles twice.

    Args:
        pairs: unit vectors (N,E), (M,E) in `pooled`; ids decide what is true. A row without a positive gives NaN.
        scale: (), one divided by the temperature; it gets a gradient, too.
        label_smoothing: ε in [0, 1), spread over all columns.
        hardness: β ≥ 0; the greater, the more the hardest others count.
        decoupled: α = 0 in place of 1. The loss has no lower bound then, and a row to which nothing else is there
            costs nothing.

    Returns:
        (N,) and (M,), in nats, fp32 or wider.

    Raises:
        ValueError: if an option is out of range, or the shapes are refused by `tiled_info_nce`.

    Source: ε: Szegedy et al. 2016, Sec. 7, arXiv 1512.00567; β: Robinson et al. 2020, Sec. 3 without
    debiasing, arXiv 2010.04592, for image–text pairs Radenovic et al. 2023 (DiHT, HN-NCE), arXiv 2301.02280;
    α: Yeh et al. 2021, "Decoupled contrastive learning", Sec. 3, arXiv 2110.06848.
    Differs: several positives per row, none of which is ever among the others; one β for both directions.
    """
    check_reweighting(label_smoothing, hardness)
    with torch.autocast(scale.device.type, enabled=False):
        rows = _true_pairs(pairs, scale)
        others: list[Tensor] = list(tiled_others(pairs, (1 + hardness) * scale))
        if hardness:
            weights = tiled_others(pairs, hardness * scale)
            others = [row[3].log() + at - by for row, at, by in zip(rows, others, weights, strict=True)]
    found = []
    for (true, own, smooth, count), other in zip(rows, others, strict=True):
        pull = (1 - label_smoothing) * true + label_smoothing * smooth
        loss = (other if decoupled else torch.logaddexp(own, other)) - pull
        found.append(torch.where(count > 0, loss, 0.0) if decoupled else loss)
    return found[0], found[1]


def check_reweighting(label_smoothing: float, hardness: float) -> None:
    """Refuses what is out of range.

    Raises:
        ValueError: naming the option.
    """
    if not 0 <= label_smoothing < 1:
        raise ValueError(f"label_smoothing must lie in [0, 1), got {label_smoothing}")
    if not 0 <= hardness < math.inf:
        raise ValueError(f"hardness must be a number >= 0, got {hardness}")


def _true_pairs(pairs: Pairs, scale: Tensor) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...]]:
    """Of each image, and of each text: mean true score, log Σ_j w_ij exp(s_ij), mean score, n_i."""
    everyone = slice(None)
    image, all_text = wide(pairs.image.pooled), wide(pairs.all_text.pooled)
    text, all_image = wide(pairs.text.pooled), wide(pairs.all_image.pooled)
    i2t = Truth.of(pairs, pairs.image_rows, everyone).within(everyone, everyone, like=image)
    row, column, weight = Truth.of(pairs, everyone, pairs.text_rows).within(everyone, everyone, like=text)
    t2i = TrueEntries(column, row, weight)
    return _rows(image, all_text, scale, i2t), _rows(text, all_image, scale, t2i)


def _rows(query: Tensor, key: Tensor, scale: Tensor, true: TrueEntries) -> tuple[Tensor, ...]:
    score = scale * (query[true.row] * key[true.column]).sum(1)
    zeros = score.new_zeros(len(query))
    weight = zeros.index_add(0, true.row, true.weight)
    greatest = zeros.detach().scatter_reduce(0, true.row, score.detach(), "amax", include_self=False)
    total = zeros.index_add(0, true.row, true.weight * (score - greatest[true.row]).exp())
    return (
        zeros.index_add(0, true.row, true.weight * score) / weight,
        greatest + total.log(),
        scale * (query @ key.mean(0)),
        len(key) - weight,
    )
