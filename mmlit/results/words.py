"""What the comparison shows, in sentences: which differences hold and which lie inside the spread."""

from collections.abc import Iterable

from mmlit.results.comparison import DIFFERENCES, ERRORS, Comparison, Row

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


_UNKNOWN = "the error over images, but the spread between seeds is unknown"


def findings(comparison: Comparison) -> list[str]:
    """Say in words which differences to the baseline hold.

    Returns:
        One sentence per metric of `DIFFERENCES`, then what "hold" means and how far to trust it.
    """
    others = [row for row in comparison.rows if row.label != comparison.baseline]
    if not others:
        return [f"Only one row, {comparison.baseline}: there is nothing to compare it with."]
    paired = [row for row in others if row.differences is not None]
    sentences = [_sentence(metric, comparison.baseline, paired) for metric in DIFFERENCES if paired]
    unpaired = [row.label for row in others if row.differences is None]
    if unpaired:
        sentences.append(f"Not paired with {comparison.baseline}, which ranked other queries: {_list(unpaired)}.")
    return sentences + (_meaning(comparison) if paired else [])


def _sentence(metric: str, baseline: str, rows: list[Row]) -> str:
    values: dict[str, list[str]] = {}
    for row in rows:
        difference = (row.differences or {})[metric]
        values.setdefault(difference.verdict, []).append(f"{row.label} ({difference.value:+.1f})")
    endings = (
        ("holds", "holds", "hold"),
        ("inside", "lies inside the spread", "lie inside the spread"),
        ("unknown", f"exceeds {_UNKNOWN}", f"exceed {_UNKNOWN}"),
    )
    parts = [
        f"{_list(values[verdict])} {one if len(values[verdict]) == 1 else many}"
        for verdict, one, many in endings
        if verdict in values
    ]
    return f"{TITLES[metric]} against {baseline}: {'; '.join(parts)}."


def _meaning(comparison: Comparison) -> list[str]:
    fewest = min(len(row.seeds) for row in comparison.rows)
    sentences = [
        f"A difference holds if it exceeds {ERRORS:g} times its combined standard error (±): that of other "
        "images, every query paired with itself and an image's texts kept together, and of other seeds. "
        "In brackets the part of the images.",
    ]
    single = [row.label for row in comparison.rows if len(row.seeds) == 1]
    if single:
        sentences.append(
            f"One seed only for {_list(single)}: the spread between seeds is unknown there, so that a "
            "difference beyond the error over images speaks of these checkpoints, not of the methods."
        )
    if 1 < fewest < 10:
        sentences.append(
            f"A spread estimated from {fewest} seeds is itself rough: take this as a rule of thumb, not as a "
            "test of a stated level."
        )
    return sentences


def _list(parts: Iterable[str]) -> str:
    *head, last = parts
    return f"{', '.join(head)} and {last}" if head else last
