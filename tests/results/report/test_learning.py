"""Curves of one row: mean and spread where all seeds have been."""

from collections.abc import Callable
from pathlib import Path

import pytest

from mmlit.results.report.learning import learning
from mmlit.results.report.looks import looks
from mmlit.results.rows import Group, find_runs, group_runs

MakeRun = Callable[..., Path]


def curve(steps: list[int], values: list[float]) -> dict[str, list[float]]:
    return {"step": steps, "epoch": [1] * len(steps), "value": values}


def groups(tmp_path: Path) -> list[Group]:
    return group_runs(find_runs([tmp_path / "runs"]))[0]


def test_mean_and_sd_by_hand(make_run: MakeRun, tmp_path: Path) -> None:
    given = ([curve([2, 4], [1.0, 3.0]), curve([1, 4, 8], [3.0, 5.0, 9.0])], [curve([2], [1.0])])
    make_run(
        "a", seed=0, change=lambda record: record.update(curves={"train/loss": given[0][0], "val/rsum": given[1][0]})
    )
    make_run("b", seed=1, change=lambda record: record.update(curves={"train/loss": given[0][1]}))
    (group,) = groups(tmp_path)
    found = learning("row", group)
    assert list(found.measures) == ["train/loss"], "only one seed has the other"
    band = found.measures["train/loss"]
    assert band.steps.tolist() == [2, 4], "the steps that both have passed"
    # the second seed passes step 2 on its line from 3 to 5
    assert band.mean.tolist() == pytest.approx([(1 + 11 / 3) / 2, 4.0])
    assert band.sd is not None
    assert band.sd[1] == pytest.approx(2**0.5)


def test_one_seed_has_no_spread_and_old_records_no_curves(make_run: MakeRun, tmp_path: Path) -> None:
    make_run("a", change=lambda record: record.update(curves={"val/rsum": curve([1, 2], [1.0, 2.0])}))
    make_run("b", alignment="projection")
    new, old = (learning("row", group) for group in groups(tmp_path))
    assert new.measures["val/rsum"].sd is None
    assert old.measures == {}


def test_a_strategy_keeps_its_colour_and_its_rows_differ_in_dash(make_run: MakeRun, tmp_path: Path) -> None:
    for name, alignment, rate in (("a", "joint", 1), ("b", "joint", 2), ("c", "projection", 1)):
        make_run(
            name, alignment=alignment, change=lambda record, rate=rate: record["config"]["optimizer"].update(lr=rate)
        )
    one, two, other = looks(groups(tmp_path))
    assert one.colour == two.colour != other.colour
    assert one.dash != two.dash
    assert one.mark != other.mark
