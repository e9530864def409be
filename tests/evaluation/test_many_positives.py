"""Retrieval with many positives: metrics of a truth on a gallery."""

import math
from typing import Any

import pytest
import torch
from evaluation.galleries import LookUp, captions, coarse_numbers, gallery
from torch import Tensor

from mmlit.evaluation.many_positives import many_positives
from mmlit.evaluation.rank_correlation import sampled_spearman
from mmlit.evaluation.truth import Relevance, Truth, relevance

BLOCKS = {"num_candidates": 3, "image_block": 3, "text_block": 5}

#: four images (rows), eight texts; a star marks a true pair
BY_HAND = torch.tensor([
    #   *                   *    *
    [0.9, 0.1, 0.8, 0.2, 0.3, 0.0, 0.4, 0.5],  # stars at places 1, 5, 8
    #        *    *
    [0.7, 0.6, 0.1, 0.5, 0.2, 0.3, 0.5, 0.4],  # places 2 and 8
    #                    *
    [0.1, 0.2, 0.3, 0.4, 0.0, 0.6, 0.7, 0.5],  # place 8
    #   *                             *    *
    [0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.1, 0.2],  # places 1, 8, 7
])  # fmt: skip
STARS = [(0, 0), (0, 4), (0, 5), (1, 1), (1, 2), (2, 4), (3, 0), (3, 6), (3, 7)]


def truth(pairs: list[tuple[int, int]], **changes: Any) -> Truth:
    """Image and text numbers → a truth about the ids of `gallery`."""
    ids = [(1000 + image, 5000 + text) for image, text in pairs]
    whole = Truth(
        name="stars",
        needs="the gallery of the stars",
        i2t=relevance(ids),
        t2i=relevance((text, image) for image, text in ids),
        graded=False,
        threshold=1.0,
        optional_text_id=torch.zeros(0, dtype=torch.int64),
    )
    return whole._replace(**changes)


def graded(scores: Tensor, seed: int) -> Truth:
    """Ratings 0…5 of about a third of the pairs; 3 is a positive."""
    generator = torch.Generator().manual_seed(seed)
    image, text = (torch.rand(scores.shape, generator=generator) < 0.3).nonzero().T
    grade = torch.randint(51, (len(image),), generator=generator).double() / 10
    i2t = Relevance(1000 + image, 5000 + text, grade)
    order = text.argsort(stable=True)
    t2i = Relevance(5000 + text[order], 1000 + image[order], grade[order])
    return truth([], name="rated", i2t=i2t, t2i=t2i, graded=True, threshold=3.0)


def test_four_by_eight_by_hand() -> None:
    """The places stand beside the matrix; mAP@R of image 3 is (1 + 0 + 0) / 3.

    Texts: 0 is true of images 0 and 3, places 1 and 2; 1 of image 1 (0.7 0.6: place 2); 2 of image 1 (place 4); 4 of 0
    and 2 (0.4 0.3 0.2 0.0: places 2 and 4); 5 of 0 (place 4); 6 of 3 (place 4); 7 of 3 (0.5 0.5 0.4 0.2: place 4).
    """
    score = LookUp(BY_HAND)
    found = many_positives(score, None, gallery(captions([2] * 4), 4), truth(STARS), **BLOCKS)
    i2t = {
        "map_at_r": [1 / 3, 1 / 4, 0, 1 / 3],
        "r_precision": [1 / 3, 1 / 2, 0, 1 / 3],
        "r1": [1, 0, 0, 1],
        "r5": [1, 1, 0, 1],
        "r10": [1, 1, 1, 1],
    }
    t2i = {
        "map_at_r": [1, 0, 0, 1 / 4, 0, 0, 0],
        "r_precision": [1, 0, 0, 1 / 2, 0, 0, 0],
        "r1": [1, 0, 0, 0, 0, 0, 0],
        "r5": [1] * 7,
        "r10": [1] * 7,
    }
    for direction, expected, first in (("i2t", i2t, 1000), ("t2i", t2i, 5000)):
        for metric, values in expected.items():
            each = found.by_query[f"stars_{direction}_{metric}"]
            assert each.value.tolist() == pytest.approx([100 * value for value in values])
            assert each.query_id.tolist() == [
                first + n for n in ([0, 1, 2, 3] if first == 1000 else [0, 1, 2, 4, 5, 6, 7])
            ]
            mean = 100 * sum(values) / len(values)
            assert found.metrics[f"stars_{direction}_{metric}"] == pytest.approx(mean)
    assert len(found.metrics) == 10


