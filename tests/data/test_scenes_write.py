"""Writing the data set: the same bytes for the same arguments, and all of it or nothing."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from mmlit.data.processes import available_cores
from mmlit.data.scenes.folder import all_or_nothing
from mmlit.data.scenes.negatives import CHANGES
from mmlit.data.scenes.write import write_scenes

COUNTS = {"train": 90, "val": 60, "test": 120}


def contents(root: Path) -> dict[str, bytes]:
    return {str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()}


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data") / "deep" / "scenes"
    write_scenes(root=folder, **COUNTS, size=32, seed=0, workers=1)
    return folder


def test_same_bytes_with_other_workers(root: Path, tmp_path: Path) -> None:
    write_scenes(root=tmp_path / "scenes", **COUNTS, size=32, seed=0, workers=2)
    assert contents(tmp_path / "scenes") == contents(root)


def test_a_split_does_not_depend_on_the_others(root: Path, tmp_path: Path) -> None:
    write_scenes(root=tmp_path / "scenes", train=1, val=60, test=2, size=32, seed=0, workers=1)
    new, old = contents(tmp_path / "scenes"), contents(root)
    same = [name for name in new if "val2017" in name or "sugarcrepe/val" in name]
    assert len(same) == 60 + 4 + 8
    assert all(new[name] == old[name] for name in same)
    assert {name for name in new if name.endswith(".jpg")} <= set(old)
    assert all(new[name] == old[name] for name in new if name.endswith(".jpg"))


def test_kinds_of_negatives_change_nothing_but_their_own_files(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for kind in ("replace_colour", "replace_size", "replace_count"):
        monkeypatch.delitem(CHANGES, kind)
    write_scenes(root=tmp_path / "scenes", train=2, val=60, test=1, size=32, seed=0, workers=1)
    fewer, every = contents(tmp_path / "scenes"), contents(root)
    same = [name for name in fewer if "val2017" in name or "sugarcrepe/val" in name or name.endswith(".jpg")]
    assert len(same) == 60 + 4 + 5 + 3
    assert all(every[name] == fewer[name] for name in same)
    assert len([name for name in every if "sugarcrepe/val" in name]) == 8


def test_another_seed_and_another_size(root: Path, tmp_path: Path) -> None:
    write_scenes(root=tmp_path / "seed", train=1, val=1, test=1, size=24, seed=1, workers=1)
    write_scenes(root=tmp_path / "size", train=1, val=1, test=1, size=24, seed=0, workers=1)
    old, seed, size = (
        json.loads((folder / "annotations/scene_graphs_test2017.json").read_text())["images"][0]
        for folder in (root, tmp_path / "seed", tmp_path / "size")
    )
    assert old == size != seed


def test_the_same_again_does_nothing(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = {path: path.stat().st_mtime_ns for path in root.rglob("*")}
    write_scenes(root=root, **COUNTS, size=32, seed=0)
    assert "already holds these scenes" in capsys.readouterr().err
    assert {path: path.stat().st_mtime_ns for path in root.rglob("*")} == before


def test_other_contents_are_refused_and_kept(root: Path, tmp_path: Path) -> None:
    before = contents(root)
    with pytest.raises(FileExistsError, match=r"holds other scenes .*'seed': 0.* than asked for .*'seed': 7"):
        write_scenes(root=root, **COUNTS, size=32, seed=7)
    assert contents(root) == before
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(FileExistsError, match="is not a set of scenes"):
        write_scenes(root=tmp_path, **COUNTS, size=32, seed=0)
    with pytest.raises(FileExistsError, match="is not a set of scenes"):
        write_scenes(root=tmp_path / "notes.txt", **COUNTS, size=32, seed=0)
    (tmp_path / "scenes.json").write_text("{")
    with pytest.raises(FileExistsError, match="cannot be read"):
        write_scenes(root=tmp_path, **COUNTS, size=32, seed=0)
    assert (tmp_path / "notes.txt").read_text() == "mine"


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"train": 0}, "train must be between 1 and 10,000,000 pictures, got 0"),
        ({"val": -1}, "val must be between 1 and 10,000,000 pictures, got -1"),
        ({"test": 10_000_001}, "test must be between 1 and 10,000,000 pictures, got 10000001"),
        ({"size": 23}, "size must be between 24 and 1024 pixels, got 23"),
        ({"size": 1025}, "size must be between 24 and 1024 pixels, got 1025"),
        ({"seed": -1}, "seed must be at least 0, got -1"),
        ({"workers": 0}, "workers must be at least 1, got 0"),
    ],
)
def test_wrong_arguments_are_refused_by_name(tmp_path: Path, wrong: dict[str, int], message: str) -> None:
    arguments = {"train": 1, "val": 1, "test": 1, "size": 32, "seed": 0, "workers": 1} | wrong
    with pytest.raises(ValueError, match=message):
        write_scenes(root=tmp_path / "scenes", **arguments)
    assert not list(tmp_path.iterdir())


def test_a_failure_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(**_: object) -> None:
        raise OSError("disk full")

    monkeypatch.setattr("mmlit.data.scenes.write.layout.true_pairs", fail)
    with pytest.raises(OSError, match="disk full"):
        write_scenes(root=tmp_path / "scenes", train=1, val=1, test=1, size=32, seed=0, workers=1)
    assert not list(tmp_path.iterdir())


SCRIPT = """
from pathlib import Path
import sys
from mmlit.data.scenes.write import write_scenes
if __name__ == "__main__":
    write_scenes(root=Path(sys.argv[1]), train=100_000, val=1, test=1, size=32, seed=0, workers=2)
