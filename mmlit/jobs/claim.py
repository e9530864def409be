"""One process at a time works on a run's folder, whatever sweep or command it belongs to."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

#: in the run's folder; the system lets go of it when the process ends, however it ends
FILE_NAME = ".lock"


class ClaimedError(OSError):
    """Another process works on this run."""


@contextmanager
def claimed(directory: Path) -> Iterator[None]:
    """Makes a run's folder this process's own while the context lasts.

    Raises:
        ClaimedError: if another process has it.
    """
    directory.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(directory / FILE_NAME, timeout=0):
            yield
    except Timeout as error:
        raise ClaimedError(f"{directory}: another process works on this run; wait for it or stop it") from error


def is_claimed(directory: Path) -> bool:
    """Whether some process works on this run now."""
    if not (directory / FILE_NAME).exists():
        return False
    try:
        with FileLock(directory / FILE_NAME, timeout=0):
            return False
    except Timeout:
        return True
