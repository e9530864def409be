"""`mmlit compare --evaluation NAME`: what `mmlit evaluate` added to the records, as one table."""

import itertools
import json
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from rich import box
from rich.table import Table
from rich.text import Text

from mmlit.results.comparison import Spread
from mmlit.results.entries import chosen, entries_of, finished_at, told_counts
from mmlit.results.labels import labels
from mmlit.results.record import FILE_NAME as RECORD
from mmlit.results.rows import Run, find_runs, group_runs
from mmlit.results.schema import Evaluation
from mmlit.results.settings import Identity
from mmlit.results.table import escape_markdown

#: what a pair or a checkpoint without a run keeps of a probe; its `folder` is then the row's label
FILE_NAME = "evaluation.json"
#: settings that say which model it is
_MODEL = ("image_encoder.", "text_encoder.", "alignment.")


class EvaluationTable(NamedTuple):
    """Metrics and way of scoring by row label; `about` says in a line what was asked."""

    evaluator: str
    about: str
    rows: dict[str, dict[str, Spread]]
    scored: dict[str, str]

    @property
    def metrics(self) -> list[str]:
        """Every metric's name, in the order of the first row."""
        return list(dict.fromkeys(name for row in self.rows.values() for name in row))


def evaluations(directories: Sequence[Path], evaluator: str) -> EvaluationTable:
    """Gather one evaluator's numbers over the runs below some directories.

    A run counts with what `mmlit evaluate` added, and with its own numbers if it was reported by this evaluator.

    Raises:
        FileNotFoundError: a directory or any record is missing.
        ValueError: no run was evaluated so, or there is nothing that all of them were asked (the message says what
            differs).
    """
    runs = _probed(directories, evaluator)
    if not runs or any(path for directory in directories for path in directory.rglob(RECORD)):
        runs = _runs(find_runs(directories), evaluator) | runs
    if not runs:
        raise ValueError(f"no run was evaluated by {evaluator}: `mmlit evaluate RUN --evaluator {evaluator}`")
    rows = chosen({name: [sorted(entries, key=finished_at) for entries in row] for name, row in runs.items()})
    first = next(iter(rows.values()))[0]
    about = f"{evaluator}, {first.split or 'its own data'}: {told_counts(first.counts)}"
    scored = {name: " or ".join(dict.fromkeys(entry.scored for entry in row)) for name, row in rows.items()}
    return EvaluationTable(evaluator, about, {name: _spreads(row) for name, row in rows.items()}, scored)


def _probed(directories: Sequence[Path], evaluator: str) -> dict[str, list[list[Evaluation]]]:
    """What pairs and checkpoints without a run keep of a probe, by their label; each is one run."""
    rows: dict[tuple[str, str], list[Evaluation]] = {}
    for path in dict.fromkeys(path for directory in directories for path in sorted(directory.rglob(FILE_NAME))):
        entry = Evaluation.model_validate(json.loads(path.read_text(encoding="utf-8")))
        if entry.evaluator == evaluator:
            rows.setdefault((entry.folder, str(entry.options.get("weights"))), []).append(entry)
    seen = [folder for folder, _ in rows]
    names = [
        folder if seen.index(folder) == number else f"{folder} #{seen[: number + 1].count(folder)}"
        for number, folder in enumerate(seen)
    ]
    return {name: [entries] for name, entries in zip(names, rows.values(), strict=True)}


def _runs(runs: Sequence[Run], evaluator: str) -> dict[str, list[list[Evaluation]]]:
    """By row label, for each run the entries of this evaluator; runs without any are left out."""
    rows: dict[str, tuple[Identity, list[list[Evaluation]]]] = {}
    for group in group_runs(runs)[0]:
        each = [[entry for entry in entries_of(record) if entry.evaluator == evaluator] for record in group.records]
        each = [entries for entries in each if entries]
        if not each:
            continue
        row = _named_by(group.identity)
        if any(record.budget.pairs_seen for record in group.records):
            rows[json.dumps(group.identity)] = (row, each)
        else:  # each evaluation of a published pair is a record of its own: one run that was asked several things
            weights = {key: value for key, value in row.settings.items() if key.startswith(_MODEL)}
            rows.setdefault(json.dumps(weights), (row, [[]]))[1][0].extend(itertools.chain(*each))
    names = labels([row for row, _ in rows.values()])
    return {name: entries for name, (_, entries) in zip(names, rows.values(), strict=True)}


def _named_by(row: Identity) -> Identity:
    """A row's identity without its own evaluator, which is not what this table is about."""
    choices = {axis: choice for axis, choice in row.choices.items() if axis != "evaluator"}
    settings = {key: value for key, value in row.settings.items() if not key.startswith("evaluator.")}
    return row._replace(choices=choices, settings=settings)


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
    return f"{escape_markdown(table.about)}; mean ± standard deviation over seeds, no test.\n\n{body}\n"


def _cells(table: EvaluationTable) -> list[list[str]]:
    cells = [[metric, *(_cell(row.get(metric)) for row in table.rows.values())] for metric in table.metrics]
    # How many runs a row's mean is of: one that was not evaluated is not in it.
    head = [["n", *(str(max(spread.n for spread in row.values())) for row in table.rows.values())]]
    if len(set(table.scored.values())) > 1:
        head.append(["scored", *table.scored.values()])
    return [*head, *cells]


def _cell(spread: Spread | None) -> str:
    if spread is None:
        return "–"
    return f"{spread.mean:.1f}" if spread.sd is None else f"{spread.mean:.1f} ± {spread.sd:.1f}"


def _spreads(entries: Sequence[Evaluation]) -> dict[str, Spread]:
    spreads = {}
    for name in entries[0].metrics:
        values = [entry.metrics[name] for entry in entries if name in entry.metrics]
        sd = float(np.std(values, ddof=1)) if len(values) > 1 else None
        spreads[name] = Spread(float(np.mean(values)), sd, len(values))
    return spreads
