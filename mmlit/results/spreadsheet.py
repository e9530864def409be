"""The comparison as CSV, for whoever computes further."""

import csv
import io
from collections.abc import Iterable

from mmlit.results.comparison import DIFFERENCES, METRICS, Comparison, Row, Spread

_DIFFERENCE = {
    "difference": "value",
    "difference_image_error": "image_error",
    "difference_checkpoints_p": "checkpoints",
    "difference_checkpoints_hold": "checkpoints_hold",
    "difference_total_error": "total_error",
    "difference_methods_p": "methods",
    "difference_methods_hold": "methods_hold",
    "difference_methods_least": "least",
}
"""Columns and the attributes of `Difference` that they hold; p is corrected over all pairs of rows."""


def comma_separated(comparison: Comparison) -> str:
    """Write one line per row, in full precision; what does not exist is empty."""
    lines = [_flat(row, comparison) for row in comparison.rows]
    file = io.StringIO()
    writer = csv.DictWriter(file, fieldnames=list(lines[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(lines)
    return file.getvalue()


def _flat(row: Row, comparison: Comparison) -> dict[str, object]:
    flat: dict[str, object] = {
        "row": _text(row.label),
        "baseline": row.label == comparison.baseline,
        "n": len(row.seeds),
        "seeds": " ".join(map(str, row.seeds)),
        "trials": row.trials,
        "scored": row.scored,
        "split": row.split,
        "gallery_images": row.gallery[0],
        "gallery_texts": row.gallery[1],
    }
    flat |= _columns((name, row.metrics[name]) for name in METRICS)
    for name in DIFFERENCES:
        found = (row.differences or {}).get(name)
        for key, what in _DIFFERENCE.items():
            flat[f"{name}_{key}"] = getattr(found, what) if found else None
    flat |= {"parameters": row.parameters, "trainable": row.trainable}
    flat |= {"pairs_seen_least": row.pairs_seen[0], "pairs_seen_most": row.pairs_seen[1]}
    costs = ("fit_seconds", row.fit_seconds), ("evaluation_seconds", row.evaluation_seconds)
    return flat | _columns((*costs, ("peak_memory_mib", row.peak_memory)))


def _text(label: str) -> str:
    """A label that a spreadsheet does not take for a formula."""
    return f"'{label}" if label.startswith(("=", "+", "-", "@")) else label


def _columns(spreads: Iterable[tuple[str, Spread]]) -> dict[str, object]:
    columns: dict[str, object] = {}
    for name, spread in spreads:
        columns |= {f"{name}_mean": spread.mean, f"{name}_sd": spread.sd}
    return columns
