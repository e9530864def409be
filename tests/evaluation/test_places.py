"""Places of given pairs in the complete ranking."""

import math

import pytest
import torch
from evaluation.galleries import LookUp, captions, coarse_numbers, gallery
from torch import Tensor

from mmlit.evaluation.places import NEVER, order_within, places
from mmlit.evaluation.ranking import Gallery, rank_all
from mmlit.evaluation.reranking import rerank
from mmlit.evaluation.truth import Relevance

BLOCKS = {"image_block": 3, "text_block": 5}


def some_pairs(seed: int, num_images: int, num_texts: int, *, images_ask: bool, grades: int) -> Relevance:
    """About a third of all pairs, in a random order, of `grades` different grades; some queries have none."""
    generator = torch.Generator().manual_seed(seed)
    image, text = (torch.rand(num_images, num_texts, generator=generator) < 0.3).nonzero().T
    order = torch.randperm(len(image), generator=generator)
    grade = torch.randint(1, grades + 1, (len(image),), generator=generator).double()
    ids = (1000 + image[order], 5000 + text[order])
    return Relevance(*(ids if images_ask else ids[::-1]), grade)


def by_loops(fine: Tensor, coarse: Tensor | None, relevance: Relevance, k: int, *, images_ask: bool) -> list[int]:
    """Every query sorts the whole gallery: by score, then unnamed items, then lower grades, then the first first."""
    if not images_ask:
        fine, coarse = fine.T, None if coarse is None else coarse.T
    asks, finds = (1000, 5000) if images_ask else (5000, 1000)
    pairs = list(zip(relevance.query_id.tolist(), relevance.item_id.tolist(), relevance.grade.tolist(), strict=True))
    found = []
    for query, item, _ in pairs:
        grade = {other - finds: value for asked, other, value in pairs if asked == query}
        row = (fine if coarse is None else coarse)[query - asks].tolist()
        order = sorted(range(len(row)), key=lambda j, s=row, g=grade: (-s[j], g.get(j, 0), j))
        if coarse is not None:
            row = fine[query - asks].tolist()
            order[:k] = sorted(sorted(order[:k]), key=lambda j, s=row, g=grade: (-s[j], g.get(j, 0), j))
        found.append(order.index(item - finds) + 1)
    return found


def own_pairs(gal: Gallery, *, images_ask: bool) -> Relevance:
    ids = (gal.text_image_id, gal.text_id)
    return Relevance(*(ids if images_ask else ids[::-1]), torch.ones(len(gal.text_id)))


def first_places(place: Tensor, query_id: Tensor, ids: Tensor) -> Tensor:
    return torch.stack([place[query_id == one].min() for one in ids])


@pytest.mark.parametrize("levels", [1, 3, 10_000])
@pytest.mark.parametrize("images_ask", [True, False])
@pytest.mark.parametrize("grades", [1, 3])
def test_equals_the_loops(grades: int, images_ask: bool, levels: int) -> None:
    """Trap 1: ties everywhere, any block size, pairs in any order."""
    scores = coarse_numbers(grades, 8, 21, levels=levels)
    relevance = some_pairs(levels, 8, 21, images_ask=images_ask, grades=grades)
    expected = by_loops(scores, None, relevance, 1, images_ask=images_ask)
    for image_block, text_block in ((1, 1), (3, 5), (8, 4), (100, 100)):
        numbers = {"num_candidates": 4, "image_block": image_block, "text_block": text_block}
        place = places(LookUp(scores), None, gallery(captions([3] * 7), 8), relevance, images_ask=images_ask, **numbers)
        assert place.tolist() == expected


@pytest.mark.parametrize("levels", [1, 3, 10_000])
@pytest.mark.parametrize("images_ask", [True, False])
@pytest.mark.parametrize("num_candidates", [1, 2, 5, 8, 21, 50])
def test_reranked_equals_the_loops(num_candidates: int, images_ask: bool, levels: int) -> None:
    """Trap 1: ties in both scores, also at the border of the candidates, several positives inside and outside."""
    coarse, fine = (coarse_numbers(seed, 8, 21, levels=levels) for seed in (5, 6))
    for grades in (1, 3):
        relevance = some_pairs(grades, 8, 21, images_ask=images_ask, grades=grades)
        place = places(
            LookUp(fine),
            LookUp(coarse),
            gallery(captions([3] * 7), 8),
            relevance,
            images_ask=images_ask,
            num_candidates=num_candidates,
            **BLOCKS,
        )
        assert place.tolist() == by_loops(fine, coarse, relevance, num_candidates, images_ask=images_ask)


