"""The vocabulary of this room: what a comparison consists of."""

from typing import NamedTuple

METRICS = (
    "i2t_r1",
    "i2t_r5",
    "i2t_r10",
    "i2t_median_rank",
    "t2i_r1",
    "t2i_r5",
    "t2i_r10",
    "t2i_median_rank",
    "rsum",
)
DIFFERENCES = ("rsum", "i2t_r1", "t2i_r1")
"""The metrics whose difference to the baseline is reported."""

ERRORS = 2.0
"""A difference holds if it exceeds this many of its standard errors."""


class Spread(NamedTuple):
    """Mean over `n` seeds and their standard deviation (n - 1 in the denominator), None for one seed."""

    mean: float
    sd: float | None
    n: int


class Difference(NamedTuple):
    """A row's mean minus the baseline's, in points, with two standard errors.

    `query_error` is that of drawing other images (texts stay with theirs) for these very models;
    `combined_error` adds the spread of the seeds, and is None if either row has only one.
    """

    value: float
    query_error: float
    combined_error: float | None

    @property
    def verdict(self) -> str:
        """`holds`, `inside` the spread, or `unknown`: beyond the queries' error, with no spread of seeds."""
        error = self.query_error if self.combined_error is None else self.combined_error
        if not abs(self.value) > ERRORS * error:
            return "inside"
        return "unknown" if self.combined_error is None else "holds"


class Row(NamedTuple):
    """Runs that differ in their seed only.

    `metrics` and `differences` are keyed by names of `METRICS` and `DIFFERENCES`. `differences` is None for
    the baseline and for a row with another gallery, whose queries have no partner there. Seconds are of one
    run, `peak_memory` is in MiB, `pairs_seen` the smallest and the largest over the seeds.
    """

    label: str
    seeds: tuple[int, ...]
    metrics: dict[str, Spread]
    differences: dict[str, Difference] | None
    scored: str
    split: str
    gallery: tuple[int, int]
    parameters: int
    trainable: int
    pairs_seen: tuple[int, int]
    fit_seconds: Spread
    evaluation_seconds: Spread
    peak_memory: Spread


class Comparison(NamedTuple):
    """Rows (the baseline first, then by falling rsum), its label, what R@K refers to, and what to mind."""

    rows: tuple[Row, ...]
    baseline: str
    subject: str
    notes: tuple[str, ...]
