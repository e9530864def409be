"""Files that are either the old one or the whole new one, never half of one."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO


def write_atomically(path: Path, content: bytes | Callable[[BinaryIO], object]) -> Path:
    """Write a file beside its place, then rename it: a reader or a kill sees the old file or the new one.

    Args:
        path: the file's place; its directory is made if it is missing.
        content: the bytes, or what fills the open binary file.

    Returns:
        `path`.

    Raises:
        OSError: the disk refuses; the old file is then untouched, as it is when `content` raises.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    # The process id keeps two writers apart; `tempfile` would make a file that only its owner may read.
    beside = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with beside.open("wb") as file:
            if isinstance(content, bytes):
                file.write(content)
            else:
                content(file)
            file.flush()
            os.fsync(file.fileno())
        beside.replace(path)
    finally:
        beside.unlink(missing_ok=True)
    _sync_directory(path.parent)
    return path


def _sync_directory(directory: Path) -> None:
    """Bring the rename itself to the disk, where the system lets a directory be opened."""
    if os.name != "posix":
        return
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
