"""A file is the old one or the whole new one."""

import signal
import subprocess
import sys
from pathlib import Path
from typing import BinaryIO

import pytest

from mmlit.results.atomic import write_atomically

KILLED_BEFORE_RENAME = """
import os, signal, sys
from pathlib import Path
from mmlit.results.atomic import write_atomically
Path.replace = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
write_atomically(Path(sys.argv[1]), b"new")
"""


def test_writes_bytes_and_what_a_function_writes(tmp_path: Path) -> None:
    path = write_atomically(tmp_path / "new" / "a.txt", b"one")
    assert path.read_bytes() == b"one"
    write_atomically(path, lambda file: file.write(b"two"))
    assert path.read_bytes() == b"two"
    assert [each.name for each in path.parent.iterdir()] == ["a.txt"]


def test_a_kill_between_write_and_rename_leaves_the_old_file(tmp_path: Path) -> None:
    """Trap 34."""
    path = write_atomically(tmp_path / "a.txt", b"old")
    killed = subprocess.run([sys.executable, "-c", KILLED_BEFORE_RENAME, str(path)], check=False)
    assert killed.returncode == -signal.SIGKILL
    assert path.read_bytes() == b"old"
    beside = [each for each in tmp_path.iterdir() if each != path]
    assert [each.read_bytes() for each in beside] == [b"new"], "the new content was complete, but not renamed"
    assert not beside[0].match("a.txt*"), "a search for the file must not find what is beside it"


def test_a_writer_that_fails_half_way_leaves_the_old_file_and_no_rest(tmp_path: Path) -> None:
    """Trap 34."""

    def fail(file: BinaryIO) -> None:
        file.write(b"half")
        raise RuntimeError("disk")

    path = write_atomically(tmp_path / "a.txt", b"old")
    with pytest.raises(RuntimeError, match="disk"):
        write_atomically(path, fail)
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_refused_rename_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Trap 34."""

    def refuse(*_: object) -> None:
        raise PermissionError("read-only")

    path = write_atomically(tmp_path / "a.txt", b"old")
    monkeypatch.setattr(Path, "replace", refuse)
    with pytest.raises(PermissionError):
        write_atomically(path, b"new")
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]
