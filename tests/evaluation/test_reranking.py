"""Reranking: the costly score decides among the candidates of the cheap one."""

import pytest
import torch
from evaluation.galleries import (
    LookUp,
    captions,
    coarse_numbers,
    first_ten,
    full_by_loops,
    gallery,
    same,
    transposed,
    truth,
)
from torch import Tensor

from mmlit.evaluation.ranking import Gallery, Ranking
from mmlit.evaluation.reranking import rerank

BLOCKS = {"image_block": 4, "text_block": 6}


def one_way(coarse: list[list[float]], fine: list[list[float]], true: list[list[bool]], k: int) -> Ranking:
    """In plain loops: candidates by (coarse score, wrong before true, place), ordered by the fine score."""
    ranks, tops = [], []
    for cheap, costly, own in zip(coarse, fine, true, strict=True):
        order = sorted(range(len(cheap)), key=lambda j, c=cheap, o=own: (-c[j], o[j], j))
        candidates = order[:k]
        inside = [costly[j] for j in candidates if own[j]]
        if inside:
            ranks.append(1 + sum(costly[j] >= max(inside) for j in candidates if not own[j]))
        else:
            best = max(cheap[j] for j in order if own[j])
            ranks.append(1 + sum(cheap[j] >= best for j in order if not own[j]))
        tops.append(first_ten(sorted(candidates, key=lambda j, s=costly: -s[j])))
    return Ranking(torch.tensor(ranks), torch.tensor(tops), torch.tensor(ranks), torch.tensor(tops))


def by_loops(coarse: Tensor, fine: Tensor, gal: Gallery, k: int) -> Ranking:
    true = truth(gal)
    i2t = one_way(coarse.tolist(), fine.tolist(), true, k)
    t2i = one_way(transposed(coarse.tolist()), transposed(fine.tolist()), transposed(true), k)  # type: ignore[arg-type]
    return Ranking(i2t.i2t_rank, i2t.i2t_top, t2i.t2i_rank, t2i.t2i_top)


def test_by_hand() -> None:
    """Three images with one caption each, two candidates per query.

    Image 0: candidates 1 and 0 by the cheap score, the costly one prefers 0: rank 1. Image 1: candidates 0 and 2, its
    own caption is left out and keeps its cheap rank 3, though the costly score likes it best. Image 2: candidates 2 and
    1, the costly score prefers 1: rank 2; caption 0, best by the costly score, is no candidate.
    """
    coarse = torch.tensor([[0.5, 0.9, 0.1], [0.8, 0.1, 0.7], [0.1, 0.4, 0.6]])
    fine = torch.tensor([[5.0, 1.0, 9.0], [1.0, 9.0, 2.0], [9.0, 5.0, 4.0]])
    ranking = rerank(LookUp(coarse), LookUp(fine), gallery([0, 1, 2], 3), num_candidates=2, **BLOCKS)
    assert ranking.i2t_rank.tolist() == [1, 3, 2]
    assert ranking.i2t_top[:, :3].tolist() == [[0, 1, -1], [2, 0, -1], [1, 2, -1]]
    # caption 0: images 1, 0 → by the costly score 0, 1; caption 1: 0, 2 without its own; caption 2: 1, 2 → 2 first
    assert ranking.t2i_rank.tolist() == [1, 3, 1]
    assert ranking.t2i_top[:, :3].tolist() == [[0, 1, -1], [2, 0, -1], [2, 1, -1]]


@pytest.mark.parametrize("num_candidates", [40, 41, 1000])
def test_with_the_whole_gallery_as_candidates_it_is_the_full_ranking(num_candidates: int) -> None:
    coarse, fine = (torch.randn(12, 40, generator=torch.Generator().manual_seed(seed)) for seed in (1, 2))
    gal = gallery(captions([4, 3, 5, 2, 1, 7, 3, 4, 2, 5, 1, 3]), 12)
    ranking = rerank(LookUp(coarse), LookUp(fine), gal, num_candidates=num_candidates, **BLOCKS)
    assert same(ranking, full_by_loops(fine, gal))


def test_the_same_score_twice_is_the_full_ranking() -> None:
    """Whatever the number of candidates: the rest of the gallery keeps the order that it had."""
    scores = torch.randn(12, 36, generator=torch.Generator().manual_seed(3))
    gal = gallery(captions([3] * 12), 12)
    full = full_by_loops(scores, gal)
    for k in (1, 2, 5, 11, 12, 20, 36):
        ranking = rerank(LookUp(scores), LookUp(scores), gal, num_candidates=k, **BLOCKS)
        assert torch.equal(ranking.i2t_rank, full.i2t_rank)
        assert torch.equal(ranking.t2i_rank, full.t2i_rank)


