"""`mmlit data coco` against a server that misbehaves: whatever happens, right files or one clear error."""

import shutil
from pathlib import Path

import pytest
from data.downloads import EXPECTED, FILES, JSON, PICTURES, content, fetched, table

from mmlit.data.download import command
from mmlit.data.download.archives import COCO
from mmlit.data.download.plan import STATE


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
