"""One file over HTTP: it goes on where it broke off, and is checked before it gets its name."""

import hashlib
import json
import re
from http import HTTPStatus
from pathlib import Path
from typing import NamedTuple

import requests

from mmlit.data.download.archives import Archive
from mmlit.data.download.watch import Watch

#: bytes that are written at once; what a break loses
_CHUNK = 1 << 16
_PASSING = {408, 425, 429, 500, 502, 503, 504}


class Patience(NamedTuple):
    """How long a server may be out of reach.

    Attributes:
        attempts: how often in a row a file is tried without getting on.
        pause: before the second of them, in s; doubled for each further one.
        timeout: without a byte, in s.
    """

    attempts: int = 6
    pause: float = 1.0
    timeout: float = 30.0


class _BrokenError(Exception):
    """A try ended before the file did; the next one may do better."""


def fetch(archive: Archive, folder: Path, *, watch: Watch, patience: Patience) -> Path:
    """The file in `folder`, by its own name only once it is whole and its SHA-256 is the published one.

    What has come is kept in `NAME.part`, beside it what the server calls this version of the file. The next try asks
    for the rest on condition that it is still that version (RFC 9110, sections 13.1.5 and 14.2), and begins anew where
    the server names no version, knows no ranges, or has another version by now.

    Raises:
        ValueError: the server has another file or none, or the SHA-256 is wrong; wrong bytes are then removed.
        OSError: the server stays out of reach, or the disk refuses; what has come is kept.
    """
    part = folder / f"{archive.name}.part"
    best, failed = length(part), 0
    watch.stage("fetching", archive.size, best)
    while length(part) < archive.size:
        try:
            _receive(archive, part, watch, patience.timeout)
        except _BrokenError as error:
            # A hundredth more than ever counts as getting on: some servers break every long answer.
            if length(part) > best + archive.size // 100:
                best, failed = length(part), 0
            failed += 1
            if failed >= patience.attempts:
                raise OSError(f"{archive.url}: {error}; gave up after {failed} attempts") from None
            watch.tell(f"{error}; trying again")
            watch.wait(patience.pause * 2 ** (failed - 1))
    try:
        check(archive, part, watch)
    except ValueError as error:
        discard(part)
        raise ValueError(f"{archive.url}: {error}; it was removed") from None
    part.replace(folder / archive.name)
    _version(part).unlink(missing_ok=True)
    return folder / archive.name


def check(archive: Archive, file: Path, watch: Watch) -> None:
    """Reads a file.

    Raises:
        ValueError: its length or its SHA-256 is not the published one.
    """
    if length(file) != archive.size:
        raise ValueError(f"{file.name} has {length(file):,} bytes, published are {archive.size:,}")
    watch.stage("checking", archive.size)
    digest = hashlib.sha256()
    done = 0
    with file.open("rb") as content:
        while block := content.read(1 << 20):
            digest.update(block)
            watch.reached(done := done + len(block))
    if digest.hexdigest() != archive.sha256:
        raise ValueError(f"{file.name} has the SHA-256 {digest.hexdigest()}, published is {archive.sha256}")


def length(file: Path) -> int:
    """Bytes of a file, 0 if there is none."""
    return file.stat().st_size if file.exists() else 0


def _receive(archive: Archive, part: Path, watch: Watch, timeout: float) -> None:
    """One request, and all that comes of it."""
    have, version = _kept(part)
    headers = {"Accept-Encoding": "identity"}
    if have:
        headers |= {"Range": f"bytes={have}-", "If-Range": version}
    try:
        with requests.get(archive.url, headers=headers, stream=True, timeout=timeout) as response:
            _refuse(archive, part, response)
            if response.status_code == HTTPStatus.PARTIAL_CONTENT:
                if not _is_the_rest(archive, response, have, version):
                    discard(part)
                    raise _BrokenError("the server sent another piece than was asked for")
            else:
                have = 0
                _begin(archive, part, response)
            _append(archive, part, response, have, watch)
    except (requests.ConnectionError, requests.Timeout, requests.exceptions.ChunkedEncodingError) as error:
        raise _BrokenError(_innermost(error)) from error
    if length(part) < archive.size:
        raise _BrokenError(f"the server ended after {length(part):,} of {archive.size:,} bytes")


def _refuse(archive: Archive, part: Path, response: requests.Response) -> None:
    """Raises for everything but a file or a piece of it."""
    code = response.status_code
    if code == HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE:  # what the server has is shorter than what has come
        discard(part)
        raise _BrokenError(f"HTTP {code} {response.reason}")
    if code in _PASSING:
        raise _BrokenError(f"HTTP {code} {response.reason}")
    if code not in (HTTPStatus.OK, HTTPStatus.PARTIAL_CONTENT):
        raise ValueError(f"{archive.url}: HTTP {code} {response.reason}")


def _is_the_rest(archive: Archive, response: requests.Response, have: int, version: str) -> bool:
    """Some servers send a piece of another version, although they were asked not to."""
    said = re.fullmatch(r"bytes (\d+)-\d+/(\d+|\*)", response.headers.get("Content-Range", ""))
    same = response.headers.get("ETag", version) == version or not version.startswith('"')
    return have > 0 and same and said is not None and int(said[1]) == have and said[2] in ("*", str(archive.size))


def _begin(archive: Archive, part: Path, response: requests.Response) -> None:
    """The file comes from its first byte on; what was kept of another version goes."""
    announced = response.headers.get("Content-Length", str(archive.size))
    if announced != str(archive.size):
        raise ValueError(
            f"{archive.url}: the server announces {announced} bytes, published are {archive.size}; "
            "this is another file, nothing of it was kept"
        )
    discard(part)
    tag = response.headers.get("ETag", "")
    # Weak tags promise no equal bytes, so no server may compare them for If-Range.
    version = tag if tag.startswith('"') else response.headers.get("Last-Modified", "")
    if version:
        write_json(_version(part), {"version": version})


def _append(archive: Archive, part: Path, response: requests.Response, have: int, watch: Watch) -> None:
    with part.open("ab") as file:
        for chunk in response.iter_content(_CHUNK):
            have += len(chunk)
            if have <= archive.size:
                file.write(chunk)
                watch.reached(have)
    if have > archive.size:
        discard(part)
        raise ValueError(f"{archive.url}: more than the published {archive.size} bytes came; they were removed")


def _kept(part: Path) -> tuple[int, str]:
    """Bytes that have come, and the version of the file they are of; (0, "") if that is not known."""
    try:
        version = json.loads(_version(part).read_text())["version"]
    except (FileNotFoundError, ValueError):
        return 0, ""
    return length(part), version


def _version(part: Path) -> Path:
    return part.with_name(f"{part.name}.json")


def discard(part: Path) -> None:
    """Removes what has come of a file: the bytes first, for without their version they are never gone on with."""
    part.unlink(missing_ok=True)
    _version(part).unlink(missing_ok=True)


def write_json(path: Path, content: object) -> None:
    """The whole file or the old one, whatever happens meanwhile."""
    beside = path.with_name(f"{path.name}.tmp")
    beside.write_text(json.dumps(content))
    beside.replace(path)


def _innermost(error: BaseException) -> str:
    """What the system said, without the layers around it."""
    while (cause := error.__cause__ or error.__context__) is not None:
        error = cause
    return str(error) or type(error).__name__
