"""The report's tables, cell by cell: what is read, and what is sorted by."""

from collections.abc import Sequence
from typing import NamedTuple

from mmlit.results.comparison import METRICS, Comparison, Row, Spread
from mmlit.results.differences import LEAST_SEEDS, Difference
from mmlit.results.evaluations import EvaluationTable
from mmlit.results.report.verdict import duration, milliseconds, query_milliseconds
from mmlit.results.rows import Group
from mmlit.results.table import probability
from mmlit.results.words import TITLES

_SHORT = 20
"""Letters of a label that a heading takes."""


class Cell(NamedTuple):
    """Text, a number to sort by (None: by the text), a word on what it means (`holds`, `open`, `unknown`)."""

    text: str
    sort: float | None = None
    kind: str = ""


class Column(NamedTuple):
    """A heading, what it means, and whether cells are numbers."""

    title: str
    about: str = ""
    number: bool = True


class Table(NamedTuple):
    """Lines of cells, the first of which is the row's label; `rows` numbers the comparison's rows."""

    columns: tuple[Column, ...]
    lines: tuple[tuple[Cell, ...], ...]
    rows: tuple[int, ...]


def main_table(comparison: Comparison) -> Table:
    """Quality, difference to the baseline with both statements, and costs."""
    other = comparison.baseline
    told = {
        "rsum": Column("rsum", "sum of R@1, 5, 10 in both directions, 0 to 600: mean ± standard deviation over seeds"),
        "difference": Column(
            f"Δ {other if len(other) <= _SHORT else 'baseline'}", f"difference in rsum to the baseline, {other}"
        ),
        "models": Column("these models", "(a) do these trained models differ on images like these?", number=False),
        "method": Column("the method", "(b) would another training show the difference, too?", number=False),
        "training": Column("training", "of one run, on the machine named below"),
        "query": Column("query", "evaluation over the number of images and texts, encoding included"),
        "weights": Column("trainable", "trainable weights, millions"),
        "i2t": Column("i2t R@1", "pictures whose own caption is found first, %"),
        "t2i": Column("t2i R@1", "captions whose picture is found first, %"),
        "seeds": Column("n", "seeds: runs that differ in nothing else"),
    }
    if len({row.scored for row in comparison.rows}) > 1:
        about = "full: all pairs; rerank@k: the best k of a coarse score are ordered anew"
        told["scored"] = Column("scored", about, number=False)
    if any(row.trials is not None for row in comparison.rows):
        told["options"] = Column("options", "default, or tuned in so many trials", number=False)
    lines = [[_cells(row, comparison)[key] for key in told] for row in comparison.rows]
    return _labelled("strategy", tuple(told.values()), lines, comparison.rows)


def _cells(row: Row, comparison: Comparison) -> dict[str, Cell]:
    difference, models, method = _difference(row, comparison)
    return {
        "rsum": _spread(row.metrics["rsum"]),
        "difference": difference,
        "models": models,
        "method": method,
        "training": Cell(duration(row.fit_seconds.mean), row.fit_seconds.mean),
        "query": Cell(milliseconds(query_milliseconds(row)), query_milliseconds(row)),
        "weights": Cell(f"{row.trainable / 1e6:.2f} M", row.trainable),
        "i2t": _spread(row.metrics["i2t_r1"]),
        "t2i": _spread(row.metrics["t2i_r1"]),
        "seeds": Cell(str(len(row.seeds)), len(row.seeds)),
        "scored": Cell(row.scored),
        "options": Cell("default" if row.trials is None else f"tuned ({row.trials})"),
    }


def metrics_table(comparison: Comparison) -> Table:
    """Every metric of every row, and the memory that its runs took."""
    columns = [*(Column(TITLES[name]) for name in METRICS), Column("memory, MiB")]
    lines = [
        [*(_spread(row.metrics[name]) for name in METRICS), Cell(f"{row.peak_memory.mean:,.0f}", row.peak_memory.mean)]
        for row in comparison.rows
    ]
    return _labelled("strategy", columns, lines, comparison.rows)