@pytest.mark.parametrize("levels", [3, 10_000])
def test_grades_equal_the_loops(levels: int) -> None:
    """Positives from the threshold on; nDCG of every rated pair; the correlation of scores, not of places."""
    scores = coarse_numbers(1, 7, 18, levels=levels)
    rated = graded(scores, 2)
    found = many_positives(LookUp(scores), None, gallery(captions([3] * 6), 7), rated, **BLOCKS)
    for direction, each, matrix, asks, finds in (
        ("i2t", rated.i2t, scores, 1000, 5000),
        ("t2i", rated.t2i, scores.T, 5000, 1000),
    ):
        by_query: dict[int, dict[int, float]] = {}
        for query, item, grade in zip(*(part.tolist() for part in each), strict=True):
            by_query.setdefault(query, {})[item - finds] = grade
        expected: dict[str, dict[int, float]] = {"r1": {}, "map_at_r": {}, "ndcg": {}, "ndcg10": {}}
        for query, grades in by_query.items():
            row = matrix[query - asks].tolist()
            order = sorted(range(len(row)), key=lambda j, s=row, g=grades: (-s[j], j in g, g.get(j, 0)))
            hits = [grades.get(j, 0) >= 3 for j in order]
            if count := sum(hits):
                expected["r1"][query] = hits[0]
                expected["map_at_r"][query] = sum(sum(hits[:r]) / r for r in range(1, count + 1) if hits[r - 1]) / count
            for metric, cut in (("ndcg", len(row)), ("ndcg10", 10)):
                gains = ([grades.get(j, 0) for j in order], sorted(grades.values(), reverse=True))
                dcg, best = (sum(g / math.log2(2 + at) for at, g in enumerate(gain[:cut])) for gain in gains)
                if best:
                    expected[metric][query] = dcg / best
        for metric, values in expected.items():
            ours = found.by_query[f"rated_{direction}_{metric}"]
            assert ours.query_id.tolist() == sorted(values)
            assert ours.value.tolist() == pytest.approx([100 * values[query] for query in sorted(values)])
    own = scores[rated.i2t.query_id - 1000, rated.i2t.item_id - 5000]
    for direction, ids in (("i2t", rated.i2t.query_id), ("t2i", rated.i2t.item_id)):
        expected_correlation = 100 * sampled_spearman(ids, rated.i2t.grade, own)
        assert found.metrics[f"rated_{direction}_spearman"] == pytest.approx(expected_correlation)
    assert len(found.metrics) == 16


def test_queries_without_a_gain_have_no_ndcg() -> None:
    """A query whose pairs are all rated 0 asks for nothing: no NaN, and no part in the mean."""
    pairs = Relevance(torch.tensor([1000, 1000, 1001]), torch.tensor([5000, 5001, 5001]), torch.tensor([4.0, 2.0, 0.0]))
    backwards = Relevance(pairs.item_id, pairs.query_id, pairs.grade)
    rated = truth([], name="rated", i2t=pairs, t2i=backwards, graded=True, threshold=3.0)
    found = many_positives(LookUp(torch.eye(2)), None, gallery([0, 1], 2), rated, **BLOCKS)
    assert found.by_query["rated_i2t_ndcg"].query_id.tolist() == [1000]
    assert found.by_query["rated_i2t_r1"].query_id.tolist() == [1000]
    assert found.by_query["rated_t2i_ndcg"].query_id.tolist() == [5000, 5001]
    assert all(math.isfinite(value) for value in found.metrics.values())


