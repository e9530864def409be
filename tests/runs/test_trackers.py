"""Trackers in whole runs: what each of them says of one run, and runs whose trackers fail."""

import csv
import json
from pathlib import Path

import pytest
from PIL import Image
from training.trackers.wandb_file import read_offline


def folder(tmp_path: Path) -> Path:
    (path,) = tmp_path.glob("outputs/*/result.json")
    return path.parent


def rows(run: Path) -> list[dict[str, str]]:
    with (run / "metrics.csv").open(newline="") as file:
        return [{name: value for name, value in row.items() if value} for row in csv.DictReader(file)]


def column(run: Path, name: str) -> list[tuple[int, float]]:
    return [(int(row["step"]), float(row[name])) for row in rows(run) if name in row]


def test_what_is_watched_by_default(train, tmp_path):
    """Curves on the axis of optimizer steps, the options, the pictures."""
    ended = train("trainer.log_every_n_steps=2", "trainer.gradient_clip_val=1e-6", "+trainer.accumulate_grad_batches=2")
    assert ended.code == 0, ended.err
    run = folder(tmp_path)
    steps = [1, 3, 5]  # six optimizer steps, counted from 0, of twelve batches
    for name in ("loss", "grad_norm", "pairs_per_second", "waiting", "temperature", "lr/pg1"):
        assert [step for step, _ in column(run, f"train/{name}")] == steps, name
    assert all(speed > 0 for _, speed in column(run, "train/pairs_per_second"))
    assert min(norm for _, norm in column(run, "train/grad_norm")) > 1e-3  # before clipping
    assert all(0 < share < 1 for _, share in column(run, "train/waiting"))
    assert all(value == pytest.approx(0.07, rel=0.1) for _, value in column(run, "train/temperature"))
    assert [step for step, _ in column(run, "val/rsum")] == [2, 5]
    assert [step for step, _ in column(run, "test/rsum")] == [6]
    assert (run / "hparams.yaml").is_file()
    pictures = sorted(path.name for path in (run / "pictures").iterdir())
    assert pictures == ["gallery_image_to_text.png", "gallery_text_to_image.png"]
    with Image.open(run / "pictures" / pictures[0]) as picture:
        assert picture.width == 1080


def test_a_fixed_temperature_is_no_curve(train, tmp_path):
    assert train("alignment.learn_temperature=false", "trainer.log_every_n_steps=2", "trainer.max_epochs=1").code == 0
    assert column(folder(tmp_path), "train/temperature") == []
    assert column(folder(tmp_path), "train/grad_norm") != []


def test_trackers_that_fail_cost_a_run_nothing(train, tmp_path):
    ended = train(
        "logger=[csv,mlflow]", "logger.mlflow.tracking_uri=sqlite:////dev/null/below/mlflow.db", "trainer.max_epochs=1"
    )
    assert ended.code == 0, ended.err
    assert ended.out.count("logger=mlflow failed and is silent from here on") == 1
    assert column(folder(tmp_path), "test/rsum") != []


@pytest.mark.slow
def test_all_trackers_tell_the_same(train, tmp_path):
    from mlflow.tracking import MlflowClient
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    ended = train(
        "alignment=cross_attention",
        "logger=[csv,tensorboard,wandb,mlflow]",
        "logger.wandb.offline=true",
        "trainer.log_every_n_steps=2",
    )
    assert ended.code == 0, ended.err
    assert "silent" not in ended.out
    run = folder(tmp_path)
    assert len(list(tmp_path.rglob("result.json"))) == 1  # no tracker's copy is taken for a record
    board = EventAccumulator(str(run))
    board.Reload()
    (path,) = run.rglob("*.wandb")
    wandb = read_offline(path)
    client = MlflowClient(f"sqlite:///{tmp_path}/outputs/mlflow.db")
    run_id = (run / "mlflow_run_id").read_text()
    for name in ("train/loss", "train/grad_norm", "train/lr/pg1", "train/temperature", "val/rsum", "test/rsum"):
        expected = [(step, pytest.approx(value)) for step, value in column(run, name)]
        assert expected
        assert [(event.step, event.value) for event in board.Scalars(name)] == expected
        assert [(row["trainer/global_step"], row[name]) for row in wandb.history if name in row] == expected
        assert [(point.step, point.value) for point in client.get_metric_history(run_id, name)] == expected
    names = {"attention", "gallery_image_to_text", "gallery_text_to_image"}
    assert {path.stem for path in (run / "pictures").iterdir()} == names
    assert set(board.Tags()["images"]) == {f"test/{name}" for name in names}
    assert {f"test/{name}.count" for name in names} <= {key for row in wandb.history for key in row}
    assert len(client.list_artifacts(run_id, "pictures")) == 3
    assert ("result", ["ranks.npz", "result.json"]) in wandb.artifacts
    assert ("model", ["best.ckpt"]) in wandb.artifacts
    commit = json.loads((run / "result.json").read_text())["code"]["commit"] or "null"
    assert wandb.config["code.commit"] == client.get_run(run_id).data.params["code.commit"] == commit
    assert wandb.run.run_id == f"outputs-{run.name}"[-64:]
    assert client.get_run(run_id).info.status == "FINISHED"


@pytest.mark.slow
def test_runs_of_one_process_stay_apart(train, tmp_path):
    """Trap 30: a multirun in one process."""
    ended = train(
        "hydra.mode=MULTIRUN", "hydra/launcher=basic", "seed=0,1", "logger=[csv,wandb]", "logger.wandb.offline=true",
        "trainer.max_epochs=1",
    )  # fmt: skip
    assert ended.code == 0, ended.err
    found = [read_offline(path) for path in sorted(tmp_path.rglob("*.wandb"))]
    assert len({one.run.run_id for one in found}) == 2
    assert sorted(one.config["seed"] for one in found) == [0, 1]
    assert [len([row for row in one.history if "test/rsum" in row]) for one in found] == [1, 1]
    assert [one.exit_codes for one in found] == [[0], [0]]
