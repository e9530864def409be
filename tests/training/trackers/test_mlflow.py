"""MLflow with a file of SQLite, read back by its own client."""

import shutil
import sys

import pytest

from mmlit.training.trackers.mlflow import MlflowTracker


def uri(run) -> str:
    return f"sqlite:///{run.directory.parent}/mlflow.db"


def tracker(run, **options) -> MlflowTracker:
    given = {"experiment_name": "mmlit", "tracking_uri": uri(run), "log_checkpoint": False, **options}
    return MlflowTracker(**given, run=run)


@pytest.fixture(autouse=True)
def _database(mlflow_database, tracked):
    shutil.copy(mlflow_database, tracked().directory.parent / "mlflow.db")


def client(run):
    from mlflow.tracking import MlflowClient

    return MlflowClient(uri(run))


def runs(run):
    found = client(run)
    return found.search_runs([found.get_experiment_by_name("mmlit").experiment_id])


def test_everything_is_in_the_database(tracked, picture, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run, result, checkpoint = tracked(), tmp_path / "result.json", tmp_path / "best.ckpt"
    result.write_text("{}")
    checkpoint.write_bytes(b"weights")
    own = tracker(run, log_checkpoint=True)
    own.log_hyperparams(run.parameters)
    for step in (4, 9):
        own.log_metrics({"train/loss": step / 2, "epoch": 0}, step)
    own.finalize("success")
    assert runs(run)[0].info.status == "RUNNING"
    own.log_pictures({"test/attention": picture}, 10)
    own.log_result([result], checkpoint, {"rsum": 123.0})
    own.close(False)
    (found,) = runs(run)
    assert (found.info.run_name, found.info.status) == (run.name, "FINISHED")
    assert found.data.params == {"alignment.dim": "128", "seed": "0", "code.commit": "c0ffee"}
    assert found.data.tags.items() >= {
        "group": "alignments", "job_type": "joint", "data": "scenes", "mlflow.source.git.commit": "c0ffee",
    }.items()  # fmt: skip
    points = client(run).get_metric_history(found.info.run_id, "train/loss")
    assert [(point.step, point.value) for point in points] == [(4, 2.0), (9, 4.5)]
    names = {entry.path for entry in client(run).list_artifacts(found.info.run_id)}
    assert names == {"pictures", "copy_of_result.json", "best.ckpt"}
    assert [entry.path for entry in client(run).list_artifacts(found.info.run_id, "pictures")] == [
        "pictures/picture.png"
    ]
    assert not (tmp_path / "mlruns").exists()


def test_a_run_that_goes_on_is_the_same_one_with_every_step_once(tracked):
    """Trap 28: also if the code has changed since, which MLflow would refuse to write down."""
    killed = tracker(tracked())
    killed.log_hyperparams({"seed": 0, "code.commit": "before"})
    for step in range(7):
        killed.log_metrics({"train/loss": float(step)}, step)
    resumed = tracker(tracked(resumed_step=4))
    resumed.log_hyperparams({"seed": 0, "code.commit": "after", "new": 1})
    for step in range(4, 9):
        resumed.log_metrics({"train/loss": float(step)}, step)
    resumed.close(False)
    (found,) = runs(tracked())
    assert found.data.params == {"seed": "0", "code.commit": "before", "new": "1"}
    points = client(tracked()).get_metric_history(found.info.run_id, "train/loss")
    assert sorted((point.step, point.value) for point in points) == [(step, float(step)) for step in range(9)]


def test_a_run_that_begins_anew_replaces_the_old_one(tracked):
    for value in (1.0, 2.0):
        own = tracker(tracked())
        own.log_metrics({"train/loss": value}, 0)
        own.close(value == 1.0)
    (found,) = runs(tracked())
    assert found.data.metrics["train/loss"] == 2.0


def test_a_missing_library_is_told_with_its_extra(tracked, monkeypatch):
    monkeypatch.setattr("lightning.pytorch.loggers.mlflow._MLFLOW_AVAILABLE", False)
    monkeypatch.setitem(sys.modules, "mlflow", None)
    with pytest.raises(ValueError, match=r"logger=mlflow needs the mlflow library: pip install -e '\.\[mlflow\]'"):
        tracker(tracked())
