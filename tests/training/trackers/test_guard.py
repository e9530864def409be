"""A tracker that fails is told of once and never heard of again; the run goes on."""

import logging
import os
import shutil
import sqlite3
from pathlib import Path
from types import SimpleNamespace

import pytest
import sqlalchemy
from lightning.pytorch.loggers.logger import DummyLogger
from training.trackers.conftest import in_child

from mmlit.training.trackers.csv_file import CsvTracker
from mmlit.training.trackers.guard import Guarded, closing, report
from mmlit.training.trackers.mlflow import MlflowTracker
from mmlit.training.trackers.tensorboard import TensorBoardTracker
from mmlit.training.trackers.wandb import WandbTracker

# TensorBoard's thread, which dies of a full disk as a test wants it to
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")


def guarded(tracker, choice: str, directory: Path) -> Guarded:
    return Guarded(tracker, choice=choice, directory=directory)


def whole_run(logger: Guarded, picture: Path, during=lambda: None) -> None:
    """What Lightning and a run ask of a logger, with something that happens on the way."""
    with closing([logger]):
        _ = logger.experiment
        logger.log_hyperparams({"seed": 0})
        logger.log_metrics({"train/loss": 1.0}, 0)
        logger.save()
        during()
        for step in range(1, 4):
            logger.log_metrics({"train/loss": 1.0, f"train/{step}": 1.0}, step)
            logger.save()
        logger.finalize("success")
        logger.log_pictures({"test/attention": picture}, 4)
        report([logger], [picture], None, {"rsum": 1.0})


def told(caplog) -> list[str]:
    return [record.getMessage() for record in caplog.records if "is silent from here on" in record.getMessage()]


class Failing(DummyLogger):
    """Raises in one method; counts what it is asked for."""

    def __init__(self, method: str) -> None:
        super().__init__()
        self.asked = []
        for name in ("log_metrics", "log_hyperparams", "save", "finalize", "log_pictures", "log_result", "close"):
            setattr(self, name, lambda *_, name=name, **__: self._answer(name, method))

    def _answer(self, name: str, method: str) -> None:
        self.asked.append(name)
        if name == method:
            raise OSError(f"Traceback …\n[Errno 28] No space left on device in {name}\n")


@pytest.mark.parametrize(
    "method", ["log_metrics", "log_hyperparams", "save", "finalize", "log_pictures", "log_result", "close"]
)
def test_whatever_fails_is_told_once_by_its_last_line(method, picture, tmp_path, caplog):
    tracker = Failing(method)
    whole_run(guarded(tracker, "wandb", tmp_path), picture)
    assert told(caplog) == [
        f"logger=wandb failed and is silent from here on: [Errno 28] No space left on device in {method}"
    ]
    assert tracker.asked.count(method) == 1
    assert tracker.asked[-1] == "close"


def test_a_run_that_fails_closes_its_trackers_as_failed(tmp_path):
    tracker = Failing("nothing")
    tracker.close = tracker.asked.append
    with pytest.raises(KeyboardInterrupt), closing([guarded(tracker, "csv", tmp_path)]):
        raise KeyboardInterrupt
    assert tracker.asked == [True]


def test_what_stops_a_run_is_not_swallowed(tmp_path):
    tracker = DummyLogger()

    def interrupted(*_):
        raise KeyboardInterrupt

    tracker.log_metrics = interrupted
    with pytest.raises(KeyboardInterrupt):
        guarded(tracker, "csv", tmp_path).log_metrics({"train/loss": 1.0}, 0)


def test_csv_on_a_full_disk(tracked, picture, caplog):
    run = tracked()

    def full() -> None:
        (run.directory / "metrics.csv").unlink()
        (run.directory / "metrics.csv").symlink_to("/dev/full")

    whole_run(guarded(CsvTracker(run=run), "csv", run.directory), picture, full)
    assert len(told(caplog)) == 1
    assert "logger=csv" in told(caplog)[0]


def in_the_way(path: Path) -> None:
    """A file where a folder is needed: nobody can write there, not even root."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("")


def test_tensorboard_without_its_folder(tracked, picture, caplog):
    run = tracked()
    in_the_way(run.directory / "file")
    run = run._replace(directory=run.directory / "file" / "below")
    whole_run(guarded(TensorBoardTracker(run=run), "tensorboard", run.directory), picture)
    assert len(told(caplog)) == 1


def test_tensorboard_whose_file_cannot_be_written_any_more(tracked, picture, caplog):
    run = tracked()
    tracker = TensorBoardTracker(run=run)

    def full() -> None:
        record_writer = tracker.experiment.file_writer.event_writer._async_writer._writer
        record_writer._writer = Path("/dev/full").open("wb", buffering=0)  # noqa: SIM115

    whole_run(guarded(tracker, "tensorboard", run.directory), picture, full)
    assert len(told(caplog)) == 1
    assert "No space left" in told(caplog)[0]


@pytest.mark.slow
def test_mlflow_whose_database_is_locked(tracked, picture, caplog, monkeypatch, mlflow_database):
    from mlflow.store.db import utils

    impatient = SimpleNamespace(text=lambda words: sqlalchemy.text(words.replace("20000", "100")))
    monkeypatch.setattr(utils, "sql", impatient)  # milliseconds that it waits for somebody else's lock
    run, database = tracked(), tracked().directory.parent / "mlflow.db"
    shutil.copy(mlflow_database, database)
    uri = f"sqlite:///{database}"
    tracker = MlflowTracker(experiment_name="mmlit", tracking_uri=uri, log_checkpoint=False, run=run)
    lock = sqlite3.connect(database)
    whole_run(guarded(tracker, "mlflow", run.directory), picture, lambda: lock.execute("BEGIN EXCLUSIVE"))
    lock.close()
    assert len(told(caplog)) == 1
    assert "logger=mlflow" in told(caplog)[0]


@pytest.mark.parametrize(
    "online", [pytest.param(False, id="unwritable"), pytest.param(True, id="no network", marks=pytest.mark.slow)]
)
def test_wandb_without_a_disk_or_a_network(tracked, picture, tmp_path, monkeypatch, online):
    run = tracked()
    if online:
        for name, value in {"MODE": "online", "API_KEY": "0" * 40, "BASE_URL": "http://127.0.0.1:9"}.items():
            monkeypatch.setenv(f"WANDB_{name}", value)
        monkeypatch.setenv("WANDB_INIT_TIMEOUT", "3")
    else:
        in_the_way(run.directory / "wandb")

    def track() -> None:
        said = tmp_path / "said.txt"
        logging.basicConfig(filename=said, level=logging.WARNING, force=True)
        tracker = WandbTracker(project="mmlit", offline=not online, log_checkpoint=True, run=run)
        whole_run(guarded(tracker, "wandb", run.directory), picture)
        os.write(2, said.read_bytes())
        assert said.read_text().count("logger=wandb failed and is silent from here on") == 1

    in_child(track)