"""


def test_a_killed_render_leaves_no_root_and_no_processes(tmp_path: Path) -> None:
    (tmp_path / "script.py").write_text(SCRIPT)
    command = [sys.executable, str(tmp_path / "script.py"), str(tmp_path / "scenes")]
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL, start_new_session=True)
    try:
        deadline = time.monotonic() + 60
        while not any(tmp_path.glob(".scenes.unfinished/train2017/*.jpg")):
            assert time.monotonic() < deadline, "no picture within a minute"
            time.sleep(0.05)
        with pytest.raises(FileExistsError, match="another process is writing"):
            write_scenes(root=tmp_path / "scenes", train=1, val=1, test=1, size=32, seed=0, workers=1)
    finally:
        process.kill()
        process.wait()
    assert not (tmp_path / "scenes").exists()
    while time.monotonic() < deadline and group_is_alive(process.pid):
        time.sleep(0.05)
    assert not group_is_alive(process.pid)
    write_scenes(root=tmp_path / "scenes", train=1, val=1, test=1, size=32, seed=0, workers=1)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["scenes", "script.py"]
    assert len(list((tmp_path / "scenes/train2017").iterdir())) == 1


def group_is_alive(group: int) -> bool:
    """Say whether a process of the group exists that is more than an uncollected exit status."""
    try:
        os.killpg(group, signal.SIGCONT)
    except ProcessLookupError:
        return False
    states = (path.read_text().rsplit(")", 1)[1].split() for path in Path("/proc").glob("[0-9]*/stat"))
    return any(int(fields[2]) == group and fields[0] != "Z" for fields in states)


def test_an_empty_root_is_taken_and_a_link_followed(tmp_path: Path) -> None:
    (tmp_path / "scenes").mkdir()
    (tmp_path / "link").symlink_to("scenes")
    write_scenes(root=tmp_path / "link", train=1, val=1, test=1, size=32, seed=0, workers=1)
    assert (tmp_path / "scenes" / "scenes.json").is_file()
    assert (tmp_path / "link").is_symlink()


def test_a_mount_point_is_refused() -> None:
    with (
        pytest.raises(FileExistsError, match="a file system is mounted at /proc"),
        all_or_nothing(Path("/proc")),
    ):
        pass


def test_available_cores() -> None:
    assert 1 <= available_cores() <= (os.cpu_count() or 1)
