"""Curves, pictures and results in MLflow: a file of SQLite beside the runs, or a server."""

import os
import sqlite3
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers import MLFlowLogger
from lightning.pytorch.loggers.logger import rank_zero_experiment
from lightning.pytorch.utilities import rank_zero_only

from mmlit.results.atomic import write_atomically
from mmlit.training.trackers.tracked_run import TrackedRun

_SQLITE = "sqlite:///"
#: a server that does not answer must not hold a run up: seconds of one try, and further tries (MLflow's own: 120 and 7)
_PATIENCE = {"MLFLOW_HTTP_REQUEST_TIMEOUT": "10", "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1"}


class MlflowTracker(MLFlowLogger):
    """A run of an experiment; its id is kept in the run's folder, so that a killed run goes on as the same one.

    Args:
        experiment_name: what runs are listed under; sweeps are told apart by the tag `group`.
        tracking_uri: `sqlite:///FILE`, whose pictures and files go to `mlflow/` beside it, or a server's address.
        log_checkpoint: whether the reported checkpoint is copied to the run's files.
        run: what is tracked.

    Raises:
        ValueError: if the mlflow library is not installed.
    """

    def __init__(self, *, experiment_name: str, tracking_uri: str, log_checkpoint: bool, run: TrackedRun) -> None:
        self.run, self.log_checkpoint, self._id_file = run, log_checkpoint, run.directory / "mlflow_run_id"
        for option, value in _PATIENCE.items():
            os.environ.setdefault(option, value)
        if tracking_uri.startswith(_SQLITE):  # MLflow itself tries for minutes to open what cannot be opened
            path = Path(tracking_uri.removeprefix(_SQLITE))
            path.parent.mkdir(parents=True, exist_ok=True)
            sqlite3.connect(path).close()
        tags = {**run.choices, "group": run.group, "job_type": run.job_type}
        tags["mlflow.source.git.commit"] = str(run.parameters["code.commit"])
        try:
            super().__init__(
                experiment_name=experiment_name,
                run_name=run.name,
                tracking_uri=tracking_uri,
                tags=tags,
                artifact_location=_beside(tracking_uri),
            )
        except ModuleNotFoundError as error:
            raise ValueError("logger=mlflow needs the mlflow library: pip install -e '.[mlflow]'") from error
        self._last_steps: dict[str, int] = {}

    @property
    @rank_zero_experiment
    def experiment(self) -> Any:
        """The client; starts the run, or takes it up again."""
        if not self._initialized:
            earlier = self._id_file.read_text() if self._id_file.is_file() else None
            if earlier and self.run.resumed_step is not None:
                self._take_up(earlier)
            elif earlier:
                self._forget(earlier)
            client = super().experiment
            write_atomically(self._id_file, str(self._run_id).encode())
            return client
        return super().experiment

    @rank_zero_only
    def log_hyperparams(self, params: dict[str, Any]) -> None:  # type: ignore[override]
        """The options, once: MLflow refuses a second value, and the code may have changed since the run was killed."""
        known = self.experiment.get_run(self.run_id).data.params
        super().log_hyperparams({name: value for name, value in params.items() if name not in known})

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Numbers of a step, without those that an earlier part of the run has logged already."""
        new = {name: value for name, value in metrics.items() if (step or 0) > self._last_steps.get(name, -1)}
        super().log_metrics(new, step)

    def log_pictures(self, pictures: Mapping[str, Path], step: int) -> None:
        """See `Guarded`."""
        for path in pictures.values():
            self.experiment.log_artifact(self.run_id, str(path), "pictures")

    def log_result(self, files: Sequence[Path], checkpoint: Path | None, metrics: Mapping[str, float]) -> None:
        """See `Guarded`. A copy of the record gets another name, for `mmlit compare` finds records below any folder."""
        for file in [*files, *([checkpoint] if checkpoint and self.log_checkpoint else [])]:
            if file.suffix == ".json":
                self.experiment.log_text(self.run_id, file.read_text(), f"copy_of_{file.name}")
            else:
                self.experiment.log_artifact(self.run_id, str(file))

    def finalize(self, status: str = "success") -> None:
        """Between fit and test the run goes on."""

    def close(self, failed: bool) -> None:
        """See `Guarded`."""
        if self._initialized:
            self.experiment.set_terminated(self.run_id, "FAILED" if failed else "FINISHED")

    def _take_up(self, run_id: str) -> None:
        self._run_id = run_id
        known = self._mlflow_client.get_run(run_id).data.metrics
        history = {name: self._mlflow_client.get_metric_history(run_id, name) for name in known}
        self._last_steps = {name: max(point.step for point in points) for name, points in history.items()}
        self._mlflow_client.update_run(run_id, status="RUNNING")

    def _forget(self, run_id: str) -> None:
        """Moves what an earlier run of this folder left to MLflow's bin; somebody may have done so already."""
        from mlflow.exceptions import MlflowException

        with suppress(MlflowException):
            self._mlflow_client.delete_run(run_id)


def _beside(tracking_uri: str) -> str | None:
    """Where the files of runs go whose numbers are in a file of SQLite; a server knows for itself."""
    if not tracking_uri.startswith(_SQLITE):
        return None
    return (Path(tracking_uri.removeprefix(_SQLITE)).resolve().parent / "mlflow").as_uri()
