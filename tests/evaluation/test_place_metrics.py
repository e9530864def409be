"""Numbers per query from places."""

import math

import pytest
import torch
from torch import Tensor
from torchmetrics.functional.retrieval import retrieval_normalized_dcg

from mmlit.evaluation.place_metrics import ndcg, yes_or_no
from mmlit.evaluation.places import NEVER


def a_ranking(seed: int, num_items: int, num_levels: int) -> Tensor:
    """The grades of items in the order of a ranking; at least one is above 0."""
    generator = torch.Generator().manual_seed(seed)
    grade = torch.randint(num_levels, (num_items,), generator=generator)
    grade[int(torch.randint(num_items, (1,), generator=generator))] = num_levels - 1
    return grade


def as_pairs(rankings: list[Tensor]) -> tuple[Tensor, Tensor, Tensor]:
    """Queries, places and grades of the items above 0, mixed up."""
    rows = [(q, place, int(g)) for q, row in enumerate(rankings) for place, g in enumerate(row, start=1) if g]
    mixed = torch.tensor(rows)[torch.randperm(len(rows), generator=torch.Generator().manual_seed(0))]
    return mixed[:, 0], mixed[:, 1], mixed[:, 2].double()


def test_by_hand() -> None:
    """Positives of query 0 at places 1, 3, 7 of it; of query 1 at 2; of query 2 at 6 and 11 (R = 3, 1, 2).

    Query 0: of the first three places 1 and 3 hold positives, precision 1 and 2/3 there: mAP@R (1 + 0 + 2/3) / 3.
    """
    query, place = torch.tensor([0, 2, 0, 1, 0, 2]), torch.tensor([7, 11, 1, 2, 3, 6])
    values = yes_or_no(query, place, 3)
    assert values["map_at_r"].tolist() == pytest.approx([5 / 9, 0, 0])
    assert values["r_precision"].tolist() == pytest.approx([2 / 3, 0, 0])
    assert values["r1"].tolist() == [1, 0, 0]
    assert values["r5"].tolist() == [1, 1, 0]
    assert values["r10"].tolist() == [1, 1, 1]


def test_graded_by_hand() -> None:
    """Grades 1 and 3 at places 1 and 3: 1/log2 2 + 3/log2 4 = 2.5; the best order gives 3 + 1/log2 3."""
    query, place, grade = torch.tensor([0, 0]), torch.tensor([3, 1]), torch.tensor([3.0, 1.0])
    best = 3 + 1 / math.log2(3)
    assert ndcg(query, place, grade, 1, 10).tolist() == pytest.approx([2.5 / best])
    assert ndcg(query, place, grade, 1, 2).tolist() == pytest.approx([1 / best])
    assert ndcg(query, place, grade, 1, 1).tolist() == pytest.approx([1 / 3])


def test_yes_or_no_equals_the_loops() -> None:
    rankings = [a_ranking(seed, 30, 2) for seed in range(40)]
    query, place, _ = as_pairs(rankings)
    values = yes_or_no(query, place, len(rankings))
    for number, row in enumerate(rankings):
        hits = [bool(grade) for grade in row]
        count = sum(hits)
        precisions = [sum(hits[:r]) / r if hits[r - 1] else 0.0 for r in range(1, count + 1)]
        assert values["map_at_r"][number].item() == pytest.approx(sum(precisions) / count)
        assert values["r_precision"][number].item() == pytest.approx(sum(hits[:count]) / count)
        for k in (1, 5, 10):
            assert values[f"r{k}"][number].item() == any(hits[:k])


@pytest.mark.parametrize("cut", [1, 10, 30, NEVER - 1])
def test_ndcg_equals_torchmetrics_and_the_loops(cut: int) -> None:
    rankings = [a_ranking(seed, 30, 5) for seed in range(40)]
    query, place, grade = as_pairs(rankings)
    values = ndcg(query, place, grade, len(rankings), cut)
    for number, row in enumerate(rankings):
        falling = torch.arange(30, 0, -1).float()
        theirs = retrieval_normalized_dcg(falling, row, top_k=min(cut, 30))
        assert values[number].item() == pytest.approx(theirs.item(), rel=1e-5)
        found, best = (
            sum(g / math.log2(1 + at) for at, g in enumerate(order, start=1) if at <= cut)
            for order in (row.tolist(), sorted(row.tolist(), reverse=True))
        )
        assert values[number].item() == pytest.approx(found / best)


def test_an_item_that_is_never_found_counts() -> None:
    query, place = torch.tensor([0, 0]), torch.tensor([1, NEVER])
    values = yes_or_no(query, place, 1)
    assert values["map_at_r"].item() == values["r_precision"].item() == 0.5
    assert ndcg(query, place, torch.ones(2), 1, NEVER - 1).item() == pytest.approx(1 / (1 + 1 / math.log2(3)))


def test_a_perfect_order_is_1() -> None:
    query, place = torch.tensor([0, 0, 0, 1]), torch.tensor([2, 1, 3, 1])
    assert all(value.tolist() == [1, 1] for value in yes_or_no(query, place, 2).values())
    assert ndcg(query, place, torch.tensor([2.0, 5.0, 1.0, 1.0]), 2, 10).tolist() == [1, 1]
