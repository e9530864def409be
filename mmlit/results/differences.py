"""What is said of a pair of rows, and of all pairs: (a) as checkpoints and (b) as methods (see `significance.py`)."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

LEVEL = 0.05
"""A difference holds if its corrected p-value is at most this."""

LEAST_SEEDS = 3
"""With two, a spread says so little of the next that (b) would be wrong twice as often as it claims."""


class Difference(NamedTuple):
    """One row's mean minus another's, in points; p-values are two-sided and corrected over all pairs of rows.

    Attributes:
        value: the difference.
        image_error: standard error of drawing other images (texts stay with theirs) for these checkpoints.
        checkpoints: p of statement (a).
        total_error: standard error of other images and other seeds; with what follows None for too few seeds.
        methods: p of statement (b).
        least: the difference that (b) would need, with this spread; None where it holds.
    """

    value: float
    image_error: float
    checkpoints: float
    total_error: float | None
    methods: float | None
    least: float | None

    @property
    def checkpoints_hold(self) -> bool:
        """Whether these checkpoints differ."""
        return self.checkpoints <= LEVEL

    @property
    def methods_hold(self) -> bool | None:
        """Whether the methods differ; None where seeds are too few to say."""
        return None if self.methods is None else self.methods <= LEVEL


class Families(NamedTuple):
    """How many pairs of rows there are to be corrected for in (a) and (b), and how many of them hold."""

    checkpoints: int
    methods: int
    checkpoints_hold: int
    methods_hold: int


class Pairwise(NamedTuple):
    """All pairs of rows on one metric: (R,R), row minus column; NaN where there is no such statement.

    `value`, the errors and `needed` are in points; the p-values are two-sided and corrected over all pairs. `needed` is
    the difference beyond which (b) would hold for a pair that does not.
    """

    value: Floats
    image_error: Floats
    checkpoints: Floats
    total_error: Floats
    methods: Floats
    needed: Floats

    def taken(self, order: Sequence[int]) -> "Pairwise":
        """The same pairs with the rows in another order."""
        return Pairwise(*(table[np.ix_(order, order)] for table in self))

    def against(self, reference: int) -> list[Difference | None]:
        """Each row minus the row `reference`; None where the two did not rank the same queries."""
        value, image_error, checkpoints, total_error, methods, needed = (table[:, reference] for table in self)
        # Where (a) is what fails, more than the difference itself is all that can be said.
        least = np.where(methods <= LEVEL, np.nan, np.maximum(needed, np.abs(value)))
        single = (
            (float(v), float(e), float(p), _known(t), _known(m), _known(x))
            for v, e, p, t, m, x in zip(value, image_error, checkpoints, total_error, methods, least, strict=True)
        )
        return [None if np.isnan(cells[2]) else Difference(*cells) for cells in single]

    def families(self) -> Families:
        """Count the pairs that are tested, and those that hold."""
        above = np.triu_indices(len(self.value), 1)
        checkpoints, methods = self.checkpoints[above], self.methods[above]
        counted = ((~np.isnan(table)).sum() for table in (checkpoints, methods))
        hold = ((table <= LEVEL).sum() for table in (checkpoints, methods))
        return Families(*map(int, (*counted, *hold)))


def _known(number: float) -> float | None:
    return None if np.isnan(number) else float(number)
