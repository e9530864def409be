"""What each option does by itself, where the runs form a grid."""

import itertools
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from mmlit.results.comparison import Comparison
from mmlit.results.labels import ABSENT, FIRST_AXIS
from mmlit.results.rows import Group
from mmlit.results.settings import NOT_COMPARED, NOT_COMPARED_ANYWHERE

_VALUES = 16
"""An option with more values than this was drawn by a search, and is no axis of a grid."""


class Value(NamedTuple):
    """One value of an option, and the mean rsum over the combinations of the others."""

    name: str
    mean: float


class Effect(NamedTuple):
    """One option. `blocks` holds, per combination of the others that has every value, the rsum of each value."""

    option: str
    values: tuple[Value, ...]
    blocks: tuple[tuple[float, ...], ...]

    @property
    def range(self) -> float:
        """The best value's mean minus the worst's."""
        means = [value.mean for value in self.values]
        return max(means) - min(means)


def effects(comparison: Comparison) -> list[Effect]:
    """The effect of every option that varies, over those combinations of the other options that have all its values.

    Marginal means over a grid with holes would compare unlike rows. Nothing if fewer than two options vary.

    Returns:
        One per option with at least one whole block, the strongest first.
    """
    points = varied(comparison.groups)
    options = list(points[0]) if points else []
    if len(options) < 2:
        return []
    quality = [row.metrics["rsum"].mean for row in comparison.rows]
    found = [_effect(option, points, quality) for option in options]
    return sorted((effect for effect in found if effect), key=lambda effect: -effect.range)


def varied(groups: Sequence[Group]) -> list[dict[str, str]]:
    """For each row its values of the options that somebody set and that differ between rows."""
    keys = sorted(
        {key for group in groups for key in _typed(group)} | {FIRST_AXIS}, key=lambda key: (key != FIRST_AXIS, key)
    )
    points = [{key: _value(group, key) for key in keys} for group in groups]
    differing = [key for key in keys if len({point[key] for point in points}) > 1]
    return [{key: point[key] for key in differing} for point in points]


def _typed(group: Group) -> list[str]:
    keys = [override.lstrip("+~").partition("=")[0].partition("@")[0] for override in group.records[0].overrides]
    return [
        key
        for key in keys
        if key.partition(".")[0] not in NOT_COMPARED and key.rpartition(".")[2] not in NOT_COMPARED_ANYWHERE
    ]


def _value(group: Group, key: str) -> str:
    identity = group.identity
    return identity.choices.get(key, identity.settings.get(key, ABSENT))


def _effect(option: str, points: Sequence[Mapping[str, str]], quality: Sequence[float]) -> Effect | None:
    names = sorted({point[option] for point in points}, key=_order)
    if len(names) > _VALUES:
        return None
    blocks: dict[tuple[str, ...], dict[str, list[float]]] = {}
    for point, value in zip(points, quality, strict=True):
        others = tuple(own for key, own in point.items() if key != option)
        blocks.setdefault(others, {}).setdefault(point[option], []).append(value)
    whole = [block for block in blocks.values() if len(block) == len(names)]
    if not whole:
        return None
    # Rows of one point differ in what nobody typed, such as another split: their mean stands for it.
    table = tuple(tuple(sum(block[name]) / len(block[name]) for name in names) for block in whole)
    means = [sum(column) / len(table) for column in zip(*table, strict=True)]
    return Effect(option, tuple(itertools.starmap(Value, zip(names, means, strict=True))), table)


def _order(value: str) -> tuple[bool, float, str]:
    """Numbers by size, then words by letter."""
    try:
        return (False, float(value), value)
    except ValueError:
        return (True, 0.0, value)
