"""An HTTP server of the test's own that breaks connections, serves other files, and knows ranges or not."""

import hashlib
import io
import re
import threading
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, NamedTuple

from mmlit.data.download.archives import Archive


class Request(NamedTuple):
    """What was asked, and how it was answered."""

    path: str
    start: int
    status: int


class Server(ThreadingHTTPServer):
    """Serves `files`; the attributes say how badly.

    Attributes:
        ranges: whether a part of a file can be asked for.
        tags: what the server calls a file's version; a missing path has no tag.
        breaks: bytes after which an answer breaks, one for each to come; None: it does not.
        statuses: codes of the answers to come, in place of a file; then `always`, if it is not 0.
        ignores_if_range: sends a piece of whatever version it has.
        pause: seconds between two pieces of 16 KiB.
    """

    daemon_threads = True

    def __init__(self, files: dict[str, bytes]) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.files = files
        self.tags = {path: f'"{hashlib.md5(content).hexdigest()}"' for path, content in files.items()}  # noqa: S324
        self.ranges, self.ignores_if_range, self.states_length, self.pause = True, False, True, 0.0
        self.breaks: list[int | None] = []
        self.statuses: list[int] = []
        self.always = 0
        self.asked: list[Request] = []

    def url(self, name: str) -> str:
        return f"http://127.0.0.1:{self.server_port}/{name}"

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that was killed is no news."""


class _Handler(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        server, path = self.server, self.path[1:]
        status = server.statuses.pop(0) if server.statuses else server.always
        if status or path not in server.files:
            self._note(status or 404, 0)
            self.send_error(status or 404)
            return
        content, tag = server.files[path], server.tags.get(path)
        start = self._start(tag)
        if start > len(content):
            self._note(416, start)
            self.send_error(416)
            return
        self._note(206 if start else 200, start)
        self.send_response(206 if start else 200)
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        if tag:
            self.send_header("ETag", tag)
        if server.states_length:
            self.send_header("Content-Length", str(len(content) - start))
        self.end_headers()
        self._send(content[start:])

    def _start(self, tag: str | None) -> int:
        asked = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
        same = self.headers.get("If-Range") == tag or self.server.ignores_if_range
        return int(asked[1]) if asked and self.server.ranges and same else 0

    def _send(self, content: bytes) -> None:
        end = self.server.breaks.pop(0) if self.server.breaks else None
        for place in range(0, len(content[:end]), 1 << 14):
            self.wfile.write(content[place : min(place + (1 << 14), end or len(content))])
            if self.server.pause:
                threading.Event().wait(self.server.pause)
        self.close_connection = True

    def _note(self, status: int, start: int) -> None:
        self.server.asked.append(Request(self.path[1:], start, status))

    def log_message(self, *_: object) -> None:
        """Nothing on the screen of a test."""


@contextmanager
def serving(files: dict[str, bytes]) -> Iterator[Server]:
    """A server for the time of a test."""
    with Server(files) as server:
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        yield server
        server.shutdown()


def zipped(files: Mapping[str | zipfile.ZipInfo, bytes], *, stored: bool = True) -> bytes:
    """A zip file with these members, in this order."""
    place = io.BytesIO()
    with zipfile.ZipFile(place, "w", zipfile.ZIP_STORED if stored else zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return place.getvalue()


def published(url: str, content: bytes, holds: tuple[str, ...], unpacked: int = 1 << 30) -> Archive:
    """What a list of checksums would say about a file."""
    return Archive(url, len(content), hashlib.sha256(content).hexdigest(), holds, unpacked)
