"""`mmlit compare`: from directories of runs to the table, on the screen and in files."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from mmlit.results.atomic import write_atomically
from mmlit.results.compare import compare
from mmlit.results.comparison import Comparison
from mmlit.results.evaluations import evaluation_markdown, evaluation_terminal, evaluations
from mmlit.results.latex import latex
from mmlit.results.spreadsheet import comma_separated
from mmlit.results.table import markdown, terminal

TABLE = "table.md"
SPREADSHEET = "table.csv"
LATEX = "table.tex"
PICTURE = "comparison.png"


def write_comparison(
    directories: Sequence[Path],
    *,
    output: Path,
    report: Path | None = None,
    baseline: str | None = None,
    allow_unlike: bool = False,
) -> Comparison:
    """Compare runs and write `table.md`, `table.csv`, `table.tex` and `comparison.png`, each atomically.

    Args:
        directories: searched recursively for records.
        output: where the files go; made if missing.
        report: the HTML file to write, None for none.
        baseline: the reference row's label; by default `projection`, or else the first row.
        allow_unlike: compare rows that differ in split, gallery, protocol, data or budget, and say so.

    Raises:
        FileNotFoundError: a directory, any record, or a run's ranks are missing.
        ValueError: whatever `compare` refuses.
    """
    # The library that draws is slow to import, which `--help` need not wait for.
    from mmlit.results.plot import picture

    comparison = compare(directories, baseline=baseline, allow_unlike=allow_unlike)
    files = {
        TABLE: markdown(comparison).encode(),
        SPREADSHEET: comma_separated(comparison).encode(),
        LATEX: latex(comparison).encode(),
        PICTURE: picture(comparison),
    }
    for name, content in files.items():
        write_atomically(output / name, content)
    if report is not None:
        from mmlit.results.report.page import page

        write_atomically(report, page(comparison, directories).encode())
    return comparison


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of `mmlit compare`."""
    parser.add_argument("directories", nargs="+", type=Path, metavar="DIR", help="searched recursively for result.json")
    parser.add_argument(
        "--baseline", metavar="ROW", help="label of the reference row (default: projection, else the first)"
    )
    parser.add_argument(
        "--output",
        type=Path,
        metavar="DIR",
        help=f"where {TABLE}, {SPREADSHEET}, {LATEX} and {PICTURE} go (default: the first DIR)",
    )
    parser.add_argument(
        "--report", type=Path, metavar="FILE", help="also write a report, one HTML file that needs nothing beside it"
    )
    parser.add_argument(
        "--evaluation",
        metavar="NAME",
        help="instead: means and spreads of what `mmlit evaluate --evaluator NAME` found, without a test",
    )
    parser.add_argument(
        "--allow-unlike",
        action="store_true",
        help="compare rows that differ in split, gallery, protocol, data or budget, and say so",
    )


def run(arguments: argparse.Namespace) -> int:
    """Print the comparison and write its files.

    Returns:
        The exit code: 0, or 2 after one line on the error stream if the runs cannot be compared.
    """
    output = arguments.output or arguments.directories[0]
    # Rich takes a file or a pipe for 80 columns wide.
    console = Console(highlight=False, width=None if sys.stdout.isatty() else 100)
    try:
        if arguments.evaluation is not None:
            if arguments.report is not None:
                raise ValueError("--report shows every evaluation: leave --evaluation out")
            table = evaluations(arguments.directories, arguments.evaluation)
            file = f"{table.evaluator}.md"
            write_atomically(output / file, evaluation_markdown(table).encode())
            console.print(evaluation_terminal(table))
            console.print(f"Written: {output}/{file}", markup=False, soft_wrap=True)
            return 0
        comparison = write_comparison(
            arguments.directories,
            output=output,
            report=arguments.report,
            baseline=arguments.baseline,
            allow_unlike=arguments.allow_unlike,
        )
    except (ValueError, OSError) as error:
        sys.stderr.write(f"mmlit compare: {error}\n")
        return 2
    console.print(terminal(comparison))
    console.print(f"Written: {output}/{TABLE}, {SPREADSHEET}, {LATEX}, {PICTURE}", markup=False, soft_wrap=True)
    if arguments.report is not None:
        console.print(f"Report: {arguments.report}", markup=False, soft_wrap=True)
    return 0