def pairs_table(comparison: Comparison, row: int) -> Table:
    """One row's lead in rsum over each other one, with both statements."""
    label = comparison.rows[row].label
    columns = (
        Column(f"lead of {label}" if len(label) <= _SHORT else "lead", "of the best row, points of rsum"),
        Column("± images", "standard error of drawing other images"),
        Column("(a) these models", "statement (a)", number=False),
        Column("± images, seeds", "standard error of drawing other images and seeds"),
        Column("(b) the method", "statement (b)", number=False),
        Column("would need", "the lead from which on (b) would hold, with this spread"),
    )
    lines, rows = [], []
    for place in range(len(comparison.rows)):
        own = comparison.pairs.against(place)[row]
        if place != row and own is not None:
            models, method = _statements(own)
            errors = (_number(own.image_error), _number(own.total_error), _number(own.least))
            lines.append((Cell(f"{own.value:+.1f}", own.value), errors[0], models, errors[1], method, errors[2]))
            rows.append(place)
    labels = [Cell(comparison.rows[place].label) for place in rows]
    body = tuple((name, *line) for name, line in zip(labels, lines, strict=True))
    return Table((Column("over", number=False), *columns), body, tuple(rows))


def diagnostics_table(comparison: Comparison) -> Table | None:
    """What the records know of the embeddings: mean ± sd over seeds."""
    names = list(
        dict.fromkeys(name for group in comparison.groups for one in group.records for name in one.diagnostics)
    )
    if not names:
        return None
    lines = [[_diagnostic(group, name) for name in names] for group in comparison.groups]
    columns = [Column(name.replace("_", " "), DIAGNOSTICS.get(name, "")) for name in names]
    return _labelled("strategy", columns, lines, comparison.rows)


DIAGNOSTICS = {
    "modality_gap": "distance between the mean of the pictures' vectors and that of the captions'",
    "pair_alignment": "mean squared distance of true pairs: 0 where they coincide",
    "image_uniformity": "how evenly pictures spread over the sphere: lower is more even",
    "text_uniformity": "how evenly captions spread over the sphere: lower is more even",
    "image_effective_rank": "how many directions the pictures' vectors use",
    "text_effective_rank": "how many directions the captions' vectors use",
    "i2t_hubness": "skew of how often a caption is among the ten best: higher means a few crowd out the rest",
    "t2i_hubness": "skew of how often a picture is among the ten best: higher means a few crowd out the rest",
    "mutual_knn": "share of neighbours that pictures and captions have in common",
    "temperature": "learned temperature",
}
"""What a reader is told of a diagnostic (definitions: mmlit/evaluation/diagnostics.py)."""


def evaluation_table(table: EvaluationTable) -> Table:
    """Metrics down, rows across, as `mmlit compare --evaluation` has it."""
    names = list(table.rows)
    body = [
        (
            Cell(metric),
            *(Cell("–") if (own := row.get(metric)) is None else _spread(own) for row in table.rows.values()),
        )
        for metric in table.metrics
    ]
    columns = (Column("metric", number=False), *(Column(name) for name in names))
    return Table(columns, tuple(body), ())


def _labelled(heading: str, columns: Sequence[Column], lines: Sequence[Sequence[Cell]], rows: Sequence[Row]) -> Table:
    body = tuple((Cell(row.label), *line) for row, line in zip(rows, lines, strict=True))
    return Table((Column(heading, number=False), *columns), body, tuple(range(len(rows))))


def _difference(row: Row, comparison: Comparison) -> tuple[Cell, Cell, Cell]:
    if row.label == comparison.baseline:
        return Cell("baseline", 0.0), Cell(""), Cell("")
    own = (row.differences or {}).get("rsum")
    if own is None:
        return Cell("other queries"), Cell(""), Cell("")
    return (Cell(f"{own.value:+.1f}", own.value), *_statements(own))


def _statements(own: Difference) -> tuple[Cell, Cell]:
    return _statement(own.checkpoints, own.checkpoints_hold), _statement(own.methods, own.methods_hold)


def _statement(p: float | None, holds: bool | None) -> Cell:
    """Words first: a reader need not know what a p-value is."""
    if p is None:
        return Cell(f"under {LEAST_SEEDS} seeds", 2.0, "unknown")
    shown = probability(p)
    told = f"p {shown}" if shown.startswith("<") else f"p = {shown}"
    return Cell(f"differ, {told}", p, "holds") if holds else Cell(f"not shown, {told}", p, "open")


def _number(value: float | None) -> Cell:
    return Cell("") if value is None else Cell(f"{value:.1f}", value)


def _spread(spread: Spread) -> Cell:
    return Cell(f"{spread.mean:.1f}" + ("" if spread.sd is None else f" ± {spread.sd:.1f}"), spread.mean)


def _diagnostic(group: Group, name: str) -> Cell:
    values = [one.diagnostics[name] for one in group.records if name in one.diagnostics]
    if not values:
        return Cell("–")
    mean = sum(values) / len(values)
    return Cell(_plain(mean), mean)


def _plain(value: float) -> str:
    return f"{value:.0f}" if abs(value) >= 100 else f"{value:.1f}" if abs(value) >= 10 else f"{value:.3f}"
