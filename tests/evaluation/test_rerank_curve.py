"""Reranking with more and more candidates."""

import pytest
import torch
from evaluation.galleries import LookUp, captions, coarse_numbers, gallery
from torch import Tensor

from mmlit.contracts import Encoded
from mmlit.evaluation.ranking import Gallery, rank_all
from mmlit.evaluation.recall import summarize
from mmlit.evaluation.rerank_curve import CurvePoint, rerank_curve
from mmlit.evaluation.reranking import rerank, rerank_each

BLOCKS = {"image_block": 4, "text_block": 6}
COUNTS = [7, 1, 6, 2, 5, 3, 4, 1, 1, 7]


def scores(levels: int) -> tuple[LookUp, LookUp, Gallery]:
    """A cheap and a costly score of 10 images with 37 texts."""
    cheap, costly = (LookUp(coarse_numbers(seed, 10, 37, levels=levels)) for seed in (1, 2))
    return cheap, costly, gallery(captions(COUNTS), 10)


@pytest.mark.parametrize("levels", [2, 5, 1000])
def test_each_point_is_what_reranking_alone_gives(levels: int) -> None:
    """Ranks, the ten best and metrics; with ties, and with more candidates than the gallery has."""
    cheap, costly, gal = scores(levels)
    ks = (1, 2, 5, 9, 10, 11, 36, 37, 256)
    full = rank_all(cheap, gal, **BLOCKS)
    curve = rerank_curve(costly, cheap, gal, ks=ks, **BLOCKS)
    for point, each in zip(curve, rerank_each(cheap, costly, gal, full, nums_candidates=ks, **BLOCKS), strict=True):
        alone = rerank(cheap, costly, gal, num_candidates=point.k, **BLOCKS)
        assert each.num_candidates == point.k
        assert all(torch.equal(one, other) for one, other in zip(each.ranking, alone, strict=True))
        assert point.metrics == summarize(alone)


def test_without_candidates_it_is_the_cheap_ranking() -> None:
    cheap, costly, gal = scores(1000)
    (point,) = rerank_curve(costly, cheap, gal, ks=(0,), **BLOCKS)
    assert point.k == 0
    assert point.metrics == summarize(rank_all(cheap, gal, **BLOCKS))
    assert costly.asked == []


def test_with_all_candidates_it_is_the_costly_ranking() -> None:
    """k beyond the gallery is cut: all of it, once."""
    cheap, costly, gal = scores(1000)
    (point,) = rerank_curve(costly, cheap, gal, ks=(1000,), **BLOCKS)
    assert sum(rows * columns for rows, columns in costly.asked) == 2 * 10 * 37
    assert point.metrics == summarize(rank_all(costly, gal, **BLOCKS))


def test_a_pair_is_scored_once_for_all_points() -> None:
    """Cost: the pairs of the largest k in each direction, whatever else is asked."""
    cheap, costly, gal = scores(1000)
    rerank_curve(costly, cheap, gal, ks=(0, 2, 4, 8), **BLOCKS)
    assert sum(rows * columns for rows, columns in costly.asked) == (10 + 37) * 8
    assert costly.largest == 4


def test_points_come_by_increasing_k_and_slow_down() -> None:
    """Each k's time holds that of those before it, so that speed never rises with k."""
    cheap, costly, gal = scores(1000)
    curve = rerank_curve(costly, cheap, gal, ks=(8, 0, 2, 8), **BLOCKS)
    assert [point.k for point in curve] == [0, 2, 8]
    for speeds in ([point.i2t_queries_per_second for point in curve], [point[3] for point in curve]):
        assert speeds[0] > speeds[1] > speeds[2] > 0


def test_the_usual_points() -> None:
    cheap, costly, gal = scores(1000)
    curve = rerank_curve(costly, cheap, gal, **BLOCKS)
    assert [point.k for point in curve] == [0, 16, 32, 64, 128, 256]
    assert all(isinstance(point, CurvePoint) for point in curve)


def test_a_point_for_a_record() -> None:
    metrics = {"i2t_r1": 10.0, "i2t_r5": 20.0, "t2i_r1": 30.0, "rsum": 99.0}
    assert CurvePoint(16, metrics, 5.0, 7.0).named() == {
        "rerank16_i2t_r1": 10.0,
        "rerank16_t2i_r1": 30.0,
        "rerank16_rsum": 99.0,
        "rerank16_i2t_queries_per_second": 5.0,
        "rerank16_t2i_queries_per_second": 7.0,
    }


class Dual:
    """An alignment without a cheap score."""

    def score(self, image: Encoded, text: Encoded) -> Tensor:
        return image.pooled @ text.pooled.T


def test_a_dual_encoder_is_refused_by_name() -> None:
    with pytest.raises(ValueError, match="Dual has no `coarse` score"):
        rerank_curve(Dual().score, None, gallery([0, 1], 2), ks=(0, 4), **BLOCKS)


@pytest.mark.parametrize("ks", [(), (4, -1)])
def test_wrong_numbers_are_refused(ks: tuple[int, ...]) -> None:
    cheap, costly, gal = scores(1000)
    with pytest.raises(ValueError, match="ks must be numbers >= 0"):
        rerank_curve(costly, cheap, gal, ks=ks, **BLOCKS)
