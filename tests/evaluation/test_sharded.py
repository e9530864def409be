"""One, two and three devices give the same numbers."""

from pathlib import Path
from typing import Any

import pytest
import torch
from evaluation.sharded import NUM_IMAGES, items, rank_with_two_and_three, ranked, shares
from torch import Tensor

from mmlit.evaluation.ranking import Ranking

#: (number of processes, rank) → {kind: (metrics, ranking)}
Found = dict[tuple[int, int], Any]
SHARES = [(world_size, rank) for world_size in (2, 3) for rank in range(world_size)]


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> Found:
    """What each of three processes, and then each of two, found."""
    folder = tmp_path_factory.mktemp("sharded")
    started = torch.multiprocessing.start_processes(
        rank_with_two_and_three, args=(str(folder),), nprocs=3, start_method="fork"
    )
    assert started is None, "all processes must have ended well"
    return {share: _read(folder, *share) for share in SHARES}


@pytest.mark.parametrize("share", SHARES, ids=str)
def test_well_separated_scores_give_identical_numbers(
    found: dict[tuple[int, int], Any], share: tuple[int, int]
) -> None:
    """Traps 4 and 5: every rank has the numbers of one process, to the last digit, though images come twice."""
    single = ranked("planted", 1, list(range(NUM_IMAGES)))
    metrics, ranking = found[share]["planted"]
    assert metrics == single.metrics
    assert all(torch.equal(one, other) for one, other in zip(ranking, single.ranking, strict=True))
    assert 10 < metrics["t2i_r1"] < 90, "neither hopeless nor perfect"


@pytest.mark.parametrize("share", SHARES, ids=str)
def test_real_scores_give_equal_ranks_but_for_rounding(
    found: dict[tuple[int, int], Any], share: tuple[int, int]
) -> None:
    """Traps 3 and 4: a rank may differ only where a wrong item is within 1e-6 of the best true one."""
    single = ranked("real", 1, list(range(NUM_IMAGES)))
    image, text, owner = items("real", 1)
    scores, true = image.double() @ text.double().T, torch.arange(NUM_IMAGES)[:, None] == owner
    _, ranking = found[share]["real"]
    one, other = (torch.cat([ranks.i2t_rank, ranks.t2i_rank]) for ranks in (Ranking(*ranking), single.ranking))
    gap = torch.cat([_gap(scores, true), _gap(scores.T, true.T)])
    assert torch.equal(one[gap >= 1e-6], other[gap >= 1e-6])
    assert 0 < (gap < 1e-6).sum() < len(gap) / 2, "some scores, and not most, are as near as rounding"


def test_the_mean_over_shares_would_look_better() -> None:
    """Trap 4: what averaging each rank's own recall would have given."""
    whole = ranked("planted", 1, list(range(NUM_IMAGES))).metrics["t2i_r1"]
    for world_size in (2, 3):
        alone = [ranked("planted", 1, shares(world_size, rank)).metrics["t2i_r1"] for rank in range(world_size)]
        assert sum(alone) / world_size > whole + 3


def test_shares_repeat_images() -> None:
    """Trap 5: a padding sampler's shares are equally long, and hold an image twice."""
    for world_size in (2, 3):
        dealt = [shares(world_size, rank) for rank in range(world_size)]
        assert len({len(share) for share in dealt}) == 1
        assert sum(map(len, dealt)) > NUM_IMAGES


def _gap(scores: Tensor, true: Tensor) -> Tensor:
    """Distance of each row's best true score to the nearest wrong one."""
    best = scores.masked_fill(~true, -torch.inf).amax(1, keepdim=True)
    return (scores - best).abs().masked_fill(true, torch.inf).amin(1)


def _read(folder: Path, world_size: int, rank: int) -> Any:
    return torch.load(folder / f"{world_size}_{rank}.pt", weights_only=True)
