"""A run to track, made up."""

import os
import traceback
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from mmlit.training.trackers.tracked_run import TrackedRun


@pytest.fixture
def tracked(tmp_path) -> Callable[..., TrackedRun]:
    """Makes the run `outputs/alignments/scenes-joint-seed0-0123456789ab`, or another."""

    def make(resumed_step: int | None = None, name: str = "scenes-joint-seed0-0123456789ab") -> TrackedRun:
        directory = tmp_path / "outputs" / "alignments" / name
        directory.mkdir(parents=True, exist_ok=True)
        return TrackedRun(
            directory=directory,
            group="alignments",
            job_type="joint",
            choices={"data": "scenes", "alignment": "joint"},
            parameters={"alignment.dim": 128, "seed": 0, "code.commit": "c0ffee"},
            resumed_step=resumed_step,
        )

    return make


@pytest.fixture
def picture(tmp_path) -> Path:
    path = tmp_path / "picture.png"
    Image.new("RGB", (40, 30), "green").save(path)
    return path


@pytest.fixture(scope="session")
def mlflow_database(tmp_path_factory) -> Path:
    """A file of SQLite with MLflow's tables, which take seconds to make: for copies."""
    from mlflow.tracking import MlflowClient

    path = tmp_path_factory.mktemp("mlflow") / "mlflow.db"
    MlflowClient(f"sqlite:///{path}").search_experiments()
    return path


def in_child(call: Callable[[], object]) -> None:
    """Calls in a process of its own: a library that keeps threads or a service must not stay in the tests' process."""
    child = os.fork()
    if child == 0:
        try:
            call()
        except BaseException:  # noqa: BLE001  (told by the exit code)
            traceback.print_exc()
            os._exit(1)
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
