"""A small file that says how far a run is, for whoever watches it from outside."""

import json
import time
from pathlib import Path
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer

#: seconds between two writes
_PAUSE = 1.0


class StatusFile(Callback):
    """Writes `status.json` beside the run's outputs: epoch, share done and with how much it began, last loss
    and val/rsum.

    Args:
        path: the file; replaced as a whole each time.
    """

    def __init__(self, *, path: Path) -> None:
        self.path = path
        self._last, self._begun = 0.0, 0.0

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._begun = _share(trainer)

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *_: Any) -> None:
        if trainer.is_global_zero and time.monotonic() - self._last > _PAUSE:
            self._last = time.monotonic()
            self._write(trainer)

    def _write(self, trainer: Trainer) -> None:
        wanted = ("train/loss", "val/rsum")
        metrics = {name: float(trainer.callback_metrics[name]) for name in wanted if name in trainer.callback_metrics}
        status = {
            "epoch": trainer.current_epoch,
            "epochs": trainer.max_epochs,
            "share": _share(trainer),
            "begun": self._begun,
            **metrics,
        }
        beside = self.path.with_suffix(".tmp")
        beside.write_text(json.dumps(status))
        beside.replace(self.path)


def _share(trainer: Trainer) -> float:
    """Of all optimizer steps, how many are done."""
    return trainer.global_step / max(1, int(trainer.estimated_stepping_batches))
