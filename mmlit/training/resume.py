"""Where a killed run goes on: on the very next batch, with the random numbers it would have had."""

import random
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning.pytorch import Callback, LightningModule, Trainer

#: below a run's folder; it is there while the run is not finished
FILE_NAME = "checkpoints/resume.ckpt"
#: writing takes at most this share of the time, however large the model
_SHARE = 0.05
#: optimizer steps between two looks at the clock where several devices must agree on it
_TOGETHER = 10


class ResumePoint(Callback):
    """Writes everything that training consists of, again and again: weights, optimizer, loops, random states.

    A point is never taken at the last batch of an epoch, where validation and the next epoch's order are still to come,
    but a batch later; and one when training is over, so that a kill during the final evaluation costs no training.

    Args:
        path: the file; replaced as a whole each time.
        minutes: between two points, > 0; more where writing one takes long.

    Raises:
        ValueError: if `minutes` is not > 0.
    """

    def __init__(self, *, path: Path, minutes: float) -> None:
        if not minutes > 0:
            raise ValueError(f"resume_minutes must be > 0, got {minutes}")
        self.path, self.minutes = path, minutes
        self._last, self._pause = time.monotonic(), 60 * minutes
        self._random: list[dict[str, Any]] | None = None
        self._loader: dict[str, Any] | None = None
        self._ended = False

    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Where the loader stood: Lightning keeps it, but does not tell a loader that it made before it read this."""
        (self._loader,) = checkpoint["loops"]["fit_loop"]["state_dict"]["combined_loader"]
        # Training that early stopping had ended must not begin again.
        trainer.should_stop = checkpoint["callbacks"][self.state_key]["ended"]

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._last = time.monotonic()
        if self._loader is not None and trainer.train_dataloader is not None:
            trainer.train_dataloader.load_state_dict(self._loader)
            self._loader = None

    def on_train_batch_start(self, trainer: Trainer, *_: Any) -> None:
        """After a resume: random states as they were, now that all that Lightning draws at a start is drawn."""
        if self._random is not None:
            _set_random_state(self._random[trainer.global_rank])
            self._random = None

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        accumulating = (batch_idx + 1) % trainer.accumulate_grad_batches  # gradients so far are in no checkpoint
        if trainer.is_last_batch or accumulating or (trainer.world_size > 1 and trainer.global_step % _TOGETHER):
            return
        if trainer.strategy.broadcast(time.monotonic() - self._last > self._pause):
            self._write(trainer)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if not trainer.interrupted:
            self._ended = True
            self._write(trainer)

    def state_dict(self) -> dict[str, Any]:
        """Random states of all devices' processes."""
        states = [_random_state()]
        if torch.distributed.is_available() and torch.distributed.is_initialized():
            gathered: list[Any] = [None] * torch.distributed.get_world_size()
            torch.distributed.all_gather_object(gathered, states[0])
            states = gathered
        return {"random": states, "ended": self._ended}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._random, self._ended = state_dict["random"], state_dict["ended"]

    def _write(self, trainer: Trainer) -> None:
        start = time.monotonic()
        trainer.save_checkpoint(self.path)
        self._last = time.monotonic()
        self._pause = max(60 * self.minutes, (self._last - start) / _SHARE)


def _random_state() -> dict[str, Any]:
    """Of Python, NumPy, torch and the GPU in use, as plain containers."""
    kind, keys, *rest = np.random.get_state(legacy=True)
    return {
        "python": random.getstate(),
        "numpy": (kind, np.asarray(keys).tolist(), *rest),
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state() if torch.cuda.is_available() else None,
    }


def _set_random_state(state: dict[str, Any]) -> None:
    version, words, gauss = state["python"]
    random.setstate((version, tuple(words), gauss))
    kind, keys, *rest = state["numpy"]
    np.random.set_state((kind, np.array(keys, np.uint32), *rest))
    torch.set_rng_state(state["torch"])
    if state["cuda"] is not None:
        torch.cuda.set_rng_state(state["cuda"])
