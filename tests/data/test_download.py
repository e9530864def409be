"""`mmlit data coco` against a server that misbehaves: whatever happens, right files or one clear error."""

import hashlib
import io
import os
import random
import shutil
import signal
import stat
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from data.broken_server import Server, published, serving, zipped
from rich.console import Console

from mmlit.data.download import command
from mmlit.data.download.archives import COCO, Archive
from mmlit.data.download.download import download
from mmlit.data.download.fetch import Patience
from mmlit.data.download.plan import STATE

ROOT = Path(__file__).resolve().parents[2]
PICTURES = {f"train2014/{n:012d}.jpg": random.Random(n).randbytes(20_000) for n in range(30)}
JSON = {"dataset_coco.json": b"[1, 2]" * 999, "dataset_flickr8k.json": b"[]"}
FILES = {"train2014.zip": zipped(PICTURES), "caption_datasets.zip": zipped(JSON, stored=False)}
HOLDS = {"train2014.zip": ("train2014",), "caption_datasets.zip": ("dataset_coco.json",)}


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with serving(dict(FILES)) as server:
        yield server


def table(server: Server) -> tuple[Archive, ...]:
    return tuple(published(server.url(name), content, HOLDS[name]) for name, content in FILES.items())


def fetched(archives: tuple[Archive, ...], root: Path, *, keep: bool = False, attempts: int = 3) -> str:
    """Downloads; returns what was told."""
    said = io.StringIO()
    patience = Patience(attempts=attempts, pause=0.001, timeout=5)
    download(archives, root=root, keep_archives=keep, console=Console(file=said), patience=patience)
    return said.getvalue()


def content(root: Path) -> dict[str, bytes]:
    """All files below a folder but the downloader's own."""
    files = (path for path in root.rglob("*") if path.is_file())
    return {path.relative_to(root).as_posix(): path.read_bytes() for path in files if STATE not in path.parts}


EXPECTED = {**PICTURES, "dataset_coco.json": JSON["dataset_coco.json"]}


def arguments(root: Path, *options: str) -> "command.argparse.Namespace":
    parser = command.argparse.ArgumentParser()
    command.add_arguments(parser)
    return parser.parse_args(["--root", str(root), *options])


def test_the_table_names_what_the_data_sets_read():
    """Every size and SHA-256 is one of the published list's; 2014 brings what `data=coco_karpathy` reads."""
    for archives in COCO.values():
        for archive in archives:
            assert len(archive.sha256) == 64
            assert int(archive.sha256, 16)
            assert archive.unpacked > archive.size
            assert archive.name.endswith(".zip")
    held = {year: {name for archive in archives for name in archive.holds} for year, archives in COCO.items()}
    assert held == {
        "2014": {"train2014", "val2014", "annotations", "dataset_coco.json"},
        "2017": {"train2017", "val2017", "annotations"},
    }
    assert sum(archive.size for archive in COCO["2014"]) == 20_445_205_257


def test_the_command_fetches_tells_how_to_go_on_and_then_does_nothing(server, tmp_path, capsys):
    root, given = tmp_path / "my coco", {"2014": table(server), "2017": ()}
    assert command.run(arguments(root, "--dry-run"), given) == 0
    assert "train2014.zip" in (told := capsys.readouterr().out)
    assert "disk: " in told
    assert server.asked == []
    assert not root.exists()
    assert command.run(arguments(root), given) == 0
    told = capsys.readouterr().out
    assert "30 files in train2014" in told
    assert f"Next: python train.py experiment=smoke data=coco_karpathy 'data.root={root}'" in told
    assert content(root) == EXPECTED
    asked = len(server.asked)
    assert command.run(arguments(root), given) == 0
    assert "everything is there already" in (told := capsys.readouterr().out)
    assert "data=coco_karpathy" in told
    assert len(server.asked) == asked


def test_what_is_damaged_or_gone_later_comes_back(server, tmp_path):
    fetched(table(server), tmp_path)
    (tmp_path / "train2014" / "000000000003.jpg").unlink()
    (tmp_path / "train2014" / "000000000004.jpg").write_bytes(b"short")
    fetched(table(server), tmp_path)
    assert content(tmp_path) == EXPECTED
    assert [request.path for request in server.asked].count("caption_datasets.zip") == 1


def test_archives_are_kept_on_request_and_used_where_they_lie(server, tmp_path):
    fetched(table(server), tmp_path, keep=True)
    assert content(tmp_path) == EXPECTED | FILES
    shutil.rmtree(tmp_path / "train2014")
    shutil.rmtree(tmp_path / STATE)
    asked = len(server.asked)
    fetched(table(server), tmp_path)
    assert content(tmp_path) == EXPECTED | FILES
    assert len(server.asked) == asked


def test_an_archive_of_the_users_own_that_is_not_whole_is_named_and_left_alone(server, tmp_path):
    (tmp_path / "train2014.zip").write_bytes(b"half")
    with pytest.raises(ValueError, match=r"train2014.zip has 4 bytes, published are .*; move it away"):
        fetched(table(server), tmp_path)
    assert (tmp_path / "train2014.zip").read_bytes() == b"half"
    assert content(tmp_path)["dataset_coco.json"] == JSON["dataset_coco.json"], "the other archive went on"


