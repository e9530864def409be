"""What makes a row of the comparison."""

from collections.abc import Callable
from pathlib import Path

import pytest

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


def test_runs_from_before_an_option_are_rows_of_those_that_leave_it_out(make_run: Callable[..., Path]) -> None:
    old = {"_target_": "mmlit.alignments.contrastive.Contrastive", "dim": 8}
    neutral = {"label_smoothing": 0.0, "hardness": 0.0, "decoupled": False}
    for seed, options in enumerate((old, old | neutral, old | neutral | {"label_smoothing": 0.1})):
        path = make_run(str(seed), seed=seed, change=lambda record, own=options: record["config"].update(alignment=own))
    rows = group_runs(find_runs([path.parent]))[0]
    assert sorted([run.record.seed for run in row.runs] for row in rows) == [[0, 1], [2]]


def test_an_axis_where_nothing_was_chosen_is_no_difference(make_run: Callable[..., Path]) -> None:
    for seed, chosen in enumerate(({}, {"step": None}, {"step": "gradient_cache"})):
        path = make_run(str(seed), seed=seed, change=lambda record, own=chosen: record["choices"].update(own))
    found = sorted(find_runs([path.parent]), key=lambda run: run.record.seed)
    without, nothing, chosen = (identity(run.record).choices for run in found)
    assert without == nothing
    assert chosen == {**without, "step": "gradient_cache"}
