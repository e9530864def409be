"""Kills, rivals and damage: a store is complete and right, or not there."""

import json
import os
import random
import signal
import time
import traceback

import pytest
import torch
from features.towers import MANNER, TellingEncoder, filled, reader, stores_in, towers
from filelock import FileLock

from mmlit.cli import main
from mmlit.features.layout import CHUNKS
from mmlit.features.stores import FeatureStores


def building(root, folder, *, pause: float, told=None) -> int:
    """A process that builds, waiting before each batch of pictures but those that are tried; its id."""
    encoders = towers()
    rows = reader(root, encoders)  # here, so that the process begins to build at once
    child = os.fork()
    if child:
        return child
    code = 1
    try:
        torch.set_num_threads(1)
        TellingEncoder.told = told
        TellingEncoder.before = staticmethod(lambda pixels: time.sleep(pause if len(pixels) > 2 else 0))
        FeatureStores(folder=str(folder), half=False).fill({"train": rows}, encoders, tokens=True, manner=MANNER)
        code = 0
    except BaseException:  # noqa: BLE001  (the child must end here)
        traceback.print_exc()
    finally:
        os._exit(code)


def images_of(folder):
    return next(path for path in stores_in(folder) if path.name.startswith("images"))


@pytest.mark.slow
def test_killed_in_the_middle_many_times(root, tmp_path, small_chunks):
    """Finished chunks are kept and never encoded again; half-written ones are not read."""
    filled(root, tmp_path / "whole")
    draw, markers, kills = random.Random(0), {}, 0
    for _ in range(60):
        child = building(root, tmp_path / "killed", pause=0.02)
        time.sleep(draw.uniform(0.03, 0.13))
        os.kill(child, signal.SIGKILL)
        _, status = os.waitpid(child, 0)
        for folder in stores_in(tmp_path / "killed"):
            assert not (folder / "meta.json").exists() or json.loads((folder / "meta.json").read_text())["chunks"]
            now = {path: path.stat().st_mtime_ns for path in (folder / CHUNKS).glob("*.json")}
            kept = {path: when for path, when in markers.items() if path.parent.parent == folder}
            if not (folder / "meta.json").exists():  # a store that is complete needs its markers no more
                assert kept.items() <= now.items()
            markers |= now
        if os.WIFEXITED(status):
            break
        kills += 1
    assert kills >= 3
    filled(root, tmp_path / "killed")
    for one, other in zip(stores_in(tmp_path / "whole"), stores_in(tmp_path / "killed"), strict=True):
        for name in ("pooled", "tokens"):
            assert (one / name).read_bytes() == (other / name).read_bytes()


def test_processes_that_want_the_same_share_the_work(root, tmp_path, small_chunks):
    """None of 60 pictures is encoded twice, but for those that each process tries before it begins."""
    told = tmp_path / "told"
    children = [building(root, tmp_path, pause=0.03, told=told) for _ in range(3)]
    assert [os.waitpid(child, 0)[1] for child in children] == [0, 0, 0]
    lines = told.read_text().split()
    assert sorted(map(len, lines)) == [*(len(line) for line in lines if len(line) == 2), 4, *[8] * 7]
    assert sum(len(line) for line in lines if len(line) > 2) == 60
    assert {path.name for path in images_of(tmp_path).iterdir()} == {"pooled", "tokens", "plan.json", "meta.json"}


def test_what_a_dead_process_had_claimed_is_taken_over(root, tmp_path, small_chunks):
    first = building(root, tmp_path, pause=60)
    while not list(tmp_path.glob("features/*/chunks/0*.lock")):
        time.sleep(0.01)
    second = building(root, tmp_path, pause=0)
    time.sleep(0.3)
    assert not (images_of(tmp_path) / "meta.json").exists()
    os.kill(first, signal.SIGKILL)
    os.waitpid(first, 0)
    assert os.waitpid(second, 0)[1] == 0
    assert (images_of(tmp_path) / "meta.json").exists()


def test_a_damaged_chunk_is_found_and_removed_by_name(root, tmp_path, small_chunks, capsys):
    filled(root, tmp_path)
    assert main(["features", "verify", "--folder", str(tmp_path)]) == 0
    assert capsys.readouterr().out.count(": sound") == 2
    store = images_of(tmp_path)
    with (store / "tokens").open("r+b") as file:
        file.seek(20 * 16 * 32 * 4 + 5)
        byte = file.read(1)
        file.seek(-1, os.SEEK_CUR)
        file.write(bytes([byte[0] ^ 1]))
    assert main(["features", "verify", "--folder", str(tmp_path)]) == 2
    out, err = capsys.readouterr()
    assert f"{store.name}: damaged\n  tokens of items 16 to 23 (bytes" in out
    assert "captions" in out
    assert out.count("damaged") == 1
    assert "1 damaged" in err
    assert main(["features", "remove", store.name, "--folder", str(tmp_path)]) == 0
    assert not store.exists()
    assert len(stores_in(tmp_path)) == 1


def test_a_file_that_was_cut_is_not_read(root, tmp_path, capsys):
    filled(root, tmp_path)
    store = images_of(tmp_path)
    os.truncate(store / "pooled", 100)
    with pytest.raises(
        ValueError, match=f"pooled has 100 bytes in place of 7,680; remove it: mmlit features remove {store.name}"
    ):
        filled(root, tmp_path)
    assert main(["features", "verify", store.name, "--folder", str(tmp_path)]) == 2
    assert "has 100 bytes" in capsys.readouterr().out