def test_a_broken_connection_goes_on_where_ranges_are_offered(server, tmp_path):
    server.breaks = [200_000, 150_000]
    (archive, _) = table(server)
    assert "trying again" in fetched((archive,), tmp_path)
    assert content(tmp_path) == PICTURES
    assert [request.status for request in server.asked] == [200, 206, 206]
    starts = [request.start for request in server.asked]
    assert 100_000 < starts[1] <= 200_000 < starts[2]


@pytest.mark.parametrize("missing", ["ranges", "tag", "strong tag"])
def test_a_broken_connection_begins_anew_where_going_on_is_not_safe(server, tmp_path, missing):
    (archive, _) = table(server)
    server.breaks = [400_000, 100_000]
    if missing == "ranges":
        server.ranges = False
    else:
        server.tags = {archive.name: f"W/{server.tags[archive.name]}"} if missing == "strong tag" else {}
    fetched((archive,), tmp_path)
    assert content(tmp_path) == PICTURES
    assert [(request.start, request.status) for request in server.asked] == [(0, 200)] * 3


@pytest.mark.parametrize("ignores", [False, True], ids=["whole", "piece of the new one"])
def test_a_file_that_changes_between_two_tries_is_not_mixed(server, tmp_path, ignores):
    """Old and new have one length, so that only the ETag tells them apart."""
    (archive, _) = table(server)
    right = server.files[archive.name]
    server.files[archive.name], server.tags[archive.name] = bytes(len(right)), '"old"'
    server.breaks, server.ignores_if_range = [300_000], ignores
    with pytest.raises(OSError, match="gave up after 1 attempts"):
        fetched((archive,), tmp_path, attempts=1)
    server.files[archive.name], server.tags[archive.name] = right, '"new"'
    fetched((archive,), tmp_path)
    assert content(tmp_path) == PICTURES
    assert server.asked[-1].start == 0


def test_a_file_that_became_shorter_is_begun_anew_and_refused(server, tmp_path):
    (archive, _) = table(server)
    server.breaks = [300_000]
    with pytest.raises(OSError, match="gave up"):
        fetched((archive,), tmp_path, attempts=1)
    server.files[archive.name] = server.files[archive.name][:1000]
    server.ignores_if_range = True
    with pytest.raises(ValueError, match="the server announces 1000 bytes"):
        fetched((archive,), tmp_path)


@pytest.mark.parametrize("stated", [True, False])
def test_a_wrong_file_is_named_and_removed(server, tmp_path, stated):
    (archive, _) = table(server)
    server.states_length = stated
    server.files[archive.name] = bytes(archive.size)
    with pytest.raises(ValueError, match=r"/train2014.zip: .* has the SHA-256 [0-9a-f]{64}, published is [0-9a-f]{64}"):
        fetched((archive,), tmp_path)
    server.files[archive.name] = bytes(archive.size + 1)
    with pytest.raises(ValueError, match=r"/train2014.zip: .* published"):
        fetched((archive,), tmp_path)
    assert [path.name for path in tmp_path.rglob("*") if path.is_file()] == ["lock"]
    server.files[archive.name] = FILES[archive.name]
    fetched((archive,), tmp_path)
    assert content(tmp_path) == PICTURES


def test_a_server_that_is_away_for_a_moment_is_asked_again(server, tmp_path):
    server.statuses = [503, 429]
    fetched(table(server)[:1], tmp_path)
    assert content(tmp_path) == PICTURES


@pytest.mark.parametrize(
    ("status", "error", "asked", "told"),
    [(404, ValueError, 1, "HTTP 404 Not Found"), (503, OSError, 3, "HTTP 503 .*gave up after 3 attempts")],
)
def test_a_server_that_refuses_gives_one_error(server, tmp_path, status, error, asked, told):
    server.always = status
    with pytest.raises(error, match=f"/train2014.zip: {told}"):
        fetched(table(server)[:1], tmp_path)
    assert len(server.asked) == asked


def test_all_that_fails_is_told_at_once(server, tmp_path):
    server.files.clear()
    with pytest.raises(ValueError, match=r"train2014.zip: HTTP 404 .*; .*caption_datasets.zip: HTTP 404"):
        fetched(table(server), tmp_path)