def test_ties_at_the_border_of_the_candidates_go_against_the_model() -> None:
    """Trap 1: of equal cheap scores the wrong ones become candidates, and equal costly scores rank before the true one.

    A constant cheap score leaves the true item out, however good the costly score; it keeps its last place.
    """
    gal = gallery(list(range(6)), 6)
    constant, perfect = torch.zeros(6, 6), torch.eye(6)
    left_out = rerank(LookUp(constant), LookUp(perfect), gal, num_candidates=5, **BLOCKS)
    assert left_out.i2t_rank.tolist() == left_out.t2i_rank.tolist() == [6] * 6
    assert all(item not in top for item, top in enumerate(left_out.i2t_top.tolist()))
    tied = rerank(LookUp(perfect), LookUp(constant), gal, num_candidates=4, **BLOCKS)
    assert tied.i2t_rank.tolist() == tied.t2i_rank.tolist() == [4] * 6


def test_the_whole_gallery_is_ranked() -> None:
    """A true item outside the candidates lies behind all of them, at its cheap rank: never a miss without a rank."""
    coarse = torch.arange(50.0).flip(0).expand(50, 50).contiguous()  # item j is the (j + 1)-th best of every query
    gal = gallery(list(range(50)), 50)
    ranking = rerank(LookUp(coarse), LookUp(torch.randn(50, 50)), gal, num_candidates=10, **BLOCKS)
    assert ranking.i2t_rank[10:].tolist() == list(range(11, 51))
    assert (ranking.i2t_rank[:10] <= 10).all()


@pytest.mark.parametrize("levels", [1, 2, 4, 1000])
@pytest.mark.parametrize("num_candidates", [1, 2, 3, 7, 15])
def test_equals_the_loops(num_candidates: int, levels: int) -> None:
    """Traps 1, 6 and 7: ties in both scores, one to seven captions per image, several true items among candidates."""
    counts = [7, 1, 6, 2, 5, 3, 4, 1, 1, 7]
    owner = captions(counts)
    coarse, fine = (coarse_numbers(seed, len(counts), len(owner), levels=levels) for seed in (1, 2))
    gal = gallery(owner, len(counts))
    expected = by_loops(coarse, fine, gal, num_candidates)
    for image_block in (1, 3, 10):
        blocks = {"image_block": image_block, "text_block": 6}
        ranking = rerank(LookUp(coarse), LookUp(fine), gal, num_candidates=num_candidates, **blocks)
        assert same(ranking, expected)


def test_the_costly_score_is_asked_for_candidates_only() -> None:
    """Cost and memory: k scores per query; the cheap score in blocks of rows, never the whole matrix at once."""
    coarse, fine = (LookUp(torch.randn(30, 60, generator=torch.Generator().manual_seed(s))) for s in (1, 2))
    rerank(coarse, fine, gallery(captions([2] * 30), 30), num_candidates=5, **BLOCKS)
    assert sum(rows * columns for rows, columns in fine.asked) == (30 + 60) * 5
    assert fine.largest == 5
    assert coarse.largest == 4 * 60


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_costly_scores_that_are_not_finite_raise_by_name(value: float) -> None:
    """Trap 2: in both directions the message names the image first and the text second."""
    coarse = torch.eye(4)
    for row, column in ((1, 1), (2, 2)):
        fine = torch.zeros(4, 4)
        fine[row, column] = value
        with pytest.raises(ValueError, match=f"image id {1000 + row} with text id {5000 + column} is {value}"):
            rerank(LookUp(coarse), LookUp(fine), gallery([0, 1, 2, 3], 4), num_candidates=2, **BLOCKS)
    by_text = torch.zeros(4, 4)
    by_text[3, 0] = value  # image 3 is a candidate of text 0 only in the direction from text to image
    cheap = torch.eye(4) + torch.tensor([[0.0, 0.5, 0.5, 0.5]] * 4) + torch.tensor([[0.0], [0], [0], [0.4]])
    with pytest.raises(ValueError, match=f"image id 1003 with text id 5000 is {value}"):
        rerank(LookUp(cheap), LookUp(by_text), gallery([0, 1, 2, 3], 4), num_candidates=2, **BLOCKS)


def test_no_candidates_are_refused() -> None:
    with pytest.raises(ValueError, match="num_candidates must be >= 1, got 0"):
        rerank(LookUp(torch.eye(2)), LookUp(torch.eye(2)), gallery([0, 1], 2), num_candidates=0, **BLOCKS)
