"""Several archives at once: fetched, checked, unpacked and removed, each on its own."""

import shutil
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from pathlib import Path

from filelock import FileLock, Timeout
from rich.console import Console

from mmlit.data.download.archives import Archive
from mmlit.data.download.fetch import Patience, check, discard, fetch
from mmlit.data.download.plan import STATE, Step, plan, record, require_room, staging
from mmlit.data.download.unpack import unpack
from mmlit.data.download.watch import Display, Watch, gigabytes


def download(
    archives: Sequence[Archive], *, root: Path, keep_archives: bool, console: Console, patience: Patience
) -> int:
    """Brings below `root` what the archives hold and what is not there yet.

    However often it is interrupted, the next call goes on. An archive that already lies in `root` is used and left
    there; those that were fetched are removed once unpacked, or put there with `keep_archives`.

    Returns:
        How many archives there was something to do for.

    Raises:
        ValueError: a server has not the published file, or an archive is not to be trusted. What one archive raises
            does not stop the others.
        OSError: a server is out of reach, the disk has no room, or another process is at work in `root`.
    """
    require_room(plan(archives, root), root)
    (root / STATE).mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(root / STATE / "lock", timeout=0):
            steps = plan(archives, root)  # once more: another process may just have ended
            missing = [step.archive for step in steps if step.files is None]
            for archive in set(archives) - set(missing):
                _tidy(archive, root, keep_archives)
            if missing:
                _together(missing, root, keep_archives, console, patience)
    except Timeout:
        raise OSError(f"{root}: another process is fetching into this folder") from None
    return len(missing)


def _together(
    archives: Sequence[Archive], root: Path, keep_archives: bool, console: Console, patience: Patience
) -> None:
    with Display(console) as display, ThreadPoolExecutor(len(archives)) as pool:
        futures = [
            pool.submit(_bring, each, root, keep_archives, display.watch(each.name), patience) for each in archives
        ]
        try:
            wait(futures)
        except KeyboardInterrupt:  # the threads end at their next byte, and the pool waits for them
            display.stop()
            raise
    _raise_all(futures)


def _raise_all(futures: Sequence[Future[None]]) -> None:
    errors = [error for future in futures if (error := future.exception()) is not None]
    for error in errors:
        if len(errors) == 1 or not isinstance(error, ValueError | OSError):
            raise error
    if errors:
        raise ValueError("; ".join(str(error) for error in errors))


def _bring(archive: Archive, root: Path, keep_archives: bool, watch: Watch, patience: Patience) -> None:
    """All that one archive needs."""
    own, fetched = root / archive.name, root / STATE / archive.name
    if own.is_file():
        try:
            check(archive, own, watch)
        except ValueError as error:
            raise ValueError(f"{own}: {error}; move it away, it was not fetched by this command") from None
    elif not fetched.is_file():
        fetch(archive, fetched.parent, watch=watch, patience=patience)
        watch.tell(f"{gigabytes(archive.size)}, SHA-256 as published")
    place = own if own.is_file() else fetched
    try:
        files = unpack(place, archive, staging=staging(archive, root), root=root, watch=watch)
    except ValueError as error:
        shutil.rmtree(staging(archive, root), ignore_errors=True)
        if place == own:
            raise
        fetched.unlink()
        raise ValueError(f"{archive.url}: {error}; the archive was removed") from error
    record(archive, root, files)
    _tidy(archive, root, keep_archives)
    watch.tell(f"{len(files):,} files in {', '.join(archive.holds)}")


def _tidy(archive: Archive, root: Path, keep_archives: bool) -> None:
    """Where the files of an archive are all there, what was fetched has done its work."""
    fetched = root / STATE / archive.name
    discard(fetched.with_name(f"{archive.name}.part"))
    if keep_archives and fetched.is_file():
        fetched.replace(root / archive.name)
    fetched.unlink(missing_ok=True)


def told(steps: Sequence[Step], free: int) -> str:
    """What would be done, a line for each archive, and the room it needs."""
    lines = [f"  {step.archive.name:<30}{gigabytes(step.archive.size):>10}   {_state(step)}" for step in steps]
    fetch, content = sum(step.fetch for step in steps), sum(step.unpack for step in steps)
    lines.append(
        f"  disk: {gigabytes(fetch + content)} needed ({gigabytes(fetch)} to fetch, up to {gigabytes(content)} "
        f"unpacked), {gigabytes(free)} free"
    )
    return "\n".join(lines)


def _state(step: Step) -> str:
    where = ", ".join(step.archive.holds)
    if step.files is not None:
        return f"there: {step.files:,} files in {where}"
    return f"{gigabytes(step.fetch)} to fetch, for {where}" if step.fetch else f"to unpack, for {where}"