def test_a_root_that_is_a_file(server, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(ValueError, match=r"--root .*file is no folder"):
        fetched(table(server), tmp_path / "file")


def test_nobody_listens(server, tmp_path):
    (archive, _) = table(server)
    with pytest.raises(OSError, match=r"x.zip: .*refused; gave up after 3 attempts"):
        fetched((archive._replace(url="http://127.0.0.1:9/x.zip"),), tmp_path)


def member(name: str, mode: int = stat.S_IFREG | 0o644) -> zipfile.ZipInfo:
    info = zipfile.ZipInfo(name)
    info.create_system, info.external_attr = 3, mode << 16
    return info


def bomb() -> bytes:
    """States 10 bytes, is 10 MB."""
    honest = zipped({member("train2014/a.jpg"): bytes(10_000_000)}, stored=False)
    size = (10_000_000).to_bytes(4, "little")
    assert honest.count(size) >= 2
    return honest.replace(size, (10).to_bytes(4, "little"))


@pytest.mark.parametrize(
    ("make", "told"),
    [
        (lambda: zipped({member("../evil"): b"x", **PICTURES}), "a place outside the folder"),
        (lambda: zipped({**PICTURES, member("train2014/../../evil"): b"x"}), "a place outside the folder"),
        (lambda: zipped({member("/tmp/evil"): b"x", **PICTURES}), "an absolute name"),
        (lambda: zipped({member("C:/evil"): b"x", **PICTURES}), "an absolute name"),
        (lambda: zipped({member("train2014\\..\\evil"): b"x", **PICTURES}), "a name that is none"),
        (lambda: zipped({member("train2014/l", stat.S_IFLNK | 0o777): b"/etc", **PICTURES}), "which is a link"),
        (lambda: zipped({member("train2014/p", stat.S_IFIFO | 0o777): b"", **PICTURES}), "which is no regular file"),
        (lambda: zipped({member("train2014/a"): b"1", member("train2014/./a"): b"2"}), "a name that is none"),
        (lambda: zipped({"train2014/a": bytes(2_000_000)}, stored=False), "would unpack to 2.0 MB, .* at most 1.0 MB"),
        (lambda: zipped({"elsewhere/a": b"1"}), "does not hold train2014"),
        (bomb, "broken archive: Bad CRC-32"),
        (lambda: FILES["train2014.zip"][:-300], "broken archive"),
        (lambda: FILES["train2014.zip"].replace(PICTURES["train2014/000000000007.jpg"], bytes(20_000)), "Bad CRC-32"),
    ],
)  # fmt: skip
def test_an_archive_that_is_not_to_be_trusted_leaves_nothing_behind(
    server: Server, tmp_path: Path, make: Callable[[], bytes], told: str
):
    root = tmp_path / "a" / "b"
    server.files["train2014.zip"] = made = make()
    archive = published(server.url("train2014.zip"), made, ("train2014",), 1_000_000)
    with pytest.raises(ValueError, match=rf"train2014.zip.*{told}"):
        fetched((archive,), root)
    assert content(root) == {}
    assert [path.name for path in (root / STATE).iterdir()] == ["lock"], "the next call fetches it anew"
    assert sorted(path.name for path in tmp_path.rglob("*") if not path.is_relative_to(root / STATE)) == ["a", "b"]


def test_the_same_file_twice_is_refused(server, tmp_path):
    with pytest.warns(UserWarning, match="Duplicate name"):
        made = zipped({member("train2014/a"): b"1", member("train2014/a"): b"2"})
    server.files["train2014.zip"] = made
    with pytest.raises(ValueError, match="'train2014/a' twice"):
        fetched((published(server.url("train2014.zip"), made, ("train2014",)),), tmp_path)


def test_folders_that_are_there_are_added_to(server, tmp_path):
    """Archives of both years bring `annotations`; a picture of an unpacking that was cut short is replaced."""
    (tmp_path / "train2014").mkdir()
    (tmp_path / "train2014" / "mine.txt").write_text("stays")
    right = PICTURES["train2014/000000000005.jpg"]
    (tmp_path / "train2014" / "000000000005.jpg").write_bytes(right[:500])
    (tmp_path / "train2014" / "000000000006.jpg").write_bytes(bytes(len(right)))
    fetched(table(server), tmp_path)
    assert content(tmp_path) == EXPECTED | {"train2014/mine.txt": b"stays"}


def test_a_full_disk_is_told_before_anything_is_asked(server, tmp_path, monkeypatch, capsys):
    free = shutil.disk_usage(tmp_path)._replace(free=1000)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: free)
    with pytest.raises(
        OSError, match=r"2\.15 GB are needed \(0\.6 MB to fetch, up to 2\.15 GB .* but only 0\.0 MB are free"
    ):
        fetched(table(server), tmp_path / "new")
    with pytest.raises(OSError, match="are needed"):
        command.run(arguments(tmp_path / "new", "--dry-run"), {"2014": table(server), "2017": ()})
    assert server.asked == []
    assert not (tmp_path / "new").exists()


def test_a_disk_that_fills_up_meanwhile_keeps_the_archive(server, tmp_path, monkeypatch):
    (archive, _) = table(server)
    real = shutil.disk_usage(tmp_path)
    answers = iter([real._replace(free=10 << 30), real._replace(free=1000)])
    with monkeypatch.context() as patch:
        patch.setattr(shutil, "disk_usage", lambda _: next(answers))
        with pytest.raises(OSError, match=r"0\.6 MB are still to be unpacked, but only 0\.0 MB are free"):
            fetched((archive,), tmp_path)
    fetched((archive,), tmp_path)
    assert content(tmp_path) == PICTURES
    assert len(server.asked) == 1


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
