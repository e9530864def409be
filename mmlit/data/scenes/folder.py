"""A folder that appears complete or not at all."""

import fcntl
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def all_or_nothing(root: Path) -> Iterator[Path]:
    """Give a hidden folder beside `root` to write into, which becomes `root` at the end if nothing went
    wrong.

    The hidden folder goes away with any exception. A process that is killed leaves it behind, never as
    `root`, and the next one begins it afresh. `root` must not exist, or be empty.

    Raises:
        FileExistsError: Another process is writing the same folder, or `root` cannot be replaced, being the
        place
            where a file system is mounted.
    """
    root = root.resolve()
    if root.is_mount():
        raise FileExistsError(f"a file system is mounted at {root}; choose a folder in it")
    folder = root.with_name(f".{root.name}.unfinished")
    folder.mkdir(parents=True, exist_ok=True)
    handle = os.open(folder, os.O_RDONLY)
    try:
        _claim(folder=folder, handle=handle, root=root)
        try:
            _clear(folder)
            yield folder
            folder.replace(root)
        finally:
            shutil.rmtree(folder, ignore_errors=True)
    finally:
        os.close(handle)


def _claim(*, folder: Path, handle: int, root: Path) -> None:
    """Lock the folder for this process; the lock ends with the process, however that ends."""
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        free = folder.exists() and os.path.samestat(folder.stat(), os.fstat(handle))
    except BlockingIOError:
        free = False
    if not free:
        raise FileExistsError(f"another process is writing {root}; wait for it or choose another root")


def _clear(folder: Path) -> None:
    for child in folder.iterdir():
        if child.is_dir():
            shutil.rmtree(child)
        else:
            child.unlink()