class StopError(Exception):
    """Ends a build in the middle."""


@pytest.fixture
def unfinished(root, tmp_path, small_chunks, monkeypatch):
    """The folder of a store of pictures of which 3 to 5 of 8 chunks are finished."""
    batches = []

    def before(pixels):
        batches.extend([len(pixels)] if len(pixels) > 2 else [])
        if len(batches) > 5:
            raise StopError

    with monkeypatch.context() as stopped:
        stopped.setattr(TellingEncoder, "before", staticmethod(before))
        with pytest.raises(StopError):
            filled(root, tmp_path / "begun")
    return images_of(tmp_path / "begun")


@pytest.mark.parametrize("name", ["pooled", "tokens"])
@pytest.mark.parametrize("damage", ["cut", "removed", "flipped"])
def test_a_finished_part_that_was_damaged_before_the_build_goes_on_is_encoded_anew(
    root, tmp_path, unfinished, caplog, name, damage
):
    finished = len(list((unfinished / CHUNKS).glob("[0-9]*.json")))
    path = unfinished / name
    content = path.read_bytes()
    if damage == "flipped":
        path.write_bytes(bytes([content[0] ^ 1]) + content[1:])
    else:
        path.write_bytes(content[:10])
        if damage == "removed":
            path.unlink()
    filled(root, tmp_path / "begun")
    lost = 1 if damage == "flipped" else finished
    assert f"{unfinished}: {lost} of 8 parts were damaged since they were finished; they are" in caplog.text
    filled(root, tmp_path / "whole")
    for part in ("pooled", "tokens"):
        assert (unfinished / part).read_bytes() == (images_of(tmp_path / "whole") / part).read_bytes()


def test_parts_that_are_sound_are_not_encoded_again(root, tmp_path, unfinished, caplog, monkeypatch):
    finished = len(list((unfinished / CHUNKS).glob("[0-9]*.json")))
    monkeypatch.setattr(TellingEncoder, "told", tmp_path / "told")
    next((unfinished / CHUNKS).glob("[0-9]*.json")).write_text("{}")  # a marker that tells nothing is none
    filled(root, tmp_path / "begun")
    lines = (tmp_path / "told").read_text().split()
    assert len([line for line in lines if len(line) > 2]) == 8 - finished + 1
    assert "damaged" not in caplog.text


@pytest.mark.parametrize("content", ["{}", "[]", '{"la', ""])
def test_what_tells_of_a_store_and_is_damaged_is_told_with_the_remedy(root, tmp_path, capsys, content):
    filled(root, tmp_path)
    store = images_of(tmp_path)
    (store / "meta.json").write_text(content)
    with pytest.raises(ValueError, match=rf"meta.json is damaged; remove it: mmlit features remove {store.name}"):
        filled(root, tmp_path)
    assert main(["features", "verify", "--folder", str(tmp_path)]) == 2
    assert f"{store.name}: damaged\n" in capsys.readouterr().out


def test_a_damaged_plan_is_told_with_the_remedy(root, tmp_path, unfinished):
    (unfinished / "plan.json").write_text("{}")
    with pytest.raises(ValueError, match=rf"plan.json is damaged; remove it: mmlit features remove {unfinished.name}"):
        filled(root, tmp_path / "begun")


def test_the_list_says_what_lies_there(root, tmp_path, capsys):
    filled(root, tmp_path, half=True)
    assert main(["features", "list", "--folder", str(tmp_path)]) == 0
    lines = capsys.readouterr().out.splitlines()
    (line,) = [line for line in lines if line.startswith("images-")]
    for word in ("60 images of train", "TellingEncoder", "32-true on cpu, exact, kept in fp16", "complete", "0.1 MiB"):
        assert word in line
    assert main(["features", "list", "--json", "--folder", str(tmp_path)]) == 0
    assert {row["state"] for row in json.loads(capsys.readouterr().out)} == {"complete"}


def test_a_store_that_is_being_built_is_not_removed(root, tmp_path, small_chunks, capsys):
    child = building(root, tmp_path, pause=0.3)
    while not list(tmp_path.glob("features/*/chunks/0*.lock")):
        time.sleep(0.01)
    store = stores_in(tmp_path)[0]
    with pytest.raises(SystemExit):
        main(["features", "remove", store.name, "--folder", str(tmp_path)])
    assert "is being built; wait for that run or stop it" in capsys.readouterr().err
    main(["features", "list", "--folder", str(tmp_path)])
    assert "being built, 0 of" in capsys.readouterr().out
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    assert main(["features", "remove", store.name, "--folder", str(tmp_path)]) == 0


def test_wrong_names_and_folders_are_told(tmp_path, capsys):
    for words, told in (
        (["list", "--folder", str(tmp_path / "none")], "is not a directory: name the runs' paths.cache with --folder"),
        (["remove", "../x", "--folder", str(tmp_path)], "holds no ../x; see mmlit features list"),
    ):
        with pytest.raises(SystemExit):
            main(["features", *words])
        assert told in capsys.readouterr().err
    assert main(["features", "list", "--folder", str(tmp_path)]) == 0
    assert "holds no store" in capsys.readouterr().out


def test_locks_end_with_their_process(tmp_path):
    """What all of this stands on."""
    if not (child := os.fork()):
        FileLock(tmp_path / "x.lock").acquire()
        os._exit(0)
    os.waitpid(child, 0)
    with FileLock(tmp_path / "x.lock", timeout=0):
        pass
