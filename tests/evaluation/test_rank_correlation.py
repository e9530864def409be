"""Spearman's correlation of ratings and scores."""

import pytest
import torch

from mmlit.evaluation.rank_correlation import SAMPLES, sampled_spearman, spearman


def mean_ranks(values: list[float]) -> list[float]:
    """Ranks from 1; equal values share their mean."""
    return [sum(o < v for o in values) + (1 + sum(o == v for o in values)) / 2 for v in values]


def by_loops(one: list[float], other: list[float]) -> float:
    left, right = mean_ranks(one), mean_ranks(other)
    middle = (len(left) + 1) / 2
    top = sum((a - middle) * (b - middle) for a, b in zip(left, right, strict=True))
    scale = sum((a - middle) ** 2 for a in left) * sum((b - middle) ** 2 for b in right)
    return top / scale**0.5 if scale else 0.0


def test_by_hand() -> None:
    """Without equal values 1 − 6 Σd² / (n (n² − 1)): differences of ranks 0, 1, −1, 0 give 1 − 12/60."""
    ratings, scores = torch.tensor([1.0, 2.0, 3.0, 4.0]), torch.tensor([-5.0, 0.3, 0.2, 7.0])
    assert spearman(ratings, scores) == pytest.approx(0.8)
    assert spearman(ratings, -(ratings**3)) == pytest.approx(-1)
    assert spearman(ratings, torch.ones(4)) == 0


@pytest.mark.parametrize("levels", [2, 5, 1000])
def test_equals_the_loops(levels: int) -> None:
    generator = torch.Generator().manual_seed(levels)
    one, other = (torch.randint(levels, (40,), generator=generator).double() for _ in range(2))
    assert spearman(one, other) == pytest.approx(by_loops(one.tolist(), other.tolist()))


def test_with_all_pairs_of_different_queries_it_is_near_spearman() -> None:
    """One pair per query: the samples differ by the half of the queries that they take."""
    generator = torch.Generator().manual_seed(0)
    rating = torch.randint(6, (600,), generator=generator).double()
    score = rating + 2 * torch.randn(600, generator=generator, dtype=torch.float64)
    query = torch.randperm(600, generator=generator)
    assert sampled_spearman(query, rating, score) == pytest.approx(spearman(rating, score), abs=0.01)


def test_a_sample_has_half_of_the_queries_and_one_pair_of_each(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ratings name their query in the hundreds and the item below; every item of a query is drawn in the end."""
    seen: list[torch.Tensor] = []

    def note(one: torch.Tensor, other: torch.Tensor) -> float:
        seen.append(other)
        return 0.5

    monkeypatch.setattr("mmlit.evaluation.rank_correlation._correlation", note)
    monkeypatch.setattr("mmlit.evaluation.rank_correlation._ranks", lambda level, num_levels: level)
    query = torch.arange(9).repeat_interleave(4)
    mixed = torch.randperm(36, generator=torch.Generator().manual_seed(0))
    assert sampled_spearman(query[mixed], torch.arange(36)[mixed], torch.arange(36.0)[mixed]) == 0.5
    assert len(seen) == SAMPLES
    assert all(len(sample) == len((sample // 4).unique()) == 4 for sample in seen)
    counts = torch.cat(seen).bincount(minlength=36)
    assert counts.min() > 0.7 * counts.float().mean()
    assert counts.max() < 1.3 * counts.float().mean()


def test_queries_with_many_pairs_weigh_no_more() -> None:
    """Traps of dependence: one query with 500 pairs, rated the wrong way round, does not outweigh 100 others."""
    others = torch.arange(100)
    query = torch.cat([others, torch.full((500,), 100)])
    rating = torch.cat([others.double() / 20, torch.linspace(0, 5, 500, dtype=torch.float64)])
    score = torch.cat([others.double(), torch.linspace(100, 0, 500, dtype=torch.float64)])
    assert spearman(rating, score) < 0
    assert sampled_spearman(query, rating, score) > 0.9


def test_the_order_of_the_pairs_does_not_matter() -> None:
    generator = torch.Generator().manual_seed(1)
    query, rating = torch.arange(50).repeat(3), torch.rand(150, generator=generator)
    score = rating + torch.rand(150, generator=generator)
    by_query = query.argsort(stable=True)
    whole = sampled_spearman(query, rating, score)
    assert sampled_spearman(query[by_query], rating[by_query], score[by_query]) == whole


def test_one_query_is_refused() -> None:
    with pytest.raises(ValueError, match="at least two queries, got 1"):
        sampled_spearman(torch.zeros(3), torch.rand(3), torch.rand(3))


def test_a_model_without_an_opinion_has_no_correlation() -> None:
    """Trap 1: constant scores give 0, not an error and not NaN."""
    assert sampled_spearman(torch.arange(9), torch.arange(9.0), torch.zeros(9)) == 0
