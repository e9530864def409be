"""Which runs lie below a directory: finished, unfinished, or with a broken record."""

import json
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from mmlit.results.record import FILE_NAME, read_record
from mmlit.results.rows import EVALUATIONS
from mmlit.results.schema import Record

CHECKPOINTS = "checkpoints"
SUFFIX = ".ckpt"
STATUS = "status.json"
DEFAULT = Path("outputs")

FINISHED, UNFINISHED, BROKEN = "finished", "unfinished", "broken"


class Folder(NamedTuple):
    """A run's folder: a finished run has a `record`, a broken one a `fault`, an unfinished one at most a `status`."""

    directory: Path
    record: Record | None
    status: dict[str, Any]
    fault: str

    @property
    def state(self) -> str:
        """`FINISHED`, `UNFINISHED` or `BROKEN`."""
        return FINISHED if self.record else BROKEN if self.fault else UNFINISHED

    def checkpoints(self) -> list[Path]:
        """Its checkpoints; links are none, for they lead elsewhere."""
        own = self.directory / CHECKPOINTS
        files = [] if own.is_symlink() else sorted(own.glob(f"*{SUFFIX}"))
        return [file for file in files if file.is_file() and not file.is_symlink()]


def find_folders(directories: Sequence[Path]) -> list[Folder]:
    """Every run below the directories, by path, each once; links to folders are not followed.

    A folder is a run's if it holds a record, a status or checkpoints. What lies in its `evaluations` is that run on
    other data, and no run of its own: it is found only if its directory is given.

    Raises:
        FileNotFoundError: a directory does not exist.
    """
    found: dict[Path, Folder] = {}
    for directory in directories:
        if not directory.is_dir():
            raise FileNotFoundError(f"{directory} is not a directory")
        for path in _run_folders(directory):
            found.setdefault(path.resolve(), read_folder(path))
    return sorted(found.values(), key=lambda folder: folder.directory)


def read_folder(directory: Path) -> Folder:
    """One run's folder, whatever state it is in."""
    if not os.path.lexists(directory / FILE_NAME):
        return Folder(directory, None, _status(directory / STATUS), "")
    try:
        return Folder(directory, read_record(directory / FILE_NAME), {}, "")
    except (ValueError, OSError, RecursionError) as error:  # the last of JSON that is nested without end
        return Folder(directory, None, {}, " ".join(str(error).split()))


def _run_folders(directory: Path) -> Iterator[Path]:
    for place, folders, files in os.walk(directory):  # follows no links
        path = Path(place)
        has_checkpoints = CHECKPOINTS in folders and any((path / CHECKPOINTS).glob(f"*{SUFFIX}"))
        if FILE_NAME in files + folders or STATUS in files or has_checkpoints:
            folders[:] = [name for name in folders if name not in (EVALUATIONS, CHECKPOINTS)]
            yield path


def _status(path: Path) -> dict[str, Any]:
    """What a run last said of itself; nothing if it never did, or was cut off in the middle of it."""
    try:
        status = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, OSError, RecursionError):
        return {}
    return status if isinstance(status, dict) else {}