@pytest.mark.parametrize("levels", [2, 4, 10_000])
@pytest.mark.parametrize("images_ask", [True, False])
def test_the_first_true_place_is_the_rank(images_ask: bool, levels: int) -> None:
    """Of the gallery's own pairs the best place is the rank of `rank_all`, and with `coarse` that of `rerank`."""
    owner = captions([7, 1, 6, 2, 5, 3, 4, 1, 1, 7])
    owner = [owner[i] for i in torch.randperm(len(owner), generator=torch.Generator().manual_seed(0))]
    gal = gallery(owner, 10)
    coarse, fine = (LookUp(coarse_numbers(seed, 10, len(owner), levels=levels)) for seed in (1, 2))
    relevance, ids = own_pairs(gal, images_ask=images_ask), gal.image_id if images_ask else gal.text_id
    full = rank_all(fine, gal, **BLOCKS)
    numbers = {"images_ask": images_ask, **BLOCKS}
    place = places(fine, None, gal, relevance, num_candidates=1, **numbers)
    rank = full.i2t_rank if images_ask else full.t2i_rank
    assert torch.equal(first_places(place, relevance.query_id, ids), rank)
    for k in (1, 2, 3, 9, 20, 100):
        ranking = rerank(coarse, fine, gal, num_candidates=k, **BLOCKS)
        place = places(fine, coarse, gal, relevance, num_candidates=k, **numbers)
        rank = ranking.i2t_rank if images_ask else ranking.t2i_rank
        assert torch.equal(first_places(place, relevance.query_id, ids), rank)


def test_only_the_queries_that_are_named_are_asked_and_in_blocks() -> None:
    """Memory and cost: one query's scores of everything at a time, as many queries as a block has."""
    score = LookUp(torch.rand(20, 60, generator=torch.Generator().manual_seed(0)))
    relevance = Relevance(
        torch.tensor([1003, 1011, 1003, 1019, 1002]), torch.tensor([5003, 5003, 5059, 5000, 5002]), torch.ones(5)
    )
    numbers = {"num_candidates": 1, "image_block": 3, "text_block": 20}
    places(score, None, gallery(captions([3] * 20), 20), relevance, images_ask=True, **numbers)
    assert sum(rows * columns for rows, columns in score.asked) == 4 * 60
    assert score.largest == 3 * 20


def test_an_item_that_is_not_there_is_never_found() -> None:
    relevance = Relevance(torch.tensor([1000, 1000]), torch.tensor([7777, 5001]), torch.ones(2))
    score = LookUp(torch.tensor([[0.5, 0.1], [0.2, 0.3]]))
    place = places(score, None, gallery([0, 1], 2), relevance, images_ask=True, num_candidates=1, **BLOCKS)
    assert place.tolist() == [NEVER, 2]


def test_a_query_that_is_not_there_is_refused() -> None:
    relevance = Relevance(torch.tensor([1000, 1234]), torch.tensor([5000, 5001]), torch.ones(2))
    with pytest.raises(ValueError, match="query id 1234 is not in the gallery"):
        places(LookUp(torch.eye(2)), None, gallery([0, 1], 2), relevance, images_ask=True, num_candidates=1, **BLOCKS)


@pytest.mark.parametrize("images_ask", [True, False])
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_scores_that_are_not_finite_raise_by_name(value: float, images_ask: bool) -> None:
    """Trap 2: in the cheap and in the costly score; the message names image and text by their ids."""
    broken, whole = torch.eye(3), torch.eye(3)
    broken[2, 2] = value
    gal = gallery([0, 1, 2], 3)
    for score, coarse in ((broken, None), (whole, broken), (broken, whole)):
        with pytest.raises(ValueError, match=f"image id 1002 with text id 5002 is {value}; only finite scores"):
            places(
                LookUp(score),
                None if coarse is None else LookUp(coarse),
                gal,
                own_pairs(gal, images_ask=images_ask),
                images_ask=images_ask,
                num_candidates=2,
                **BLOCKS,
            )


def test_no_candidates_are_refused() -> None:
    gal = gallery([0, 1], 2)
    pairs = own_pairs(gal, images_ask=True)
    with pytest.raises(ValueError, match="num_candidates must be >= 1, got 0"):
        places(LookUp(torch.eye(2)), None, gal, pairs, images_ask=True, num_candidates=0, **BLOCKS)


def test_numbers_within_groups() -> None:
    group, key = torch.tensor([1, 0, 1, 1, 0]), torch.tensor([3, 2, 1, 3, 9])
    assert order_within(group, key).tolist() == [2, 1, 1, 3, 2]
