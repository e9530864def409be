"""Whether towers, heads and fusion learn at a like pace: what each part's gradient and step are."""

from typing import Any

import torch
from lightning.pytorch import Callback, Trainer
from torch import Tensor
from torch.nn.utils import get_total_norm
from torch.optim import Optimizer

from mmlit.training.module import RetrievalModule
from mmlit.training.monitor import logs_now
from mmlit.training.parts import by_part


class Balance(Callback):
    """Logs two numbers of each part (`mmlit.training.parts`) on the steps of `trainer.log_every_n_steps`.

    `train/gradient/PART` is the L2 norm of its gradient before clipping, of the whole global batch;
    `train/update/PART` how far the optimizer has moved it, ‖θ' − θ‖ / ‖θ‖. Between those steps nothing is computed; on
    them the weights are there twice for a moment.
    """

    told = "balance: gradients and updates of each part are in the log"

    def __init__(self) -> None:
        self._before: dict[str, list[Tensor]] = {}

    def on_before_optimizer_step(  # type: ignore[override]
        self, trainer: Trainer, pl_module: RetrievalModule, optimizer: Optimizer
    ) -> None:
        if not logs_now(trainer):
            return
        for part, members in by_part(pl_module.named_parameters()).items():
            gradients = [member.grad for member in members if member.grad is not None]
            pl_module.log(f"train/gradient/{part}", get_total_norm(gradients), rank_zero_only=True)
            self._before[part] = [member.detach().clone() for member in members]

    def on_train_batch_end(self, trainer: Trainer, pl_module: RetrievalModule, *_: Any) -> None:  # type: ignore[override]
        if not self._before:
            return
        now = by_part(pl_module.named_parameters())
        for part, before in self._before.items():
            moved = [new.detach() - old for new, old in zip(now[part], before, strict=True)]
            ratio = get_total_norm(moved) / get_total_norm(before).clamp_min(torch.finfo(torch.float32).tiny)
            pl_module.log(f"train/update/{part}", ratio, rank_zero_only=True)
        self._before = {}
