"""What the comparison shows, in sentences: which differences hold, as checkpoints and as methods."""

import math
from collections.abc import Sequence

from mmlit.results.comparison import DIFFERENCES, Comparison, Row
from mmlit.results.differences import LEAST_SEEDS, LEVEL, Difference

TITLES = {
    "i2t_r1": "i2t R@1",
    "i2t_r5": "i2t R@5",
    "i2t_r10": "i2t R@10",
    "i2t_median_rank": "i2t median rank",
    "t2i_r1": "t2i R@1",
    "t2i_r5": "t2i R@5",
    "t2i_r10": "t2i R@10",
    "t2i_median_rank": "t2i median rank",
    "rsum": "rsum",
}
"""How a reader sees a metric's name."""

_RANGES = {"rsum": 600, "i2t_r1": 100, "t2i_r1": 100}

CHECKPOINTS, METHODS = "(a) These checkpoints", "(b) The methods"

READABLE = 8
"""How many rows a sentence names and a table sets against one another; the other tables have them all."""

Named = Sequence[tuple[str, Difference]]
"""Labels and their differences to the baseline on one metric."""


def findings(comparison: Comparison) -> list[str]:
    """Say in words which differences hold.

    Returns:
        One sentence per statement, (a) and (b), and metric of `DIFFERENCES`, one on all pairs of rows, then what the
        statements mean and where there are too few seeds for (b).
    """
    others = [row for row in comparison.rows if row.label != comparison.baseline]
    if not others:
        return [f"Only one row, {comparison.baseline}: there is nothing to compare it with."]
    sentences = []
    for title, say in ((CHECKPOINTS, _as_checkpoints), (METHODS, _as_methods)):
        for metric in DIFFERENCES:
            paired = [(row.label, row.differences[metric]) for row in others if row.differences is not None]
            if paired:
                sentences.append(f"{title}, {TITLES[metric]} against {comparison.baseline}: {say(paired, metric)}.")
    unpaired = [row.label for row in others if row.differences is None]
    if unpaired:
        sentences.append(f"Not paired with {comparison.baseline}, which ranked other queries: {listed(unpaired)}.")
    return sentences + (_meaning(comparison) if comparison.pairs.families().checkpoints else [])


def least(difference: Difference, metric: str) -> str:
    """The difference beyond which (b) would hold, rounded up; `none` if it is more than the metric's whole range."""
    if difference.least is None:
        return ""
    return "none" if difference.least > _RANGES[metric] else f"{math.ceil(10 * difference.least - 1e-9) / 10:.1f}"


def _as_checkpoints(rows: Named, _: str) -> str:
    hold = [own for own in rows if own[1].checkpoints_hold]
    lack = [own for own in rows if not own[1].checkpoints_hold]
    return "; ".join([*_ending(hold, "holds", "hold"), *_ending(lack, "does not hold", "do not hold")])


def _as_methods(rows: Named, metric: str) -> str:
    hold = [own for own in rows if own[1].methods_hold]
    lack = [own for own in rows if own[1].methods_hold is False]
    unknown = [own for own in rows if own[1].methods_hold is None]
    needs = [_need(least(difference, metric)) for _, difference in lack]
    parts = [
        *_ending(hold, "holds", "hold"),
        *_ending(lack, "is not shown", "are not shown", needs),
        *_ending(unknown, "cannot be judged, seeds are too few", "cannot be judged, seeds are too few"),
    ]
    return "; ".join(parts)


def _need(wanted: str) -> str:
    return ", no difference would do" if wanted == "none" else f", would need {wanted}"


def _ending(rows: Named, one: str, many: str, more: Sequence[str] | None = None) -> list[str]:
    more = more or [""] * len(rows)
    names = [f"{label} ({difference.value:+.1f}{own})" for (label, difference), own in zip(rows, more, strict=True)]
    return [f"{listed(names)} {one if len(names) == 1 else many}"] if names else []


def _meaning(comparison: Comparison) -> list[str]:
    pairs = comparison.pairs.families()
    judged = f", of the {pairs.methods:,} with enough seeds" if pairs.methods < pairs.checkpoints else ""
    elsewhere = "; --baseline ROW shows another row's" if len(comparison.rows) > READABLE else ""
    sentences = [
        f"All {pairs.checkpoints:,} pairs of rows, rsum: {pairs.checkpoints_hold:,} hold as checkpoints (a), "
        f"{pairs.methods_hold:,} as methods (b){judged}{elsewhere}.",
        "A difference holds if its two-sided p-value, corrected after Holm for all pairs of rows, is at most "
        f"{LEVEL:g}; the tables show the corrected p. What does not hold is not thereby equal.",
        "(a) asks whether these very checkpoints differ on images like these: each query is paired with itself, a "
        "row's seeds are averaged, whole images are drawn anew with their texts. It says nothing of another training "
        "run.",
        "(b) asks whether the methods differ if training is repeated with other seeds: the spread between a row's "
        "seeds is added, and the fewer seeds there are, the more a difference needs: three need much more than five.",
    ]
    few = [f"{row.label} ({len(row.seeds)})" for row in comparison.rows if _has_too_few_seeds(row)]
    if few:
        sentences.append(
            f"Too few seeds for (b), which needs {LEAST_SEEDS}: {listed(few)}. How far another seed would move such a "
            "row is unknown."
        )
    return sentences


def _has_too_few_seeds(row: Row) -> bool:
    """One run of what was not trained here is all there is."""
    return len(row.seeds) < LEAST_SEEDS and (row.pairs_seen[1] > 0 or len(row.seeds) > 1)


def listed(parts: Sequence[str], most: int = READABLE) -> str:
    """A, B and C; of more than `most` the first ones, and how many others."""
    if len(parts) > most:
        parts = [*parts[: most - 1], f"{len(parts) - most + 1} others"]
    *head, last = parts
    return f"{', '.join(head)} and {last}" if head else last
