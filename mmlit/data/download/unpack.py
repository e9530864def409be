"""A zip file's content, beside its place and then into it; nothing that a stranger's archive says is believed."""

import shutil
import stat
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath

from mmlit.data.download.archives import Archive
from mmlit.data.download.watch import Watch, gigabytes

_CHUNK = 1 << 20


def unpack(file: Path, archive: Archive, *, staging: Path, root: Path, watch: Watch) -> dict[str, int]:
    """Brings what `archive.holds` names below `root`.

    Files are written into `staging`, which lies on the same disk, and moved when all are there: a folder that `root`
    has not yet appears as a whole, one that it has gets the missing files. A file that is in either place with the
    length and the CRC-32 that the archive states is not written again; one of another content is replaced.

    Returns:
        The name below `root` and the length in bytes of each file.

    Raises:
        ValueError: the archive is broken; or it names a place outside the root, a link, a device, the same file twice
            or an encrypted file; or it holds more than `archive.unpacked` bytes, or nothing of what it should.
        OSError: no room, or the disk refuses.
    """
    with _errors_of(file), zipfile.ZipFile(file) as content:
        files = _files(content, archive)
        watch.stage("unpacking", sum(info.file_size for info in files))
        done, missing = 0, []
        for info in files:
            if any(_is_there(place / info.filename, info) for place in (root, staging)):
                watch.reached(done := done + info.file_size)
            else:
                missing.append(info)
        _require_room(missing, root)
        for info in missing:
            done = _write(content, info, staging / info.filename, done, watch)
    if staging.exists():
        _move(staging, root)
    return {info.filename: info.file_size for info in files}


@contextmanager
def _errors_of(file: Path) -> Iterator[None]:
    """All that a broken archive raises in the standard library, as one kind; zipfile has no more of its own for a
    compression that it does not know (NotImplementedError) or a password (RuntimeError).
    """
    try:
        yield
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError, UnicodeDecodeError) as error:
        raise ValueError(f"{file.name}: broken archive: {error}") from error


def _files(content: zipfile.ZipFile, archive: Archive) -> list[zipfile.ZipInfo]:
    """The files to unpack; every name is checked before the first byte is written."""
    seen: set[str] = set()
    for info in content.infolist():
        if told := _suspicious(info):
            raise ValueError(f"{archive.name} holds {info.orig_filename!r}, {told}: nothing was unpacked")
        if info.filename in seen:
            raise ValueError(f"{archive.name} holds {info.filename!r} twice: nothing was unpacked")
        seen.add(info.filename)
    wanted = [each for each in content.infolist() if not each.is_dir() and _top(each) in archive.holds]
    if absent := set(archive.holds) - {_top(each) for each in wanted}:
        raise ValueError(f"{archive.name} does not hold {', '.join(sorted(absent))}: nothing was unpacked")
    if (total := sum(each.file_size for each in wanted)) > archive.unpacked:
        raise ValueError(
            f"{archive.name} would unpack to {gigabytes(total)}, expected are at most {gigabytes(archive.unpacked)}: "
            "nothing was unpacked"
        )
    return wanted


def _suspicious(info: zipfile.ZipInfo) -> str:
    """What is wrong with an entry, if anything."""
    name, kind = info.orig_filename, stat.S_IFMT(info.external_attr >> 16)
    if name.startswith(("/", "\\")) or name[1:2] == ":":
        return "an absolute name"
    parts = name.removesuffix("/").split("/")
    if ".." in parts:
        return "a place outside the folder"
    if {"", "."} & set(parts) or "\\" in name or "\0" in name:
        return "a name that is none"
    if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
        return "which is a link" if kind == stat.S_IFLNK else "which is no regular file"
    return "which is encrypted" if info.flag_bits & 1 else ""


def _top(info: zipfile.ZipInfo) -> str:
    return PurePosixPath(info.filename).parts[0] if PurePosixPath(info.filename).parts else ""


def _is_there(path: Path, info: zipfile.ZipInfo) -> bool:
    """Whether a file has the content that the archive states; one that a kill cut short has not."""
    if not path.is_file() or path.stat().st_size != info.file_size:
        return False
    found = 0
    with path.open("rb") as file:
        while block := file.read(_CHUNK):
            found = zlib.crc32(block, found)
    return found == info.CRC


def _require_room(missing: list[zipfile.ZipInfo], root: Path) -> None:
    needed, free = sum(info.file_size for info in missing), shutil.disk_usage(root).free
    if needed > free:
        raise OSError(f"{root}: {gigabytes(needed)} are still to be unpacked, but only {gigabytes(free)} are free")


def _write(content: zipfile.ZipFile, info: zipfile.ZipInfo, target: Path, done: int, watch: Watch) -> int:
    """Unpacks one file; the library compares its CRC-32 and ends at the length that was stated."""
    target.parent.mkdir(parents=True, exist_ok=True)
    before = done
    with content.open(info) as source, target.open("wb") as file:
        while block := source.read(_CHUNK):
            file.write(block)
            watch.reached(done := done + len(block))
    if done - before != info.file_size:
        raise ValueError(f"{info.filename} has {done - before} bytes, the archive states {info.file_size}")
    return done


def _move(staging: Path, root: Path) -> None:
    for entry in sorted(staging.iterdir()):
        target = root / entry.name
        if not (entry.is_dir() and target.exists()):
            entry.replace(target)
            continue
        for path in sorted(path for path in entry.rglob("*") if path.is_file()):
            place = target / path.relative_to(entry)
            place.parent.mkdir(parents=True, exist_ok=True)
            path.replace(place)
    shutil.rmtree(staging)
