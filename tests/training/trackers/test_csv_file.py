"""metrics.csv: a row per step, also of a run that was killed."""

import csv
from pathlib import Path

import pytest
import torch
import yaml

from mmlit.training.trackers.csv_file import CsvTracker


def rows(directory: Path) -> list[dict[str, str]]:
    with (directory / "metrics.csv").open(newline="") as file:
        return [{name: value for name, value in row.items() if value} for row in csv.DictReader(file)]


def logged(tracker: CsvTracker, steps: range, **values: float) -> None:
    for step in steps:
        tracker.log_metrics({"train/lr": 0.5}, step)  # a callback's, which nobody saves by itself
        tracker.log_metrics({"train/loss": torch.tensor(float(step)), "epoch": 0, **values}, step)
        tracker.save()


def test_what_is_logged_of_a_step_is_one_row(tracked):
    run = tracked()
    tracker = CsvTracker(run=run)
    tracker.log_hyperparams(run.parameters)
    logged(tracker, range(2))
    assert rows(run.directory) == [
        {"step": str(step), "epoch": "0", "train/loss": f"{step}.0", "train/lr": "0.5"} for step in range(2)
    ]
    assert yaml.safe_load((run.directory / "hparams.yaml").read_text()) == run.parameters


def test_a_later_column_leaves_earlier_rows_as_they_are(tracked):
    run = tracked()
    tracker = CsvTracker(run=run)
    logged(tracker, range(2))
    tracker.log_metrics({"val/rsum": 99.0}, 1)
    tracker.finalize("success")
    assert [row.get("val/rsum") for row in rows(run.directory)] == [None, None, "99.0"]


def test_a_run_that_begins_anew_keeps_nothing(tracked):
    run = tracked()
    logged(CsvTracker(run=run), range(5))
    again = CsvTracker(run=run)
    logged(again, range(1))
    assert [row["step"] for row in rows(run.directory)] == ["0"]


@pytest.mark.parametrize("torn", ["", "0,99"])
def test_a_run_that_goes_on_has_every_step_once(tracked, torn):
    """Trap 28: killed after step 6, resumed from a checkpoint of 4 steps; a kill may tear the last row."""
    run = tracked()
    killed = CsvTracker(run=run)
    logged(killed, range(4))
    killed.log_metrics({"val/rsum": 1.0, "epoch": 0}, 3)
    killed.save()
    logged(killed, range(4, 7))
    with (run.directory / "metrics.csv").open("a") as file:
        file.write(torn)
    resumed = CsvTracker(run=tracked(resumed_step=4))
    resumed.log_metrics({"val/rsum": 1.0, "epoch": 0}, 3)  # a validation that the checkpoint came before
    resumed.save()
    logged(resumed, range(4, 8), **{"train/new": 1.0})
    found = rows(run.directory)
    assert [row["step"] for row in found if "train/loss" in row] == [str(step) for step in range(8)]
    assert [row["step"] for row in found if "val/rsum" in row] == ["3"]
    assert [row["step"] for row in found if "train/new" in row] == ["4", "5", "6", "7"]
