"""Slows the tower that runs ahead, so that the other one learns, too."""

import math
from typing import Any

import torch
from lightning.pytorch import Callback, Trainer
from torch import Tensor
from torch.optim import Optimizer

from mmlit.training.module import RetrievalModule
from mmlit.training.monitor import logs_now

TOWERS = ("image_encoder", "text_encoder")
#: of the moving averages of both towers' parts in the loss's decrease
_SMOOTH = 0.9
#: the tower ahead is never slower than that: it shall wait, not stand
_SLOWEST = 0.1


class Modulation(Callback):
    """Multiplies the learning rate of one tower, step by step, with a number in [0.1, 1].

    A tower's part in the progress is what its step would take off the loss to first order, −⟨gradient, θ' − θ⟩, at
    `optimizer.lr`: the rates that `groups` gives to parts and layers are divided out, for they are wanted. It is a
    moving average that begins with the tower's first step. With ρ = the larger part / the smaller one, the tower ahead
    learns with the factor 1 − tanh(strength · (ρ − 1)), but 0.1 at least, the other one with 1. A tower of which few
    layers train does less than one that trains as a whole. `train/pace/TOWER` is the factor in use. The two moving
    averages are saved, so that a resumed run goes on with them.

    Args:
        strength: > 0; 0.1 takes a tenth off where one tower does twice as much as the other.

    Raises:
        ValueError: if `strength` is out of range.

    Source: Peng et al. 2022, "Balanced multimodal learning via on-the-fly gradient modulation", Sec. 3.2,
    arXiv 2203.15332.
    Differs: there, ρ compares how sure either modality alone is of the label; a tower of a dual encoder decides nothing
    alone, so parts in the loss's decrease stand for it. The factor is continuous at ρ = 1. It multiplies the learning
    rate, since Adam's step does not depend on the size of gradients. No noise is added to gradients (the paper's
    generalization enhancement).
    """

    def __init__(self, *, strength: float) -> None:
        if not strength > 0:
            raise ValueError(f"callbacks.modulation.strength must be > 0, got {strength}")
        self.strength = strength
        self._parts = dict.fromkeys(TOWERS, 0.0)
        self._pace = dict.fromkeys(TOWERS, 1.0)
        self._before: list[list[Tensor]] = []
        self._rates: list[float] = []

    @property
    def told(self) -> str:
        """For the announcement."""
        return f"modulation: the tower that runs ahead is slowed, strength {self.strength:g}"

    def prepare(self, module: RetrievalModule) -> None:
        """Before training.

        Raises:
            ValueError: if a tower does not train, or the towers share groups of parameters.
        """
        for tower in TOWERS:
            if not any(parameter.requires_grad for parameter in module.get_submodule(tower).parameters()):
                raise ValueError(f"callbacks=modulation balances two towers that train, but {tower} is frozen")
        if module.groups is None:
            raise ValueError("callbacks=modulation needs a learning rate for each tower: add groups=by_part")

    def on_train_start(self, trainer: Trainer, pl_module: RetrievalModule) -> None:  # type: ignore[override]
        for optimizer in trainer.strategy.optimizers:
            optimizer.register_step_pre_hook(self._slow)
            optimizer.register_step_post_hook(self._look_back)

    def on_train_batch_end(self, trainer: Trainer, pl_module: RetrievalModule, *_: Any) -> None:  # type: ignore[override]
        if logs_now(trainer):
            pl_module.log_dict({f"train/pace/{tower}": pace for tower, pace in self._pace.items()}, rank_zero_only=True)

    def state_dict(self) -> dict[str, Any]:
        """Plain containers."""
        return {"parts": dict(self._parts)}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._parts = dict(state_dict["parts"])

    def _slow(self, optimizer: Optimizer, *_: Any) -> None:
        """Behind this, gradients are computed and the step is made."""
        self._pace = paces(self._parts, strength=self.strength)
        groups = optimizer.param_groups
        self._before = [[part.detach().clone() for part in each["params"] if _tower(each)] for each in groups]
        self._rates = [group["lr"] for group in groups]
        for group in groups:
            group["lr"] *= self._pace.get(_tower(group), 1.0)

    def _look_back(self, optimizer: Optimizer, *_: Any) -> None:
        taken: dict[str, Tensor | float] = dict.fromkeys(TOWERS, 0.0)
        for group, rate, before in zip(optimizer.param_groups, self._rates, self._before, strict=True):
            group["lr"] = rate
            for new, old in zip(group["params"], before, strict=False):  # none is kept of what is in no tower
                if new.grad is not None:
                    own = (old - new.detach()).mul(new.grad).sum(dtype=torch.float64)
                    taken[_tower(group)] += own / group["factor"]
        for tower, decrease in taken.items():
            part = max(0.0, float(decrease)) / self._pace[tower]
            known = self._parts[tower]  # 0 where the tower has not moved yet: no start from 0, which would look slow
            self._parts[tower] = _SMOOTH * known + (1 - _SMOOTH) * part if known else part
        self._before = []


def _tower(group: dict[str, Any]) -> str:
    """The tower that a group of parameters is of; empty if it is of none."""
    part = str(group["name"]).partition(".")[0]
    return part if part in TOWERS else ""


def paces(parts: dict[str, float], *, strength: float) -> dict[str, float]:
    """The factor of each tower, from its part in the progress; 1 for both while one has none."""
    ahead, behind = sorted(parts, key=lambda tower: -parts[tower])
    if not parts[behind] > 0:
        return dict.fromkeys(parts, 1.0)
    factor = 1 - math.tanh(strength * (parts[ahead] / parts[behind] - 1))
    return {ahead: max(factor, _SLOWEST), behind: 1.0}
