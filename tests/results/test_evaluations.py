"""What `mmlit evaluate` added to records, as a table."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from results.conftest import RECORD

from mmlit.results.command import add_arguments, run
from mmlit.results.entries import own_entry
from mmlit.results.evaluations import FILE_NAME, evaluation_markdown, evaluations
from mmlit.results.record import append_evaluation, read_record

Make = Callable[..., Path]


def entry(
    accuracy: float, *, fingerprint: str = "f1", folder: str = "evaluations/sugarcrepe-1", **changes: Any
) -> dict[str, Any]:
    usual = {
        "evaluator": "sugarcrepe",
        "data": None,
        "split": None,
        "scored": "full",
        "protocol": {"name": "sugarcrepe"},
        "counts": {"items": 7511},
        "fingerprint": fingerprint,
        "metrics": {"swap_att": accuracy, "micro": accuracy + 1},
        "seconds": 1.0,
        "options": {},
        "environment": RECORD["environment"],
        "code": RECORD["code"],
        "finished": RECORD["finished"],
        "folder": folder,
    }
    return usual | changes


@pytest.fixture
def runs(make_run: Make) -> Path:
    """Two strategies with two seeds."""
    for alignment, values in (("joint", (70.0, 74.0)), ("contrastive", (60.0, 60.0))):
        for seed, value in enumerate(values):
            append_evaluation(make_run(f"{alignment}{seed}", alignment=alignment, seed=seed), entry(value))
    return make_run("unevaluated", alignment="projection").parent


def test_mean_and_spread_of_each_row(runs: Path) -> None:
    table = evaluations([runs], "sugarcrepe")
    assert list(table.rows) == ["contrastive", "joint"]
    assert table.rows["joint"]["swap_att"] == pytest.approx((72.0, 8**0.5, 2))
    assert table.metrics == ["swap_att", "micro"]
    assert "| swap_att | 60.0 ± 0.0 | 72.0 ± 2.8 |" in evaluation_markdown(table)
    assert "7,511 items" in table.about


def test_a_run_that_was_not_evaluated_is_not_counted(runs: Path, make_run: Make) -> None:
    make_run("joint2", alignment="joint", seed=2)
    assert "| n | 2 | 2 |" in evaluation_markdown(evaluations([runs], "sugarcrepe"))


def test_rows_that_were_asked_different_things_are_refused(runs: Path, make_run: Make) -> None:
    """Trap 11."""
    other = make_run("other", alignment="other")
    for changes, told in (
        ({"counts": {"items": 3}}, "counts 7,511 items in contrastive and joint, 3 items in other"),
        ({"split": "val", "counts": {"items": 3}}, "split none in contrastive and joint, val in other"),
        ({"protocol": {"name": "sugarcrepe", "ties": "x"}}, "ties none in contrastive and joint, x in other"),
        ({}, "equally much, but not the same images and texts"),
    ):
        append_evaluation(other, entry(50.0, fingerprint="f2", **changes))
        with pytest.raises(ValueError, match=f"^rows were asked different things: {told}$"):
            evaluations([runs], "sugarcrepe")


def test_the_newest_of_what_all_rows_were_asked_counts(runs: Path, make_run: Make) -> None:
    """One run was asked twice more, and in between something that nobody else was."""
    days = {day: f"2026-12-{day:02}T05:10:11+00:00" for day in range(1, 5)}
    other = make_run("other", alignment="other")
    for day, (accuracy, fingerprint) in enumerate([(1.0, "f1"), (2.0, "f1"), (3.0, "f2")], 1):
        append_evaluation(other, entry(accuracy, fingerprint=fingerprint, folder=str(day), finished=days[day]))
    assert evaluations([runs], "sugarcrepe").rows["other"]["swap_att"].mean == 2
    for alignment in ("joint", "contrastive"):
        for seed in range(2):
            append_evaluation(runs / f"{alignment}{seed}", entry(9.0, fingerprint="f2", folder="new", finished=days[4]))
    table = evaluations([runs], "sugarcrepe")
    assert [row["swap_att"].mean for row in table.rows.values()] == [9, 9, 3]


def test_rows_may_be_scored_otherwise_and_say_so(runs: Path, make_run: Make) -> None:
    assert "scored" not in evaluation_markdown(evaluations([runs], "sugarcrepe"))
    append_evaluation(make_run("other", alignment="other"), entry(50.0, scored="full, averaged"))
    assert "| scored | full | full | full, averaged |" in evaluation_markdown(evaluations([runs], "sugarcrepe"))


def published(record: dict[str, Any], split: str = "test") -> None:
    record["split"] = split
    record["choices"] |= {"alignment": "zero_shot", "evaluator": "coco_5k"}
    record["budget"] = {"epochs": 0, "steps": 0, "pairs_seen": 0}


def test_whole_records_of_that_evaluator_stand_beside_them(make_run: Make) -> None:
    """A published pair's numbers are its record's own; its record on another split is the same row."""
    pair = make_run("pair", alignment="contrastive", change=published)
    make_run("pair_on_val", alignment="contrastive", change=lambda record: published(record, split="val"))
    own = own_entry(read_record(pair / "result.json"))
    added = own.model_dump() | {"metrics": own.metrics | {"rsum": 123.0}, "folder": "evaluations/coco_5k-1"}
    append_evaluation(make_run("trained"), added)
    table = evaluations([pair.parent], "coco_5k")
    assert {name: row["rsum"].mean for name, row in table.rows.items()} == {"zero_shot": 600, "joint": 123}
    assert table.about == "coco_5k, test: 4 images, 8 texts"


def test_a_pair_without_a_run_stands_beside_them(runs: Path) -> None:
    (runs / "pair").mkdir()
    (runs / "pair" / FILE_NAME).write_text(json.dumps(entry(55.0, folder="zero_shot clip")))
    table = evaluations([runs], "sugarcrepe")
    assert table.rows["zero_shot clip"]["swap_att"] == (55.0, None, 1)
    (runs / "other").mkdir()
    other = entry(45.0, folder="zero_shot clip", options={"weights": "others/clip"})
    (runs / "other" / FILE_NAME).write_text(json.dumps(other))
    rows = evaluations([runs / "pair", runs / "other"], "sugarcrepe").rows
    assert {name: row["swap_att"].mean for name, row in rows.items()} == {"zero_shot clip": 55, "zero_shot clip #2": 45}
    assert list(evaluations([runs / "pair"], "sugarcrepe").rows) == ["zero_shot clip"], "no run is needed"


def test_an_evaluation_takes_the_place_of_the_one_before(make_run: Make) -> None:
    directory = make_run("run")
    before = read_record(directory / "result.json")
    for accuracy in (10.0, 20.0):
        append_evaluation(directory, entry(accuracy))
    append_evaluation(directory, entry(30.0, folder="evaluations/other"))
    after = read_record(directory / "result.json")
    assert [each.metrics["swap_att"] for each in after.evaluations] == [20.0, 30.0]
    assert after.model_copy(update={"evaluations": []}) == before


def test_an_evaluation_that_breaks_the_schema_changes_nothing(make_run: Make) -> None:
    directory = make_run("run")
    before = (directory / "result.json").read_bytes()
    with pytest.raises(ValueError, match=r"result\.json: evaluations\.0\.metrics\.swap_att"):
        append_evaluation(directory, entry(float("nan")))
    assert (directory / "result.json").read_bytes() == before


def test_the_command(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    import argparse

    parser = argparse.ArgumentParser()
    add_arguments(parser)
    assert run(parser.parse_args([str(runs), "--evaluation", "sugarcrepe"])) == 0
    assert "72.0 ± 2.8" in capsys.readouterr().out
    assert (runs / "sugarcrepe.md").is_file()
    assert run(parser.parse_args([str(runs), "--evaluation", "winoground"])) == 2
    assert "no run was evaluated by winoground: `mmlit evaluate RUN" in capsys.readouterr().err
