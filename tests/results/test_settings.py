"""What makes a row of the comparison."""

from collections.abc import Callable
from pathlib import Path

import pytest

from mmlit.results.labels import differing_axes
from mmlit.results.rows import find_runs, group_runs
from mmlit.results.settings import identity


@pytest.mark.parametrize(
    ("fit", "files", "rows"),
    [
        (False, ("outputs/seed0/best.ckpt", "outputs/seed1/best.ckpt"), 1),  # seeds that were evaluated later
        (False, ("outputs/seed0/best.ckpt", "outputs/seed1/last.ckpt"), 2),
        (True, ("outputs/small/best.ckpt", "outputs/large/best.ckpt"), 2),  # what training began with
    ],
)
def test_later_evaluations_of_seeds_are_one_row(
    make_run: Callable[..., Path], fit: bool, files: tuple[str, str], rows: int
) -> None:
    for seed, file in enumerate(files):
        path = make_run(
            str(seed), seed=seed, change=lambda record, file=file: record["config"].update(fit=fit, checkpoint=file)
        )
    assert len(group_runs(find_runs([path.parent]))[0]) == rows


def test_a_profiled_run_is_a_row_of_its_own(make_run: Callable[..., Path]) -> None:
    """Its seconds say something else; without a profiler a run is what it was before there was the option."""
    for seed, profiler in enumerate(({}, {"profiler": None}, {"profiler": "simple"})):
        options = {"max_epochs": 3, **profiler}
        path = make_run(str(seed), seed=seed, change=lambda record, own=options: record["config"].update(trainer=own))
    rows = group_runs(find_runs([path.parent]))[0]
    assert sorted([run.record.seed for run in row.runs] for row in rows) == [[0, 1], [2]]


def test_an_axis_that_came_later_is_as_good_as_null_where_it_is_absent(make_run: Callable[..., Path]) -> None:
    """So no label says that a run of before chose nothing."""
    for seed, groups in enumerate(({}, {"groups": None}, {"groups": "by_part"})):
        path = make_run(str(seed), seed=seed, change=lambda record, own=groups: record["choices"].update(own))
    identities = {run.record.seed: identity(run.record) for run in find_runs([path.parent])}
    assert differing_axes([identities[0], identities[1]]) == []
    assert differing_axes([identities[0], identities[2]]) == ["groups"]
