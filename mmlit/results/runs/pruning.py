"""Which checkpoints may go: those of finished runs that are not the best of their group."""

import os
import time
from collections.abc import Sequence, Set
from pathlib import Path
from typing import NamedTuple

from mmlit.results.runs.folders import CHECKPOINTS, SUFFIX, UNFINISHED, Folder
from mmlit.results.runs.listing import progress
from mmlit.results.runs.ranking import grouped
from mmlit.results.settings import facts

_STILL = 600
"""Seconds without a sign of life after which an unfinished run is taken to have ended."""


class File(NamedTuple):
    """A checkpoint as it was when the user was asked; `size` in bytes."""

    path: Path
    size: int
    changed: int


class Loss(NamedTuple):
    """A run that gives up its checkpoints, and why."""

    folder: Folder
    files: list[File]
    why: str


def losers(
    folders: Sequence[Folder], *, metric: str, by: Sequence[str], keep: int, needed: Set[Path] = frozenset()
) -> list[Loss]:
    """The finished runs that have checkpoints and are not among the best of their group.

    Runs whose numbers are not of the same split, gallery and protocol are never weighed against one another. A run
    without checkpoints of its own takes nobody's place.

    Args:
        folders: runs; unfinished and broken ones lose nothing.
        metric: what decides; of equal runs, the first by path is kept.
        by: options; runs that have the same values of them are a group.
        keep: how many of each group keep theirs.
        needed: checkpoints that stay in any case.

    Raises:
        ValueError: `keep` is less than 1, or no finished run has the metric or one of the options.
    """
    if keep < 1:
        raise ValueError(f"--keep must be >= 1, got {keep}")
    lost = []
    for group, runs in grouped(folders, metric=metric, by=by).items():
        alike: dict[str, list[tuple[Folder, float]]] = {}
        for run in runs:
            if run[0].checkpoints():
                alike.setdefault(_measured(run[0]), []).append(run)
        for ranked in alike.values():
            for folder, value in ranked[keep:]:
                files = [file for file in folder.checkpoints() if file.resolve() not in needed]
                why = f"{metric} {value:.2f} in {', '.join(group) or 'all'}, {ranked[keep - 1][1]:.2f} is kept"
                lost.append(Loss(folder, [_seen(file) for file in files], why))
    return [each for each in lost if each.files]


def given_up(folders: Sequence[Folder]) -> list[Loss]:
    """Unfinished runs that the user named by their own folder: they start anew if they are started again.

    Raises:
        ValueError: one wrote something a short while ago.
    """
    unfinished = [folder for folder in folders if folder.state == UNFINISHED and folder.checkpoints()]
    for folder in unfinished:
        written = max(file.lstat().st_mtime for file in folder.directory.rglob("*"))
        if time.time() - written < _STILL:
            raise ValueError(
                f"{folder.directory} wrote something in the last {_STILL // 60} minutes: it may be running"
            )
    return [
        Loss(folder, [_seen(file) for file in folder.checkpoints()], f"unfinished, {progress(folder)}: starts anew")
        for folder in unfinished
    ]


def remove(file: File) -> str:
    """Removes one checkpoint, and nothing else whatever its path says by now; returns what hindered it."""
    path = file.path
    if path.suffix != SUFFIX or path.parent.name != CHECKPOINTS or path.parent.is_symlink():
        return f"{path} is no checkpoint of a run"
    try:
        status = os.lstat(path)
        if (status.st_size, status.st_mtime_ns) != (file.size, file.changed):
            return f"{path} has changed since"
        path.unlink()
    except OSError as error:
        return str(error)
    return ""


def _seen(path: Path) -> File:
    status = os.lstat(path)
    return File(path, status.st_size, status.st_mtime_ns)


def needed_by(folders: Sequence[Folder]) -> set[Path]:
    """Checkpoints that runs were trained from."""
    configs = [folder.record.config for folder in folders if folder.record]
    begun = [config["checkpoint"] for config in configs if config.get("checkpoint") and config.get("fit") is not False]
    return {Path(str(path)).resolve() for path in begun}


def _measured(folder: Folder) -> str:
    own = facts(folder.record) if folder.record else {}
    return str([own.get(key) for key in ("split", "gallery", "protocol")])
