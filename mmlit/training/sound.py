"""Stops training that has broken before it writes anything; tells when the loss jumps."""

import json
import logging
import math
import statistics
from collections import deque
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NoReturn

import torch
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.trainer.states import TrainerFn
from torch import Tensor
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

    The loss and the gradients are looked at before the optimizer moves anything, the weights before a validation and
    before a checkpoint replaces another: what lies in the run's folder stays as good as it was. With a loss scaler
    (16-mixed) gradients are left to it, which skips steps on purpose. The loss and the gradients are the same on all
    devices, so that all of them end together.

    A spike is a loss that lies more than five standard deviations above the mean of the last hundred batches; it is
    told in the log with the images of its batch, and training goes on.

    Args:
        directory: the run's folder.
    """

    def __init__(self, *, directory: Path) -> None:
        self.directory = directory
        self._losses: deque[float] = deque(maxlen=WINDOW)
        self._ids: dict[str, Tensor] = {}  # of the last global batch

    def on_after_backward(self, trainer: Trainer, pl_module: RetrievalModule) -> None:  # type: ignore[override]
        if (pairs := pl_module.pairs) is not None:
            self._ids = {"image_ids": pairs.all_image_id, "text_ids": pairs.all_text_id}
        loss = float(trainer.callback_metrics["train/loss"])
        if not math.isfinite(loss):
            self._stop(trainer, f"train/loss is {loss}")
        if (spike := self._spike(loss)) and trainer.is_global_zero:
            images = _listed(self._ids["image_ids"].tolist())
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
            told = f"{len(names)} of {len(gradients)} gradients are not finite, {names[0]}'s first,"
            self._stop(trainer, told)

    def on_validation_start(self, trainer: Trainer, pl_module: RetrievalModule) -> None:  # type: ignore[override]
        """Scores of broken weights would be blamed on what is ranked."""
        if trainer.state.fn == TrainerFn.FITTING and not trainer.sanity_checking:
            self._require_finite(trainer, pl_module.state_dict())

    def on_save_checkpoint(  # type: ignore[override]
        self, trainer: Trainer, pl_module: RetrievalModule, checkpoint: dict[str, Any]
    ) -> None:
        """Lightning asks on every device, before the file is opened."""
        self._require_finite(trainer, checkpoint["state_dict"])

    def _require_finite(self, trainer: Trainer, state: Mapping[str, Tensor]) -> None:
        weights = {name: part for name, part in state.items() if part.is_floating_point()}
        if names := [name for name, part in weights.items() if not part.isfinite().all()]:
            self._end(
                trainer, f"{len(names)} of {len(weights)} weights are not finite, {names[0]}'s first,", moved=True
            )

    def _spike(self, loss: float) -> str | None:
        if len(self._losses) < LEAST:
            return None
        mean, deviation = statistics.fmean(self._losses), statistics.pstdev(self._losses)
        if loss <= mean + DEVIATIONS * deviation:
            return None
        return f"train/loss {loss:.4g}, mean of the last {len(self._losses)} {mean:.4g} ± {deviation:.2g}"

    def _stop(self, trainer: Trainer, what: str) -> NoReturn:
        self._end(trainer, what, moved=False)

    def _end(self, trainer: Trainer, what: str, *, moved: bool) -> NoReturn:
        """Writes down the step of the last batch; `moved` says whether the optimizer has made it."""
        step = trainer.global_step + (not moved)
        ids: dict[str, list[int]] = {name: part.tolist() for name, part in self._ids.items()}
        if trainer.is_global_zero:
            content = {"step": step, "epoch": trainer.current_epoch + 1, "what": what, **ids}
            write_atomically(self.directory / FILE_NAME, f"{json.dumps(content)}\n".encode())
        when = f"{'after' if moved else 'at'} optimizer step {step}, epoch {trainer.current_epoch + 1}"
        precision = "" if trainer.precision == "32-true" else ", or trainer.precision=32-true"
        raise ValueError(
            f"{what} {when}, with images {_listed(ids.get('image_ids', []))} "
            f"(all ids of its batch: {self.directory / FILE_NAME}). "
            f"{'' if moved else 'It moved nothing; '}{self._left()}. Try a smaller optimizer.lr{precision}"
        )

    def _left(self) -> str:
        found = sorted(path.name for path in (self.directory / "checkpoints").glob("*.ckpt"))
        return f"{' and '.join(found)} of before stays" if found else "no checkpoint has been written yet"


def _listed(items: list[Any]) -> str:
    more = f", … ({len(items)} in all)" if len(items) > _SHOWN else ""
    return ", ".join(map(str, items[:_SHOWN])) + more
