"""Numbers per query from the places of its positives or graded items."""

import torch
from torch import Tensor

from mmlit.evaluation.places import NEVER, order_within

KS = (1, 5, 10)


def yes_or_no(query: Tensor, place: Tensor, num_queries: int) -> dict[str, Tensor]:
    """Of the places (E,) of all positives of queries 0 … (E,): values (Q,) in 0…1.

    With R positives: `r_precision` is their share among the first R places; `map_at_r` the mean over the first R places
    of the precision up to there where a positive stands, else 0; `r1`, `r5`, `r10` whether any stands in the first k.

    Source: R-Precision and mAP@R as in Musgrave, Belongie, Lim 2020, "A Metric Learning Reality Check", arXiv
    2003.08505; for captions Chun et al. 2022, "ECCV Caption", arXiv 2204.03359, and its package `eccv_caption`.
    """
    count = query.bincount(minlength=num_queries)
    zero = torch.zeros(num_queries, dtype=torch.float64)
    among_r = (place <= count[query]).double()
    precision = order_within(query, place) / place.double()
    first = torch.full((num_queries,), NEVER).scatter_reduce(0, query, place, "amin")
    return {
        "map_at_r": zero.index_add(0, query, among_r * precision) / count,
        "r_precision": zero.index_add(0, query, among_r) / count,
        **{f"r{k}": (first <= k).double() for k in KS},
    }


def ndcg(query: Tensor, place: Tensor, gain: Tensor, num_queries: int, cut: int) -> Tensor:
    """Σ gain / log2(1 + place) over the pairs among the first `cut` places, by what the best order would give: (Q,).

    Source: Järvelin, Kekäläinen 2002, "Cumulated gain-based evaluation of IR techniques", ACM TOIS 20(4), Sec. 2; the
    gain is the grade itself.
    Differs: every place is discounted by log2(1 + place), as is common today; theirs is log2(place) from 2 on.
    """
    zero = torch.zeros(num_queries, dtype=torch.float64)

    def cumulated(at: Tensor) -> Tensor:
        discounted = gain.double() / (1 + at.double()).log2()
        return zero.index_add(0, query, discounted.masked_fill(at > cut, 0))

    return cumulated(place) / cumulated(order_within(query, -gain))
