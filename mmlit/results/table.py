"""The comparison as tables to read: on the terminal and in Markdown."""

import re
from typing import NamedTuple

from rich import box
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from mmlit.results.comparison import DIFFERENCES, METRICS, Comparison, Difference, Row, Spread
from mmlit.results.words import TITLES, findings

_MARKS = {"holds": "", "inside": " ≈", "unknown": " ?"}
_LEGEND = "≈ inside the spread; ? beyond the error over images, but the spread between seeds is unknown."


class Grid(NamedTuple):
    """One table: its title, its headings, and its cells as text; the first column is the row's label."""

    title: str
    headings: list[str]
    rows: list[list[str]]


def terminal(comparison: Comparison) -> Group:
    """Lay the comparison out for a terminal of 100 columns: spreads of R@1 and rsum only."""
    parts: list[RenderableType] = [Text(comparison.subject)]
    parts += [_rich_table(grid) for grid in grids(comparison, with_spread={"i2t_r1", "t2i_r1", "rsum"})]
    parts += [Text(""), *(Text(line) for line in _lines(comparison))]
    return Group(*parts)


def markdown(comparison: Comparison) -> str:
    """Write the comparison as Markdown; what stands in labels and notes cannot break a table."""
    parts = [escape_markdown(comparison.subject)]
    for grid in grids(comparison, with_spread=set(METRICS)):
        rule = ["---", *["---:"] * (len(grid.headings) - 1)]
        lines = [grid.headings, rule, *([escape_markdown(cell) for cell in row] for row in grid.rows)]
        table = "\n".join(f"| {' | '.join(line)} |" for line in lines)
        parts.append(f"**{escape_markdown(grid.title)}**\n\n{table}")
    parts.append("\n".join(f"- {escape_markdown(line)}" for line in _lines(comparison)))
    return "\n\n".join(parts) + "\n"


def escape_markdown(text: str) -> str:
    """Make text stand for itself in a cell or a line of Markdown; `cross_attention` stays readable."""
    text = " ".join(text.split()).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    # An underscore inside a word means nothing in Markdown.
    return re.sub(r"([\\|`*\[\]~]|(?<![^\W_])_|_(?![^\W_]))", r"\\\1", text)


def _lines(comparison: Comparison) -> list[str]:
    marks = [_LEGEND] if any(row.differences for row in comparison.rows) else []
    return [*findings(comparison), *marks, *(f"Note: {note}" for note in comparison.notes)]


def grids(comparison: Comparison, *, with_spread: set[str]) -> list[Grid]:
    """Make the tables' cells: retrieval, differences to the baseline, cost.

    Args:
        comparison: what to show.
        with_spread: the metrics whose standard deviation is shown; the others stand as their mean.
    """
    rows = comparison.rows
    quality = Grid(
        "Retrieval, mean ± standard deviation over n seeds",
        ["row", "n", *(TITLES[name].replace("median rank", "MedR") for name in METRICS)],
        [
            [
                row.label,
                str(len(row.seeds)),
                *(_spread(row.metrics[name], with_spread=name in with_spread) for name in METRICS),
            ]
            for row in rows
        ],
    )
    differences = Grid(
        f"Difference to {comparison.baseline} ± standard error (of which images)",
        ["row", *(TITLES[name] for name in DIFFERENCES)],
        [[row.label, *_differences(row)] for row in rows if row.label != comparison.baseline],
    )
    cost = Grid(
        "Cost of one run",
        ["row", "scored", "trainable (M)", "pairs seen", "train (s)", "evaluation (s)", "memory (MiB)"],
        [[row.label, *_cost(row)] for row in rows],
    )
    return [quality, *([differences] if differences.rows else []), cost]


def _spread(spread: Spread, *, with_spread: bool) -> str:
    if not with_spread:
        return f"{spread.mean:.1f}"
    return f"{spread.mean:.1f} ± {'?' if spread.sd is None else f'{spread.sd:.1f}'}"


def _differences(row: Row) -> list[str]:
    if row.differences is None:
        return ["other queries"] * len(DIFFERENCES)
    return [_difference(row.differences[name]) for name in DIFFERENCES]


def _difference(difference: Difference) -> str:
    combined = "?" if difference.combined_error is None else f"{difference.combined_error:.1f}"
    mark = _MARKS[difference.verdict]
    return f"{difference.value:+.1f} ± {combined} ({difference.query_error:.1f}){mark}"


def _cost(row: Row) -> list[str]:
    least, most = row.pairs_seen
    return [
        row.scored,
        f"{row.trainable / 1e6:.2f}",
        f"{least:,}" if least == most else f"{least:,}…{most:,}",
        f"{row.fit_seconds.mean:.1f}",
        f"{row.evaluation_seconds.mean:.1f}",
        f"{row.peak_memory.mean:,.0f}",
    ]


def _rich_table(grid: Grid) -> Table:
    table = Table(
        title=Text(f"\n{grid.title}", style="bold"),
        title_justify="left",
        box=box.SIMPLE_HEAD,
        show_edge=False,
        padding=(0, 1, 0, 0),
    )
    label, *headings = grid.headings
    table.add_column(Text(label), overflow="fold", vertical="bottom")
    for heading in headings:
        table.add_column(Text(heading.replace(" ", "\n", 1)), justify="right", no_wrap=True)
    for row in grid.rows:
        # Text, not str: a label in brackets is no markup.
        table.add_row(*(Text(cell) for cell in row))
    return table
