"""What `mmlit evaluate` added to the runs of a report."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from mmlit.results.evaluations import evaluations
from mmlit.results.report.tables import Table, evaluation_table
from mmlit.results.rows import Group


class Evaluated(NamedTuple):
    """One evaluator: its table and what was asked, or why there is none."""

    evaluator: str
    about: str
    table: Table | None


def evaluated(groups: Sequence[Group], directories: Sequence[Path]) -> list[Evaluated]:
    """A table for each evaluator that was appended to a record; what rows do not share is said, not shown."""
    names = sorted({entry.evaluator for group in groups for one in group.records for entry in one.evaluations})
    return [_one(name, directories) for name in names]


def _one(name: str, directories: Sequence[Path]) -> Evaluated:
    try:
        found = evaluations(directories, name)
    except ValueError as error:
        return Evaluated(name, f"No table: {error}.", None)
    return Evaluated(
        name, f"{found.about}; mean ± standard deviation over seeds, without a test.", evaluation_table(found)
    )
