"""The moving average of the weights: what is validated, kept and reported instead of the last step's."""

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import WeightAveraging
from torch import Tensor
from torch.optim.swa_utils import get_ema_multi_avg_fn

log = logging.getLogger(__name__)
Averages = list[Tensor] | tuple[Tensor, ...]
#: buffers that are averaged, of batch norms; of all others the newest is right, such as a queue's keys beside its ids
_STATISTICS = ("running_mean", "running_var")


class AveragedWeights(WeightAveraging):
    """Lightning's callback: average ← decay · average + (1 − decay) · weights, behind every optimizer step.

    It begins with the weights behind the first step. Statistics of batch norms are averaged with the weights that they
    belong to. Checkpoints hold the average as their weights, and beside it what training goes on with.

    Args:
        decay: in [0, 1). The average looks back about 1 / (1 − decay) steps, of which a run must have several times
            as many.

    Raises:
        ValueError: if `decay` is out of range.

    Source: Polyak and Juditsky 1992; of a network's weights at every step Tarvainen and Valpola 2017 (mean teacher),
    Sec. 2, arXiv 1703.01780.
    Differs from Lightning's `EMAWeightAveraging`: the average is in place during all of a validation, since galleries
    are scored when an epoch of it has already ended; it lies on the device of the weights, and moves in one call;
    other buffers, such as positions and a queue's keys and ids, are taken over and not averaged.
    """

    def __init__(self, *, decay: float) -> None:
        if not 0 <= decay < 1:
            raise ValueError(f"callbacks.ema.decay must lie in [0, 1), got {decay}")
        super().__init__(use_buffers=True, multi_avg_fn=_moving(decay))
        self.decay = decay

    @property
    def told(self) -> str:
        """For the announcement."""
        return f"weights: their moving average is validated and kept, decay {self.decay:g}"

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """The module is on the CPU by now, and will not stay there."""
        self._device = trainer.strategy.root_device
        super().setup(trainer, pl_module, stage)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Tells of an average that will lag behind."""
        steps, back = int(trainer.estimated_stepping_batches), 1 / (1 - self.decay)
        if 2 * back > steps and trainer.is_global_zero:
            log.warning(
                "callbacks.ema.decay=%g averages about %d steps, and the whole run has %d: what is validated lags "
                "behind; lower it", self.decay, round(back), steps,
            )  # fmt: skip

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        super().on_train_batch_end(trainer, pl_module, outputs, batch, batch_idx)
        if self._average_model is not None:  # there is one as soon as training begins
            for (name, own), newest in zip(
                self._average_model.module.named_buffers(), pl_module.buffers(), strict=True
            ):
                if name.rpartition(".")[2] not in _STATISTICS:
                    own.copy_(newest)

    def on_validation_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """See `on_validation_start`."""

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """See `on_validation_end`."""

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        super().on_validation_epoch_start(trainer, pl_module)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        super().on_validation_epoch_end(trainer, pl_module)


@contextmanager
def validated_weights(trainer: Trainer, module: LightningModule) -> Iterator[None]:
    """Within, the module has the weights that are validated: their average, where there is one."""
    averaging = [each for each in trainer.callbacks if isinstance(each, AveragedWeights)]  # type: ignore[attr-defined]
    for each in averaging:
        each.on_validation_start(trainer, module)
    yield
    for each in averaging:
        each.on_validation_end(trainer, module)


def _moving(decay: float) -> Callable[[Averages, Averages, Tensor | int], None]:
    """Lightning asks for tensors of one type at a time."""
    average = get_ema_multi_avg_fn(decay)

    def move(averages: Averages, current: Averages, num_averaged: Tensor | int) -> None:
        if averages[0].is_floating_point():
            average(averages, current, num_averaged)
            return
        for own, other in zip(averages, current, strict=True):
            own.copy_(other)

    return move
