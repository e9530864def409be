"""What `mmlit evaluate` added to records, as a table."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from results.conftest import RECORD

from mmlit.results.command import add_arguments, run
from mmlit.results.evaluations import FILE_NAME, evaluation_markdown, evaluations
from mmlit.results.record import append_evaluation, read_record

Make = Callable[..., Path]


def entry(accuracy: float, *, fingerprint: str = "f1", folder: str = "evaluations/sugarcrepe-1") -> dict[str, Any]:
    return {
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


def test_rows_that_were_asked_different_things_are_refused(runs: Path, make_run: Make) -> None:
    """Trap 11."""
    append_evaluation(make_run("other", alignment="other"), entry(50.0, fingerprint="f2"))
    with pytest.raises(ValueError, match=r"asked different things .*: f1 in contrastive, joint; f2 in other"):
        evaluations([runs], "sugarcrepe")


def test_a_pair_without_a_run_stands_beside_them(runs: Path) -> None:
    (runs / "pair").mkdir()
    (runs / "pair" / FILE_NAME).write_text(json.dumps(entry(55.0, folder="zero_shot clip")))
    table = evaluations([runs], "sugarcrepe")
    assert table.rows["zero_shot clip"]["swap_att"] == (55.0, None, 1)


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
