"""The comparison as tables to read: on the terminal and in Markdown."""

import math
import re
from collections.abc import Callable
from typing import NamedTuple

from rich import box
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from mmlit.results.comparison import DIFFERENCES, METRICS, Comparison, Row, Spread
from mmlit.results.differences import Difference
from mmlit.results.words import CHECKPOINTS, METHODS, READABLE, TITLES, findings, least


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
    return [*findings(comparison), *(f"Note: {note}" for note in comparison.notes)]


def grids(comparison: Comparison, *, with_spread: set[str]) -> list[Grid]:
    """Make the tables' cells: retrieval, differences to the baseline and between all rows, cost.

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
    cost = Grid(
        "Cost of one run",
        ["row", "scored", "options", "trainable (M)", "pairs seen", "train (s)", "evaluation (s)", "memory (MiB)"],
        [[row.label, *_cost(row)] for row in rows],
    )
    return [quality, *_against_baseline(comparison), *_all_pairs(comparison), cost]


def _against_baseline(comparison: Comparison) -> list[Grid]:
    """One table for each statement; the second says how much it would have taken where a difference is not shown."""
    others = [row for row in comparison.rows if row.label != comparison.baseline]
    if not others:
        return []
    difference = f"difference to {comparison.baseline} ± standard error over"
    holm = "p is corrected after Holm over all pairs of rows."
    return [
        Grid(
            f"{CHECKPOINTS} on these queries: {difference} images; p. Whole images are drawn anew; {holm}",
            ["row", *(heading for name in DIFFERENCES for heading in (TITLES[name], "p"))],
            [[row.label, *_cells(row, _as_checkpoints)] for row in others],
        ),
        Grid(
            f"{METHODS}: {difference} seeds and images; p; what it would need. Seeds are drawn anew, too; {holm}",
            ["row", *(heading for name in DIFFERENCES for heading in (TITLES[name], "p", "would need"))],
            [[row.label, *_cells(row, _as_methods)] for row in others],
        ),
    ]


def _all_pairs(comparison: Comparison) -> list[Grid]:
    """Every row against every later one, in rsum, where that says more than the baseline's table and can be read."""
    rows = comparison.rows
    if not 2 < len(rows) <= READABLE:
        return []
    columns = [comparison.pairs.against(place) for place in range(1, len(rows))]
    cells = [
        [_pair(column[i]) if i < place else "" for place, column in enumerate(columns, start=1)]
        for i in range(len(rows) - 1)
    ]
    return [
        Grid(
            "All pairs, rsum: row minus column; a holds for these checkpoints, b for the methods",
            ["row", *map(str, range(2, len(rows) + 1))],
            [[f"{i} {row.label}", *own] for i, (row, own) in enumerate(zip(rows, cells, strict=False), start=1)]
            + [[f"{len(rows)} {rows[-1].label}", *[""] * len(columns)]],
        )
    ]


def _spread(spread: Spread, *, with_spread: bool) -> str:
    if not with_spread:
        return f"{spread.mean:.1f}"
    return f"{spread.mean:.1f} ± {'–' if spread.sd is None else f'{spread.sd:.1f}'}"


def _cells(row: Row, show: Callable[[Difference | None, str], list[str]]) -> list[str]:
    return [cell for name in DIFFERENCES for cell in show((row.differences or {}).get(name), name)]


def _as_checkpoints(difference: Difference | None, _: str) -> list[str]:
    if difference is None:
        return ["other queries", ""]
    return [f"{difference.value:+.1f} ± {difference.image_error:.1f}", probability(difference.checkpoints)]


def _as_methods(difference: Difference | None, metric: str) -> list[str]:
    if difference is None:
        return ["other queries", "", ""]
    if difference.total_error is None or difference.methods is None:
        return [f"{difference.value:+.1f} ± –", "–", "–"]
    return [
        f"{difference.value:+.1f} ± {difference.total_error:.1f}",
        probability(difference.methods),
        least(difference, metric),
    ]


def probability(value: float) -> str:
    """Three digits, rounded up: what reads 0.050 holds."""
    rounded = math.ceil(1000 * value - 1e-9) / 1000
    return "<0.001" if value < 0.001 else "1" if rounded >= 1 else f"{rounded:.3f}"


def _pair(difference: Difference | None) -> str:
    if difference is None:
        return "–"
    holds = ("a" if difference.checkpoints_hold else "") + ("b" if difference.methods_hold else "")
    return f"{difference.value:+.1f} {holds}".rstrip()


def _cost(row: Row) -> list[str]:
    least, most = row.pairs_seen
    return [
        row.scored,
        "default" if row.trials is None else f"tuned ({row.trials})",
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
