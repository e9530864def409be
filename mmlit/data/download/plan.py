"""What of a data set is there, what is still to come, and whether the disk has the room."""

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from mmlit.data.download.archives import Archive
from mmlit.data.download.fetch import length, write_json
from mmlit.data.download.watch import gigabytes

#: below the root: what has come, what is being unpacked, and which files each archive brought
STATE = ".download"


class Step(NamedTuple):
    """What one archive still needs.

    Attributes:
        files: how many of its files are there, all of them; None while some are missing.
        fetch: bytes still to come.
        unpack: bytes still to be written at most.
    """

    archive: Archive
    files: int | None
    fetch: int
    unpack: int


def plan(archives: Sequence[Archive], root: Path) -> list[Step]:
    """A step for each archive.

    Raises:
        ValueError: `root` is something else than a folder.
    """
    if root.exists() and not root.is_dir():
        raise ValueError(f"--root {root} is no folder")
    return [_step(archive, root) for archive in archives]


def _step(archive: Archive, root: Path) -> Step:
    if (files := _complete(archive, root)) is not None:
        return Step(archive, files, 0, 0)
    state = root / STATE
    there = (root / archive.name).is_file() or (state / archive.name).is_file()
    fetch = 0 if there else max(0, archive.size - length(state / f"{archive.name}.part"))
    written = _bytes_in(staging(archive, root)) + sum(_bytes_in(root / name) for name in archive.holds)
    return Step(archive, None, fetch, max(0, archive.unpacked - written))


def require_room(steps: Sequence[Step], root: Path) -> None:
    """Asks the disk before anything is fetched.

    Raises:
        OSError: archives and their content do not fit.
    """
    needed, free = sum(step.fetch + step.unpack for step in steps), free_bytes(root)
    if needed > free:
        raise OSError(
            f"{root}: {gigabytes(needed)} are needed ({gigabytes(sum(step.fetch for step in steps))} to fetch, up to "
            f"{gigabytes(sum(step.unpack for step in steps))} unpacked), but only {gigabytes(free)} are free"
        )


def free_bytes(root: Path) -> int:
    """Bytes that are free where `root` is or will be."""
    there = root.absolute()
    while not there.exists():
        there = there.parent
    return shutil.disk_usage(there).free


def staging(archive: Archive, root: Path) -> Path:
    """Where an archive is unpacked before its files get their place."""
    return root / STATE / f"{archive.name}.unpacking"


def record(archive: Archive, root: Path, files: dict[str, int]) -> None:
    """Note that these files, with their lengths in bytes, are what the archive brought, and that all are there."""
    write_json(_record(archive, root), {"sha256": archive.sha256, "files": files})


def _complete(archive: Archive, root: Path) -> int | None:
    """How many files an archive brought, if all of them are still there with their lengths."""
    try:
        noted = json.loads(_record(archive, root).read_text())
    except (FileNotFoundError, ValueError):
        return None
    files: dict[str, int] = noted["files"]
    whole = noted["sha256"] == archive.sha256 and all(_has(root / name, size) for name, size in files.items())
    return len(files) if whole else None


def _record(archive: Archive, root: Path) -> Path:
    return root / STATE / f"{archive.name}.files.json"


def _has(path: Path, size: int) -> bool:
    try:
        return path.stat().st_size == size
    except OSError:
        return False


def _bytes_in(path: Path) -> int:
    if not path.is_dir():
        return length(path)
    return sum(each.stat().st_size for each in path.rglob("*") if each.is_file())
