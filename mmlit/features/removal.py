"""Removes a store, unless a process builds it."""

import shutil
from pathlib import Path

from filelock import FileLock, Timeout

from mmlit.features.layout import CHUNKS, META, PRESENCE, lock_of


class InUseError(OSError):
    """A process builds this store."""


def is_built(folder: Path) -> bool:
    """Whether some process works on a store now."""
    for path in sorted((folder / CHUNKS).glob(f"{PRESENCE}*.lock")):
        try:
            with FileLock(path, timeout=0):
                pass
        except Timeout:
            return True
    return False


def remove(folder: Path) -> None:
    """Removes a store; runs that have opened it keep what they have mapped.

    Raises:
        InUseError: if a process builds it.
    """
    with lock_of(folder.parent):
        if is_built(folder):
            raise InUseError(f"{folder} is being built; wait for that run or stop it")
        (folder / META).unlink(missing_ok=True)
        shutil.rmtree(folder)