def test_ratings_are_compared_with_the_costly_score_of_every_pair() -> None:
    """Also of pairs that are no candidates: the cheap score would turn the correlation round."""
    scores = torch.rand(7, 18, generator=torch.Generator().manual_seed(0))
    rated = graded(scores, 2)
    perfect = torch.zeros(7, 18)
    perfect[rated.i2t.query_id - 1000, rated.i2t.item_id - 5000] = rated.i2t.grade.float()
    found = many_positives(
        LookUp(perfect),
        LookUp(-perfect),
        gallery(captions([3] * 6), 7),
        rated,
        num_candidates=1,
        image_block=2,
        text_block=4,
    ).metrics
    assert found["rated_i2t_spearman"] == pytest.approx(100)
    assert found["rated_t2i_spearman"] == pytest.approx(100)
    assert found["rated_i2t_ndcg"] < 80


def test_constant_scores_find_nothing() -> None:
    """Trap 1: every wrong item stands before every true one."""
    found = many_positives(
        LookUp(torch.zeros(4, 40)), None, gallery(captions([10] * 4), 4), truth(STARS), **BLOCKS
    ).metrics
    assert {name: value for name, value in found.items() if value} == {"stars_t2i_r5": 100.0, "stars_t2i_r10": 100.0}


def test_candidates_alone_are_reordered() -> None:
    """The costly score likes every true pair best, but only the three best of the cheap one are asked."""
    perfect = torch.zeros(4, 8)
    perfect[tuple(torch.tensor(STARS).T)] = 1
    gal = gallery(captions([2] * 4), 4)
    found = many_positives(LookUp(perfect), LookUp(BY_HAND), gal, truth(STARS), **BLOCKS)
    # image 1's first true text moves from place 2 to 1; those at places 5, 7 and 8 are no candidates
    assert found.by_query["stars_i2t_map_at_r"].value.tolist() == pytest.approx([100 / 3, 50, 0, 100 / 3])


def test_what_the_gallery_lacks_is_refused_by_name() -> None:
    scores, gal = LookUp(torch.rand(4, 8)), gallery(captions([2] * 4), 4)
    with pytest.raises(
        ValueError,
        match=r"stars names 5 images, of which 1 are not in the gallery of 4 \(the first: image id 1009\); "
        "it needs the gallery of the stars",
    ):
        many_positives(scores, None, gal, truth([*STARS, (9, 0)]), **BLOCKS)
    with pytest.raises(ValueError, match=r"stars names 9 texts, of which 2 .* of 8 \(the first: text id 5020\)"):
        many_positives(scores, None, gal, truth([*STARS, (0, 20), (0, 21)]), **BLOCKS)


def test_texts_that_a_gallery_may_lack() -> None:
    """As items they count and are never found; as queries they are left out; where they are, nothing is special."""
    extra = truth([*STARS, (2, 8)], optional_text_id=torch.tensor([5008]))
    scores = torch.cat([BY_HAND, torch.tensor([[0.0], [0.0], [9.0], [0.0]])], 1)
    there = many_positives(LookUp(scores), None, gallery([*captions([2] * 4), 2], 4), extra, **BLOCKS)
    gone = many_positives(LookUp(BY_HAND), None, gallery(captions([2] * 4), 4), extra, **BLOCKS)
    assert there.by_query["stars_i2t_map_at_r"].value[2].item() == pytest.approx(50)
    assert gone.by_query["stars_i2t_map_at_r"].value[2].item() == 0
    assert 5008 in there.by_query["stars_t2i_r1"].query_id
    assert 5008 not in gone.by_query["stars_t2i_r1"].query_id
    first = gone.by_query["stars_i2t_r10"].value
    assert first.tolist() == [100] * 4


def test_scores_that_are_not_finite_raise() -> None:
    """Trap 2."""
    scores = BY_HAND.clone()
    scores[1, 3] = math.nan
    with pytest.raises(ValueError, match="image id 1001 with text id 5003 is nan"):
        many_positives(LookUp(scores), None, gallery(captions([2] * 4), 4), truth(STARS), **BLOCKS)


def test_the_fingerprint_knows_every_pair() -> None:
    whole = truth(STARS)
    assert whole.fingerprint() == truth(STARS[::-1]).fingerprint()
    assert whole.fingerprint() != truth(STARS[1:]).fingerprint()
    assert whole.fingerprint() != whole._replace(threshold=2.0).fingerprint()
    assert truth([*STARS, STARS[0]]).fingerprint() == whole.fingerprint()
