"""A small file that says how far a run is, for whoever watches it from outside."""

import json
import time
from pathlib import Path
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer

#: seconds between two writes
_PAUSE = 1.0


class StatusFile(Callback):
    """Writes `status.json` beside the run's outputs: epoch, share done, last loss and val/rsum.

    Args:
        path: the file; replaced as a whole each time.
    """

    def __init__(self, *, path: Path) -> None:
        self.path = path
        self._last = 0.0

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *_: Any) -> None:
        if trainer.is_global_zero and time.monotonic() - self._last > _PAUSE:
            self._last = time.monotonic()
            total = max(1, int(trainer.estimated_stepping_batches))
            self._write(trainer, trainer.global_step / total)

    def _write(self, trainer: Trainer, share: float) -> None:
        wanted = ("train/loss", "val/rsum")
        metrics = {name: float(trainer.callback_metrics[name]) for name in wanted if name in trainer.callback_metrics}
        status = {"epoch": trainer.current_epoch, "epochs": trainer.max_epochs, "share": share, **metrics}
        beside = self.path.with_suffix(".tmp")
        beside.write_text(json.dumps(status))
        beside.replace(self.path)
