"""Spearman's correlation between human ratings of pairs and a model's scores."""

import torch
from torch import Tensor

SAMPLES = 1000


def sampled_spearman(query_id: Tensor, rating: Tensor, score: Tensor) -> float:
    """Spearman's correlation of ratings (E,) and scores (E,) in −1…1, averaged over 1,000 samples of pairs.

    A sample has half of the queries (at least two) and of each one rated pair: pairs of one query are not independent.
    The draws depend on the query ids alone, so that models are compared on the same samples. Where either side of a
    sample is constant, so that no correlation is defined, the sample counts as 0.

    Raises:
        ValueError: if there are fewer than two queries.

    Source: Parekh et al. 2021, "Crisscrossed Captions", EACL, arXiv 2004.15020, as Jiang et al. 2022, "PromCSE",
    Sec. 4.2.1, arXiv 2203.06875, repeat it: half of the queries, one rated item of each, the mean of 1,000 samples.
    """
    order = query_id.argsort(stable=True)
    query, count = query_id[order].unique_consecutive(return_counts=True)
    if len(query) < 2:
        raise ValueError(f"a correlation needs rated pairs of at least two queries, got {len(query)}")
    starts = count.cumsum(0) - count
    levels = [values[order].unique(return_inverse=True) for values in (rating, score)]
    generator = torch.Generator().manual_seed(0)
    total = 0.0
    for _ in range(SAMPLES):
        chosen = torch.randperm(len(query), generator=generator)[: max(2, len(query) // 2)]
        draw = torch.rand(len(chosen), generator=generator, dtype=torch.float64)
        pair = starts[chosen] + (draw * count[chosen]).long()
        total += _correlation(*(_ranks(level[pair], len(different)) for different, level in levels))
    return total / SAMPLES


def spearman(one: Tensor, other: Tensor) -> float:
    """Spearman's correlation of two (E,), equal values sharing their mean rank; 0 where either is constant."""
    levels = [values.unique(return_inverse=True) for values in (one, other)]
    return _correlation(*(_ranks(level, len(different)) for different, level in levels))


def _ranks(level: Tensor, num_levels: int) -> Tensor:
    """Mean ranks from dense levels 0 …, without a sort."""
    count = level.bincount(minlength=num_levels)
    return (count.cumsum(0) - (count - 1) / 2).double()[level]


def _correlation(one: Tensor, other: Tensor) -> float:
    one, other = one - one.mean(), other - other.mean()
    scale = one.norm() * other.norm()
    return float(one @ other / scale) if scale > 0 else 0.0
