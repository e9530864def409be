"""The vocabulary of this room: what a comparison consists of."""

from typing import NamedTuple

from mmlit.results.differences import Difference, Pairwise
from mmlit.results.rows import Group

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


class Spread(NamedTuple):
    """Mean over `n` seeds and their standard deviation (n - 1 in the denominator), None for one seed."""

    mean: float
    sd: float | None
    n: int


class Row(NamedTuple):
    """Runs that differ in their seed only.

    `metrics` and `differences` are keyed by names of `METRICS` and `DIFFERENCES`. `differences` is None for
    the baseline and for a row with another gallery, whose queries have no partner there. Seconds are of one
    run, `peak_memory` is in MiB, `pairs_seen` the smallest and the largest over the seeds. `trials` is how many
    settings were tried on the selection split before this one was chosen, None for defaults.
    """

    label: str
    seeds: tuple[int, ...]
    metrics: dict[str, Spread]
    differences: dict[str, Difference] | None
    trials: int | None
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
    """Rows (the baseline first, then by falling rsum), its label, what R@K refers to, and what to mind.

    `pairs` holds the differences in rsum between all rows, in their order, `groups` their runs.
    """

    rows: tuple[Row, ...]
    baseline: str
    subject: str
    notes: tuple[str, ...]
    pairs: Pairwise
    groups: tuple[Group, ...] = ()
