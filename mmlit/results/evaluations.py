"""`mmlit compare --evaluation NAME`: what `mmlit evaluate` added to the records, as one table."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from rich import box
from rich.table import Table
from rich.text import Text

from mmlit.results.comparison import Spread
from mmlit.results.labels import labels
from mmlit.results.rows import find_runs, group_runs
from mmlit.results.schema import Evaluation
from mmlit.results.table import escape_markdown

#: what a pair or a checkpoint without a run keeps of a probe; its `folder` is then the row's label
FILE_NAME = "evaluation.json"


class EvaluationTable(NamedTuple):
    """Metrics by row label; `about` says in a line what was asked."""

    evaluator: str
    about: str
    rows: dict[str, dict[str, Spread]]

    @property
    def metrics(self) -> list[str]:
        """Every metric's name, in the order of the first row."""
        return list(dict.fromkeys(name for row in self.rows.values() for name in row))


def evaluations(directories: Sequence[Path], evaluator: str) -> EvaluationTable:
    """Gather one evaluator's numbers over the runs below some directories.

    Raises:
        FileNotFoundError: a directory or any record is missing.
        ValueError: no run was evaluated so, or two of them were asked different things (the message says which).
    """
    groups, _ = group_runs(find_runs(directories))
    names = labels([group.identity for group in groups])
    found: dict[str, list[Evaluation]] = {}
    for name, group in zip(names, groups, strict=True):
        for record in group.records:
            entries = [entry for entry in record.evaluations if entry.evaluator == evaluator]
            found.setdefault(name, []).extend(entries[-1:])
    for directory in directories:
        for path in sorted(directory.rglob(FILE_NAME)):
            entry = Evaluation.model_validate(json.loads(path.read_text(encoding="utf-8")))
            if entry.evaluator == evaluator:
                found.setdefault(entry.folder, []).append(entry)
    kept = {name: entries for name, entries in found.items() if entries}
    if not kept:
        raise ValueError(f"no run was evaluated by {evaluator}: `mmlit evaluate RUN --evaluator {evaluator}`")
    _require_alike(kept)
    first = next(iter(kept.values()))[0]
    counts = ", ".join(f"{count:,} {what}" for what, count in first.counts.items())
    about = f"{evaluator}, {first.split or 'its own data'}: {counts}"
    return EvaluationTable(evaluator, about, {name: _spreads(entries) for name, entries in kept.items()})


def evaluation_terminal(table: EvaluationTable) -> Table:
    """Metrics down, rows across: there are many metrics and few rows."""
    grid = Table(title=Text(f"\n{table.about}", style="bold"), title_justify="left", box=box.SIMPLE_HEAD)
    for number, heading in enumerate(("metric", *table.rows)):
        grid.add_column(Text(heading), justify="right" if number else "left")
    for cells in _cells(table):
        grid.add_row(*(Text(cell) for cell in cells))
    return grid


def evaluation_markdown(table: EvaluationTable) -> str:
    """The same as Markdown."""
    head = ["metric", *(escape_markdown(name) for name in table.rows)]
    lines = [head, ["---", *["---:"] * len(table.rows)], *_cells(table)]
    body = "\n".join(f"| {' | '.join(line)} |" for line in lines)
    return f"{escape_markdown(table.about)}; mean ± standard deviation over seeds.\n\n{body}\n"


def _cells(table: EvaluationTable) -> list[list[str]]:
    return [[metric, *(_cell(row.get(metric)) for row in table.rows.values())] for metric in table.metrics]


def _cell(spread: Spread | None) -> str:
    if spread is None:
        return "–"
    return f"{spread.mean:.1f}" if spread.sd is None else f"{spread.mean:.1f} ± {spread.sd:.1f}"


def _require_alike(found: dict[str, list[Evaluation]]) -> None:
    fingerprints: dict[str, list[str]] = {}
    for name, entries in found.items():
        for entry in entries:
            fingerprints.setdefault(entry.fingerprint, []).append(name)
    if len(fingerprints) > 1:
        told = "; ".join(f"{mark} in {', '.join(dict.fromkeys(names))}" for mark, names in fingerprints.items())
        raise ValueError(f"rows were asked different things (another split, protocol or data): {told}")


def _spreads(entries: Sequence[Evaluation]) -> dict[str, Spread]:
    spreads = {}
    for name in entries[0].metrics:
        values = [entry.metrics[name] for entry in entries if name in entry.metrics]
        sd = float(np.std(values, ddof=1)) if len(values) > 1 else None
        spreads[name] = Spread(float(np.mean(values)), sd, len(values))
    return spreads
