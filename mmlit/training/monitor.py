"""What is worth watching beside losses and recall: speed, gradients, temperature; and what runs, once."""

import time
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import nn
from torch.optim import Optimizer

from mmlit.layers.similarity import Temperature
from mmlit.training.module import RetrievalModule
from mmlit.training.trackers.tracked_run import Leaf


class Monitor(Callback):
    """Logs on the steps of `trainer.log_every_n_steps`; between them it reads a clock and nothing of the device.

    `train/pairs_per_second` and `train/waiting` (share of the time in which no batch was there yet, 0 … 1) are means
    since the last logged step, validation left out; `train/grad_norm` is the L2 norm before clipping, of the whole
    global batch; `train/temperature` and `train/bias` where the alignment learns one.

    Args:
        parameters: the run's options, given to each tracker once.
    """

    def __init__(self, *, parameters: dict[str, Leaf]) -> None:
        self.parameters = parameters
        self._told = False
        self._mark = self._waited = self._passed = 0.0
        self._pairs = self._step = 0

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Before a fit or a test."""
        for logger in trainer.loggers if not self._told else ():
            logger.log_hyperparams(self.parameters)
        self._told = True

    def on_train_start(self, trainer: Trainer, pl_module: RetrievalModule) -> None:  # type: ignore[override]
        self._pairs, self._step = pl_module.budget.pairs_seen, trainer.global_step  # not 0 where a killed run goes on

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._mark = time.perf_counter()

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._mark = time.perf_counter()

    def on_train_batch_start(self, *_: Any) -> None:
        self._waited += self._lap()

    def on_before_optimizer_step(self, trainer: Trainer, pl_module: LightningModule, optimizer: Optimizer) -> None:
        """Gradients are whole and not clipped yet."""
        if logs_now(trainer):
            gradients = [parameter.grad for parameter in pl_module.parameters() if parameter.grad is not None]
            pl_module.log("train/grad_norm", torch.nn.utils.get_total_norm(gradients), rank_zero_only=True)

    def on_train_batch_end(self, trainer: Trainer, pl_module: RetrievalModule, *_: Any) -> None:  # type: ignore[override]
        self._passed += self._lap()
        stepped, self._step = trainer.global_step > self._step, trainer.global_step
        if not stepped or not logs_now(trainer):  # several batches may make a step
            return
        seconds, pairs = self._passed + self._waited, pl_module.budget.pairs_seen
        found = {"pairs_per_second": (pairs - self._pairs) / seconds, "waiting": self._waited / seconds}
        found |= _learned_scalars(pl_module.alignment)
        pl_module.log_dict({f"train/{name}": value for name, value in found.items()}, rank_zero_only=True)
        self._pairs, self._waited, self._passed = pairs, 0.0, 0.0

    def _lap(self) -> float:
        now = time.perf_counter()
        passed, self._mark = now - self._mark, now
        return passed


def _learned_scalars(alignment: nn.Module) -> dict[str, Any]:
    """Temperature and bias of an alignment, if they are parameters."""
    found: dict[str, Any] = {}
    temperature, bias = getattr(alignment, "temperature", None), getattr(alignment, "bias", None)
    if isinstance(temperature, Temperature) and isinstance(temperature.log_scale, nn.Parameter):
        found["temperature"] = temperature.log_scale.detach().neg().exp()
    if isinstance(bias, nn.Parameter) and bias.numel() == 1:
        found["bias"] = bias.detach().clone().squeeze()
    return found


def logs_now(trainer: Trainer) -> bool:
    """As Lightning's own callbacks ask."""
    return bool(trainer._logger_connector.should_update_logs)
