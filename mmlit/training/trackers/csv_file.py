"""Curves in `metrics.csv`, options in `hparams.yaml`."""

import csv
import io
import sys
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers import CSVLogger
from lightning.pytorch.loggers.csv_logs import ExperimentWriter
from lightning.pytorch.loggers.logger import rank_zero_experiment
from torch import Tensor

from mmlit.results.atomic import write_atomically
from mmlit.training.trackers.tracked_run import TrackedRun


class CsvTracker(CSVLogger):
    """A row per step that was logged, in the run's folder.

    Args:
        run: what is tracked.

    Differs: Lightning's logger deletes the file that it finds; here a run that goes on keeps its rows.
    """

    def __init__(self, *, run: TrackedRun) -> None:
        # Lightning saves after each of its own rows; what callbacks log before waits for them and joins their row.
        super().__init__(run.directory, name="", version="", flush_logs_every_n_steps=sys.maxsize)
        self.run = run

    @property
    @rank_zero_experiment
    def experiment(self) -> "_Rows":
        """The writer; opens the file."""
        if self._experiment is None:
            self._experiment = _Rows(self.run.directory, self.run.resumed_step)
        return self._experiment  # type: ignore[return-value]


class _Rows(ExperimentWriter):
    """Rows that are written once: of a step that a resumed run makes again, the old row or the new one."""

    def __init__(self, directory: Path, resumed_step: int | None) -> None:
        self.resumed_step, self.known = resumed_step, set[tuple[int, str]]()
        super().__init__(str(directory))

    def log_metrics(self, metrics_dict: dict[str, Any], step: int | None = None) -> None:
        number = len(self.metrics) if step is None else step
        new = {
            name: value.item() if isinstance(value, Tensor) else value
            for name, value in metrics_dict.items()
            if (number, name) not in self.known
        }
        if not new.keys() - {"epoch"}:
            return
        last = self.metrics[-1] if self.metrics else {}
        if last.get("step") == number and all(last.get(name, value) == value for name, value in new.items()):
            last |= new
        else:
            self.metrics.append({**new, "step": number})

    def _check_log_dir_exists(self) -> None:
        """Lightning's place for deleting an old file."""
        path = Path(self.metrics_file_path)
        if self.resumed_step is None or not path.is_file():
            path.unlink(missing_ok=True)
            return
        whole, _, _ = path.read_text().rpartition("\n")  # a kill may have cut the last row
        rows = [row for row in csv.DictReader(io.StringIO(whole)) if int(row["step"]) < self.resumed_step]
        self.known = {(int(row["step"]), name) for row in rows for name, value in row.items() if value} - {
            (int(row["step"]), "epoch") for row in rows
        }
        self._write(rows, sorted({name for row in rows for name in row}))

    def _rewrite_with_new_header(self, fieldnames: list[str]) -> None:
        with Path(self.metrics_file_path).open(newline="") as file:
            self._write(list(csv.DictReader(file)), fieldnames)

    def _write(self, rows: list[dict[str, str]], names: list[str]) -> None:
        """The whole file anew, so that a kill leaves the old one."""
        text = io.StringIO()
        writer = csv.DictWriter(text, fieldnames=names)
        writer.writeheader()
        writer.writerows(rows)
        write_atomically(Path(self.metrics_file_path), text.getvalue().encode())
        self.metrics_keys = list(names)
