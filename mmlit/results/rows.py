"""Which runs there are, and which of them are seeds of one row."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from mmlit.results.record import FILE_NAME, read_record
from mmlit.results.schema import Record
from mmlit.results.settings import Identity, identity

EVALUATIONS = "evaluations"


class Run(NamedTuple):
    """A record and where it lies."""

    directory: Path
    record: Record


class Group(NamedTuple):
    """The runs of one row, by ascending seed."""

    identity: Identity
    runs: tuple[Run, ...]

    @property
    def records(self) -> list[Record]:
        """The runs' records."""
        return [run.record for run in self.runs]


def find_runs(directories: Sequence[Path]) -> list[Run]:
    """Read every record below the directories, in the order given, then by path; each file once.

    What lies in a run's folder `evaluations` is that run on other data, and no run of its own: it is read only if its
    directory is given.

    Raises:
        FileNotFoundError: a directory does not exist, or none of them holds a record.
        ValueError: a record is broken.
    """
    found: dict[Path, Run] = {}
    for directory in directories:
        if not directory.is_dir():
            raise FileNotFoundError(f"{directory} is not a directory")
        for path in sorted(directory.rglob(FILE_NAME)):
            if not _is_evaluation(path, directory):
                found.setdefault(path.resolve(), Run(path.parent, read_record(path)))
    if not found:
        raise FileNotFoundError(f"no {FILE_NAME} below {', '.join(map(str, directories))}")
    return list(found.values())


def _is_evaluation(path: Path, below: Path) -> bool:
    """Whether a record lies in a folder `evaluations` of a run, both below a directory."""
    places = [place for place in path.parents if place.is_relative_to(below) and place != below]
    return any(place.name == EVALUATIONS and (place.parent / FILE_NAME).is_file() for place in places)


def group_runs(runs: Sequence[Run]) -> tuple[list[Group], list[str]]:
    """Gather runs into rows, in the order of their first run.

    Runs are seeds of one row if their settings are equal and they measured the same on the same data. The
    budget is no part of it: with early stopping it differs between seeds.

    Returns:
        The rows, and a note for each run that gave way to a newer one of the same row and seed.
    """
    rows: dict[str, tuple[Identity, dict[int, Run]]] = {}
    notes = []
    for run in runs:
        own = identity(run.record)
        key = json.dumps([own.settings, own.facts], sort_keys=True)
        seeds = rows.setdefault(key, (own, {}))[1]
        seed = run.record.seed
        if seed in seeds:
            older, newer = sorted((seeds[seed], run), key=lambda each: each.record.finished_at)
            notes.append(f"Seed {seed} twice: {newer.directory} counts, the older {older.directory} does not.")
            seeds[seed] = newer
        else:
            seeds[seed] = run
    groups = [Group(own, tuple(seeds[seed] for seed in sorted(seeds))) for own, seeds in rows.values()]
    return groups, notes
