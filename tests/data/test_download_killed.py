"""`mmlit data coco` in processes of its own: killed at any time it goes on where it was, and two do not mix."""

import hashlib
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from data.broken_server import Server, published, zipped
from data.downloads import FILES, PICTURES, content, fetched, table

from mmlit.data.download.archives import Archive
from mmlit.data.download.plan import STATE

ROOT = Path(__file__).resolve().parents[2]


#: what a killed process runs: the archives as given, by its arguments
_PROGRAM = """
import sys
from pathlib import Path
from rich.console import Console
from mmlit.data.download.archives import Archive
from mmlit.data.download.download import download
from mmlit.data.download.fetch import Patience
url, size, sha256, root = sys.argv[1:]
archive = Archive(url, int(size), sha256, ("train2014",), 1 << 30)
download([archive], root=Path(root), keep_archives=False, console=Console(), patience=Patience(pause=0.01))
"""


def started(archive: Archive, root: Path) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, "-c", _PROGRAM, archive.url, str(archive.size), archive.sha256, str(root)],
        cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)}, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        text=True,
    )  # fmt: skip


def killed_at(archive: Archive, root: Path, reached: Callable[[], bool]) -> None:
    """Kills a download as soon as it got somewhere."""
    process = started(archive, root)
    until = time.monotonic() + 60
    while not reached():
        assert process.poll() is None, f"it ended before it could be killed: {process.communicate()[0]}"
        assert time.monotonic() < until
        time.sleep(0.001)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    process.communicate()


def many_files(count: int) -> dict[str, bytes]:
    return {f"train2014/{n:05d}.jpg": random.Random(n).randbytes(3000) for n in range(count)}


def names_in(folder: Path) -> int:
    return sum(1 for _ in folder.iterdir())


def survives(server: Server, root: Path, *, fetching: int, unpacking: int) -> None:
    """So many kills while bytes come, so many while files are written; then all is right, and nothing came twice."""
    files = many_files(1500)
    server.files["train2014.zip"] = made = zipped(files)
    server.tags["train2014.zip"], server.pause = '"one"', 0.004
    archive = published(server.url("train2014.zip"), made, ("train2014",))
    part = root / STATE / "train2014.zip.part"
    staging = root / STATE / "train2014.zip.unpacking" / "train2014"
    for kill in range(1, fetching + 1):
        aim = archive.size * kill // (fetching + 1)
        killed_at(archive, root, lambda: part.exists() and part.stat().st_size >= aim)  # noqa: B023
        assert aim <= part.stat().st_size < archive.size
    server.pause = 0.0
    for kill in range(1, unpacking + 1):
        aim = len(files) * kill // (unpacking + 2)
        killed_at(archive, root, lambda: staging.exists() and names_in(staging) >= aim)  # noqa: B023
        assert aim <= names_in(staging) < len(files), "killed while it unpacked"
        assert not (root / "train2014").exists(), "a folder appears as a whole"
    kept = {path.name: path.stat().st_mtime_ns for path in staging.iterdir()} if unpacking else {}
    process = started(archive, root)
    told, _ = process.communicate(timeout=60)
    assert process.returncode == 0, told
    assert content(root) == files
    again = [name for name, when in kept.items() if (root / "train2014" / name).stat().st_mtime_ns != when]
    assert len(again) <= 1, "only the file that was cut short is unpacked again"
    starts = [request.start for request in server.asked]
    assert starts == sorted(starts)
    assert len(starts) == fetching + (fetching == 0 or server.asked[-1].start > 0)
    assert [path.name for path in (root / STATE).iterdir() if path.name != "lock"] == ["train2014.zip.files.json"]


def test_killed_once_in_the_download_and_once_while_unpacking(server, tmp_path):
    survives(server, tmp_path, fetching=1, unpacking=1)


@pytest.mark.slow
def test_killed_many_times(server, tmp_path):
    survives(server, tmp_path, fetching=6, unpacking=6)


@pytest.mark.slow
def test_killed_anywhere(server, tmp_path):
    """Kills at times that nobody chose, also while an archive is checked or files are moved."""
    files = many_files(1500)
    server.files["train2014.zip"] = made = zipped(files)
    server.tags["train2014.zip"], server.pause = '"one"', 0.02
    archive = published(server.url("train2014.zip"), made, ("train2014",))
    chance, kills = random.Random(0), 0
    while True:
        process = started(archive, tmp_path)
        try:
            told, _ = process.communicate(timeout=0.4 + 0.05 * kills + 0.6 * chance.random())
            assert process.returncode == 0, told
            break
        except subprocess.TimeoutExpired:
            process.kill()
            process.communicate()
            kills += 1
            assert kills < 60
            server.pause = server.pause if kills < 10 else 0.0
    assert kills >= 3
    assert content(tmp_path) == files


def test_two_at_once_do_not_mix(server, tmp_path):
    server.pause = 0.01
    (archive, _) = table(server)
    process = started(archive, tmp_path)
    part = tmp_path / STATE / "train2014.zip.part"
    until = time.monotonic() + 60
    while not part.exists() and time.monotonic() < until:
        time.sleep(0.005)
    with pytest.raises(OSError, match="another process is fetching into this folder"):
        fetched((archive,), tmp_path)
    told, _ = process.communicate(timeout=60)
    assert process.returncode == 0, told
    assert content(tmp_path) == PICTURES
    assert hashlib.sha256(FILES["train2014.zip"]).hexdigest() == archive.sha256
