"""Learning curves for the record: training loss and the selection split's numbers against optimizer steps."""

import math
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor

#: points of a curve at most
MOST = 200
LOSS, SELECTION = "train/loss", ("val/rsum", "val/i2t_r1", "val/t2i_r1")


class Series:
    """One curve: each point is the mean of `every` values that follow one another.

    When the curve is full, neighbours become one, so that its length does not depend on a number of steps that nobody
    knows beforehand.
    """

    def __init__(self) -> None:
        self.every, self._count = 1, 0
        self._sum: float | Tensor = 0.0
        self._points: list[tuple[int, int, float]] = []
        self._last = (0, 0)

    def add(self, step: int, epoch: int, value: Tensor) -> None:
        """Adds a value; on a GPU it is waited for only where a point is due."""
        self._last, self._sum, self._count = (step, epoch), self._sum + value, self._count + 1
        if self._count == self.every:
            self._points.append(self._pending())
            self._sum, self._count = 0.0, 0
        if len(self._points) == MOST:
            pairs = zip(self._points[::2], self._points[1::2], strict=True)
            self._points = [(*later[:2], (one[2] + later[2]) / 2) for one, later in pairs]
            self.every *= 2

    def _pending(self) -> tuple[int, int, float]:
        return (*self._last, float(self._sum) / self._count)

    def curve(self) -> dict[str, list[Any]]:
        """Steps, epochs (from 1) and values as a record holds them; what is not finite is left out."""
        points = [*self._points, *([self._pending()] if self._count else [])]
        kept = [(step, epoch, float(f"{value:.6g}")) for step, epoch, value in points if math.isfinite(value)]
        steps, epochs, values = zip(*kept, strict=True) if kept else ((), (), ())
        return {"step": list(steps), "epoch": list(epochs), "value": list(values)}

    def state_dict(self) -> dict[str, Any]:
        """Plain containers."""
        return {
            "every": self.every,
            "count": self._count,
            "sum": float(self._sum),
            "points": [list(point) for point in self._points],
            "last": list(self._last),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Goes on from `state_dict`."""
        self.every, self._count, self._sum = state["every"], state["count"], state["sum"]
        self._points = [(step, epoch, value) for step, epoch, value in state["points"]]
        self._last = (state["last"][0], state["last"][1])


class Curves(Callback):
    """Collects `train/loss` of every optimizer step and the selection split's rsum and R@1; a resumed run goes on."""

    def __init__(self) -> None:
        self._series: dict[str, Series] = {}
        self._step = 0

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *_: Any) -> None:
        if trainer.global_step > self._step:  # else gradients are still being accumulated
            self._step = trainer.global_step
            self._add(trainer, LOSS)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if not trainer.sanity_checking:
            for name in SELECTION:
                self._add(trainer, name)

    def _add(self, trainer: Trainer, name: str) -> None:
        value = trainer.callback_metrics.get(name)
        if value is not None:
            series = self._series.setdefault(name, Series())
            series.add(trainer.global_step, trainer.current_epoch + 1, value.detach())

    def state_dict(self) -> dict[str, Any]:
        """Plain containers: a checkpoint is read with `weights_only=True`."""
        return {name: series.state_dict() for name, series in self._series.items()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        for name, state in state_dict.items():
            self._series.setdefault(name, Series()).load_state_dict(state)
        self._step = state_dict[LOSS]["last"][0] if LOSS in state_dict else 0

    def curves(self) -> dict[str, dict[str, list[Any]]]:
        """By name, each as `Series.curve`; only those with a point."""
        found = {name: series.curve() for name, series in self._series.items()}
        return {name: curve for name, curve in found.items() if curve["step"]}


def curves_of(trainer: Trainer) -> dict[str, dict[str, list[Any]]]:
    """What the trainer's `Curves` has collected."""
    found = [callback.curves() for callback in trainer.callbacks if isinstance(callback, Curves)]  # type: ignore[attr-defined]
    return found[0] if found else {}
