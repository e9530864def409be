"""Curves, pictures and options in TensorBoard's event files."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from lightning.pytorch.loggers import TensorBoardLogger
from lightning.pytorch.loggers.logger import rank_zero_experiment
from lightning.pytorch.utilities import rank_zero_only
from PIL import Image

from mmlit.training.trackers.tracked_run import TrackedRun

#: what the table of options is set beside; TensorBoard takes the values from the curves
_HEADLINES = {"val/rsum": 0.0, "test/rsum": 0.0}


class TensorBoardTracker(TensorBoardLogger):
    """Event files in the run's folder; `tensorboard --logdir outputs` shows all runs below it.

    Args:
        run: what is tracked.
    """

    def __init__(self, *, run: TrackedRun) -> None:
        # Of a run that goes on, TensorBoard forgets the steps that are made again.
        super().__init__(run.directory, name="", version="", default_hp_metric=False, purge_step=run.resumed_step)
        self.run = run

    @property
    @rank_zero_experiment
    def experiment(self) -> Any:
        """The writer; opens the file."""
        if self._experiment is None and self.run.resumed_step is None:
            for path in self.run.directory.glob("events.out.tfevents.*"):
                path.unlink()
        return super().experiment

    @rank_zero_only
    def log_hyperparams(self, params: dict[str, Any], *_: Any, **__: Any) -> None:  # type: ignore[override]
        """For the table of options, without a made-up first point in the curves beside it."""
        from torch.utils.tensorboard.summary import hparams

        self.hparams.update(params)
        for summary in hparams(params, _HEADLINES):
            self.experiment._get_file_writer().add_summary(summary)

    def log_pictures(self, pictures: Mapping[str, Path], step: int) -> None:
        """See `Guarded`."""
        for name, path in pictures.items():
            with Image.open(path) as picture:
                self.experiment.add_image(name, np.asarray(picture.convert("RGB")), step, dataformats="HWC")
        self.experiment.flush()

    def finalize(self, status: str) -> None:
        """Between fit and test the file stays open."""
        if self._experiment is not None:
            self.save()

    def close(self, failed: bool) -> None:
        """See `Guarded`."""
        if self._experiment is not None:
            self._experiment.close()
