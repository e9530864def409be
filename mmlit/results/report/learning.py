"""Learning curves of a row: the mean over its seeds, and their spread."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from mmlit.results.rows import Group
from mmlit.results.schema import Curve

Floats = NDArray[np.float64]

_POINTS = 120
"""Of a drawn curve at most: more make the page larger, not clearer."""


class Band(NamedTuple):
    """Mean and standard deviation over seeds (None for one seed) at the steps that all of them reached; each (P,)."""

    steps: Floats
    mean: Floats
    sd: Floats | None


class Learning(NamedTuple):
    """A row's curves by name (`train/loss`, `val/rsum`, …)."""

    label: str
    measures: dict[str, Band]


def learning(label: str, group: Group) -> Learning:
    """Gather a row's curves; a measure counts if every seed has it."""
    curves = [record.curves for record in group.records]
    names = [name for name in curves[0] if all(name in each for each in curves)]
    bands = {name: band for name in names if (band := _band([each[name] for each in curves])) is not None}
    return Learning(label, bands)


def _band(curves: Sequence[Curve]) -> Band | None:
    """Values between two points lie on a line; seeds of one row stop at different steps with early stopping."""
    if not all(curve.step for curve in curves):
        return None
    first = max(curve.step[0] for curve in curves)
    last = min(curve.step[-1] for curve in curves)
    steps = np.array(sorted({step for curve in curves for step in curve.step if first <= step <= last}), np.float64)
    if not steps.size:
        return None
    steps = steps[np.unique(np.linspace(0, steps.size - 1, min(steps.size, _POINTS)).round().astype(int))]
    values = np.stack([np.interp(steps, curve.step, curve.value) for curve in curves])
    return Band(steps, values.mean(axis=0), values.std(axis=0, ddof=1) if len(curves) > 1 else None)
