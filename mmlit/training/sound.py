"""Stops training that has broken before it writes anything; tells when the loss jumps."""

import json
import logging
import math
import statistics
from collections import deque
from pathlib import Path
from typing import Any, NoReturn

import torch
from lightning.pytorch import Callback, Trainer
from torch.optim import Optimizer

from mmlit.results.atomic import write_atomically
from mmlit.training.module import RetrievalModule

log = logging.getLogger(__name__)

#: below a run's folder: the step that broke, with all ids of its batch
FILE_NAME = "broken_step.json"
#: a spike is a loss so many standard deviations above the mean of so many before it; the first ones are not judged
DEVIATIONS, WINDOW, LEAST = 5.0, 100, 20
_SHOWN = 16


class SoundTraining(Callback):
    """NaN or infinity in the loss, in a gradient or in a weight that is to be written ends the run.

    The loss and the gradients are looked at before the optimizer moves anything, the weights before a checkpoint
    replaces another: what lies in the run's folder stays as good as it was. With a loss scaler (16-mixed) gradients are
    left to it, which skips steps on purpose. The loss and the gradients are the same on all devices, so that all of
    them end together.

    A spike is a loss that lies more than five standard deviations above the mean of the last hundred batches; it is
    told in the log with the images of its batch, and training goes on.

    Args:
        directory: the run's folder.
    """

    def __init__(self, *, directory: Path) -> None:
        self.directory = directory
        self._losses: deque[float] = deque(maxlen=WINDOW)

    def on_after_backward(self, trainer: Trainer, pl_module: RetrievalModule) -> None:  # type: ignore[override]
        loss = float(trainer.callback_metrics["train/loss"])
        if not math.isfinite(loss):
            self._stop(trainer, pl_module, f"train/loss is {loss}")
        if (spike := self._spike(loss)) and trainer.is_global_zero:
            images = _listed(_ids(pl_module)["image_ids"])
            log.warning("loss spike at optimizer step %d: %s; images %s", trainer.global_step + 1, spike, images)
        self._losses.append(loss)

    def on_before_optimizer_step(  # type: ignore[override]
        self, trainer: Trainer, pl_module: RetrievalModule, optimizer: Optimizer
    ) -> None:
        if getattr(trainer.precision_plugin, "scaler", None) is not None:
            return
        gradients = {name: part.grad for name, part in pl_module.named_parameters() if part.grad is not None}
        if not torch.nn.utils.get_total_norm(list(gradients.values()), norm_type=math.inf).isfinite():
            names = [name for name, gradient in gradients.items() if not gradient.isfinite().all()]
            self._stop(trainer, pl_module, f"the gradient of {_listed(names)} is not finite")

    def on_save_checkpoint(  # type: ignore[override]
        self, trainer: Trainer, pl_module: RetrievalModule, checkpoint: dict[str, Any]
    ) -> None:
        """Lightning asks on every device, before the file is opened."""
        weights = {name: part for name, part in checkpoint["state_dict"].items() if part.is_floating_point()}
        if names := [name for name, part in weights.items() if not part.isfinite().all()]:
            raise ValueError(
                f"after optimizer step {trainer.global_step} the weights of {_listed(names)} are not finite; "
                f"{self._left()}. Try a smaller optimizer.lr"
            )

    def _spike(self, loss: float) -> str | None:
        if len(self._losses) < LEAST:
            return None
        mean, deviation = statistics.fmean(self._losses), statistics.pstdev(self._losses)
        if loss <= mean + DEVIATIONS * deviation:
            return None
        return f"train/loss {loss:.4g}, mean of the last {len(self._losses)} {mean:.4g} ± {deviation:.2g}"

    def _stop(self, trainer: Trainer, pl_module: RetrievalModule, what: str) -> NoReturn:
        ids, step = _ids(pl_module), trainer.global_step + 1
        if trainer.is_global_zero:
            content = {"step": step, "epoch": trainer.current_epoch + 1, "what": what, **ids}
            write_atomically(self.directory / FILE_NAME, f"{json.dumps(content)}\n".encode())
        raise ValueError(
            f"{what} at optimizer step {step}, epoch {trainer.current_epoch + 1}, with images "
            f"{_listed(ids['image_ids'])} (all ids of its batch: {self.directory / FILE_NAME}). It moved nothing; "
            f"{self._left()}. Try a smaller optimizer.lr, or trainer.precision=32-true"
        )

    def _left(self) -> str:
        found = sorted(path.name for path in (self.directory / "checkpoints").glob("*.ckpt"))
        return f"{' and '.join(found)} of before stays" if found else "no checkpoint has been written yet"


def _ids(module: RetrievalModule) -> dict[str, list[int]]:
    """Of the global batch."""
    if module.pairs is None:
        return {"image_ids": [], "text_ids": []}
    return {"image_ids": module.pairs.all_image_id.tolist(), "text_ids": module.pairs.all_text_id.tolist()}


def _listed(items: list[Any]) -> str:
    more = f", … ({len(items)} in all)" if len(items) > _SHOWN else ""
    return ", ".join(map(str, items[:_SHOWN])) + more
