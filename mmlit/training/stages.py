"""Stages of a thaw, as they are written in yaml, and which parameters of a tower each of them means."""

import math
from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from typing import NamedTuple

from torch import nn

from mmlit.contracts import Encoder
from mmlit.training.depth import layers_of


class Stage(NamedTuple):
    """What thaws when an epoch, counted from 1, begins: modules of a name, or the last layers."""

    epoch: int
    layers: str | None
    last: int | None

    def __str__(self) -> str:
        return f"{self.layers or f'last {self.last}'} from epoch {self.epoch} on"


def stage_of(given: Mapping[str, int | str], *, option: str) -> Stage:
    """What yaml says as a `Stage`.

    Raises:
        ValueError: if it has another form, naming `option`.
    """
    epoch, layers, last = given.get("epoch"), given.get("layers"), given.get("last")
    form = sorted(given) in (["epoch", "layers"], ["epoch", "last"])
    numbers = [number for number in (epoch, last) if number is not None]
    if not form or not all(isinstance(number, int) and number >= 1 for number in numbers):
        raise ValueError(
            f"{option}: a stage is {{epoch: E, layers: PATTERN}} or {{epoch: E, last: N}} with E, N >= 1, got {given}"
        )
    return Stage(int(epoch or 0), None if layers is None else str(layers), None if last is None else int(last))


def begins_of(encoder: Encoder, stages: Sequence[Stage], *, option: str) -> dict[str, float]:
    """For each trained parameter of a tower the epoch in which it thaws, infinite for what never does.

    Raises:
        ValueError: if a stage thaws nothing, naming `option`.
    """
    found = {name: math.inf for name, parameter in encoder.named_parameters() if parameter.requires_grad}
    for stage in sorted(stages, key=lambda stage: stage.epoch):
        named = [name for name in _named(encoder, stage, option=option) if name in found]
        new = [name for name in named if found[name] == math.inf]
        if not new:
            why = "has thawed before" if named else f"is no trained part of it; its parts: {_outline(encoder)}"
            raise ValueError(f"{option}: {stage}: what it names {why}")
        found |= dict.fromkeys(new, float(stage.epoch))
    return found


def _named(encoder: Encoder, stage: Stage, *, option: str) -> list[str]:
    """Names of the parameters that a stage thaws."""
    if stage.last is not None:
        layers = layers_of(encoder)
        if stage.last > len(layers):
            raise ValueError(f"{option}: {stage}: the tower has {len(layers)} layers")
        return [name for layer in layers[-stage.last :] for name in layer]
    return [name for name, _ in encoder.named_parameters() if _matches(name, str(stage.layers))]


def _matches(name: str, pattern: str) -> bool:
    """Whether the pattern is for a parameter or for one of the modules that it lies in."""
    parts = name.split(".")
    paths = (".".join(parts[:end]) for end in range(1, len(parts) + 1))
    return any(fnmatchcase(path, pattern) or fnmatchcase(path, f"*.{pattern}") for path in paths)


def _outline(encoder: nn.Module) -> str:
    """Names of the modules that a tower is made of, two levels below a wrapper."""
    while len(children := [*encoder.named_children()]) == 1:
        ((_, encoder),) = children
    return ", ".join(
        name + (f" ({', '.join(below)})" if (below := [key for key, _ in child.named_children()]) else "")
        for name, child in children
    )
