"""Any data set → shards: nothing is lost, nothing is half-written, and a kill costs one shard per process."""

import errno
import io
import itertools
import json
import os
import shutil
import signal
import time
import traceback
from collections import namedtuple
from typing import NoReturn

import numpy as np
import pyarrow as pa
import pytest
import torch
from data.real_files import looked_for, module
from data.test_datamodule import SPEC
from data.test_shards import shards, texts
from PIL import Image, ImageOps

from mmlit.data.coco import CocoCaptions
from mmlit.data.decode import decode
from mmlit.data.folder import with_pictures
from mmlit.data.shard_folder import write_shards
from mmlit.data.shard_writing import ShardMaker, Shrinking


@pytest.fixture
def source(coco, tmp_path):
    """Training split of 23 images with 1 … 3 captions, and another of 5."""
    coco("train", {3 * n + 1: [f"{n} größer", "more", "most"][: 1 + n % 3] for n in range(23)})
    coco("val", {n: ["one", "two"] for n in range(200, 205)}, first_caption=500)
    opened = CocoCaptions(
        root=tmp_path, annotations="annotations/captions_{split}2017.json", images="{split}2017", prepare=None
    )
    return lambda split: with_pictures(opened.read(split))


def write(parts, out, *, shorter_side=None, quality=90, per_shard=5, skip=False, workers=1):
    write_shards(
        parts, out=out, shrinking=Shrinking(shorter_side, quality), per_shard=per_shard, skip=skip, workers=workers
    )


def files(folder) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_training_on_shards_is_training_on_the_files(source, tmp_path, capsys):
    """The very same batches: pixels, token ids, ids."""
    parts = {"train": source("train"), "test": source("val")}
    write(parts, tmp_path / "out", workers=2)
    assert "out/train: 23 images with their captions in 5 shards" in capsys.readouterr().err
    for split, captions in parts.items():
        found = looked_for(shards(tmp_path / "out").read(split))
        assert texts(found) == texts(captions)
        for name in ("image_id", "text_id", "first"):
            assert np.array_equal(getattr(found, name), getattr(captions, name))
        assert [found.picture(n) for n in range(5)] == [captions.picture(n) for n in range(5)]
    options = {"image": SPEC, "batch_size": 4, "val": 3}
    opened = lambda root: CocoCaptions(  # noqa: E731
        root=root, annotations="annotations/captions_{split}2017.json", images="{split}2017", prepare=None
    )
    both = module(tmp_path / "out", shards, test="test", **options), module(tmp_path, opened, test="val", **options)
    for loader in ("train_dataloader", "val_dataloader", "test_dataloader"):
        for one, other in zip(*(list(getattr(data, loader)()) for data in both), strict=True):
            assert all(torch.equal(a, b) for a, b in zip(one, other, strict=True) if isinstance(a, torch.Tensor))


def odd_pictures() -> dict[str, bytes]:
    """Large and small ones of all kinds."""
    found = {}

    def add(name, picture, kind, **options):
        file = io.BytesIO()
        picture.save(file, kind, **options)
        found[name] = file.getvalue()

    ramp = Image.linear_gradient("L").resize((120, 80))
    exif = Image.Exif()
    exif[0x0112] = 6
    add("turned", ramp.convert("RGB"), "JPEG", exif=exif, quality=95)
    add("grey", ramp, "JPEG", quality=95)
    add("palette", ramp.convert("P"), "PNG")
    add("clear", Image.merge("LA", (ramp, ImageOps.mirror(ramp))).convert("RGBA"), "PNG")
    add("small", ramp.resize((30, 16)), "PNG")
    add("webp", ramp.resize((33, 32)).convert("RGB"), "WEBP")
    return found


def test_larger_pictures_are_shrunk_upright_and_others_are_copied(source):
    pictures = odd_pictures()
    captions = source("train")
    captions = captions.subset(np.arange(len(pictures)))._replace(
        blobs=pa.array([*pictures.values()], pa.binary()), blob=np.arange(len(pictures))
    )
    maker = ShardMaker(parts={}, shrinking=Shrinking(32, 95), skip=False)
    for number, (name, file) in enumerate(pictures.items()):
        sample = maker.sample(captions, number)
        ending, made = next((key, value) for key, value in sample.items() if key in ("jpg", "png", "webp"))
        if name in ("small", "webp"):
            assert made == file
            continue
        with Image.open(io.BytesIO(made)) as opened:
            assert (ending, opened.format, opened.mode) == ("jpg", "JPEG", "RGB"), name
            assert opened.size == ((32, 48) if name == "turned" else (48, 32)), name
            assert not opened.getexif()
        expected, found = (decode(each, SPEC, exact=True).float() for each in (file, made))
        assert (expected - found).abs().mean() < 3, name


@pytest.mark.slow
def test_a_killed_writing_goes_on(source, tmp_path, monkeypatch):
    """Trap 34: whenever two processes and the one that began them are killed, shards are whole, the end is the same."""
    parts = {"train": source("train"), "test": source("val")}
    write(parts, tmp_path / "undisturbed")
    expected = files(tmp_path / "undisturbed")
    slow = ShardMaker.sample
    monkeypatch.setattr(ShardMaker, "sample", lambda *given: time.sleep(0.01) or slow(*given))
    out, kills = tmp_path / "out", 0
    for attempt in range(30):
        child = os.fork()
        if child == 0:
            _write_and_end(parts, out)
        time.sleep(0.1 + 0.04 * (attempt % 6))
        os.kill(child, signal.SIGKILL)
        ended = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        _wait_for_group(child)
        if ended == 0:
            break
        assert ended == -signal.SIGKILL
        kills += 1
        for name in [name for name in files(out) if name.endswith("_stats.json")]:
            tar = name.replace("_stats.json", ".tar")
            assert (out / tar).read_bytes() == expected[tar]
        if (out / "shards.json").is_file() and list(out.glob("train/*.tar")):
            with pytest.raises(ValueError, match=r"out/train is not finished; the same `mmlit data shards` goes on"):
                shards(out).read("train")
    assert kills > 1
    write(parts, out)
    assert files(out) == expected


def test_killed_at_each_file_it_goes_on(source, tmp_path, monkeypatch):
    """Trap 34: each file in turn, the folder's own too, is whole on the disk but not yet in its place."""
    parts = {"train": source("train"), "test": source("val")}
    write(parts, tmp_path / "undisturbed")
    expected = files(tmp_path / "undisturbed")
    for number in range(2 * len(expected)):
        out = tmp_path / str(number)
        monkeypatch.setattr(os, "fsync", _killing(number))
        child = os.fork()
        if child == 0:
            _write_and_end(parts, out, workers=1)
        ended = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        monkeypatch.undo()
        if ended == 0:
            break
        assert ended == -signal.SIGKILL
        assert [name for name in files(out) if name.endswith(".tmp")]
        write(parts, out)
        assert files(out) == expected
    assert number == len([name for name in expected if name != ".lock"]) + 1, "shards.json is written twice"


def _killing(number: int):
    """`os.fsync` that kills its process at its call `number`."""
    calls = itertools.count()
    return lambda _: os.kill(os.getpid(), signal.SIGKILL) if next(calls) == number else None


def _write_and_end(parts, out, *, workers=2) -> NoReturn:
    """In a process that leads a group of its own, and must not go on as another pytest."""
    code = 1
    try:
        os.setpgrp()
        write(parts, out, workers=workers)
        code = 0
    except BaseException:  # noqa: BLE001  (the child must end here)
        traceback.print_exc()
    finally:
        os._exit(code)


def _wait_for_group(leader: int) -> None:
    """Its processes end when it ends; one that waits for a busy disk only when that is done, so half a minute."""
    for _ in range(600):
        try:
            os.killpg(leader, 0)
        except ProcessLookupError:
            return
        time.sleep(0.05)
    pytest.fail("a process outlived the one that began it")


def test_finished_shards_are_kept(source, tmp_path, capsys):
    out = tmp_path / "out"
    write({"train": source("train")}, out)
    before = {path: path.stat().st_mtime_ns for path in out.glob("train/*.tar")}
    gone = out / "train" / "00002.tar"
    gone.unlink()
    with pytest.raises(ValueError, match=r"out/train has 4 of its 5 shards"):
        shards(out).read("train")
    write({"train": source("train")}, out)
    assert "4 of 5 shards are there already" in " ".join(capsys.readouterr().err.split())
    assert [path for path, written in before.items() if path.stat().st_mtime_ns != written] == [gone]
    write({"val": source("val")}, out)
    assert set(json.loads((out / "shards.json").read_text())["parts"]) == {"train", "val"}
    assert shards(out).read("train+val").num_images == 28


def test_other_data_and_other_settings_are_refused(source, tmp_path):
    out = tmp_path / "out"
    write({"train": source("train")}, out)
    with pytest.raises(ValueError, match=r"begun with per_shard=5, now it is 6; name another --out"):
        write({"train": source("train")}, out, per_shard=6)
    with pytest.raises(ValueError, match=r"out/train was begun with other data than .*captions_val2017\.json"):
        write({"train": source("val")}, out)
    with pytest.raises(ValueError, match=r"holds 'annotations' and is no folder of shards"):
        write({"train": source("train")}, tmp_path)
    for option, value in (("per_shard", 0), ("shorter_side", 0), ("quality", 101)):
        with pytest.raises(ValueError, match=rf"--{option.replace('_', '-')} must .*, got {value}"):
            write({"train": source("train")}, tmp_path / "never", **{option: value})
    assert not (tmp_path / "never").exists()


def test_a_disk_without_room_is_told_before_anything_is_written(source, tmp_path, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda path: namedtuple("Usage", "free")(10_000))
    with pytest.raises(OSError, match=r"about 0\.0 GB are needed, but only 0\.0 GB are free"):
        write({"train": source("train")}, tmp_path / "out")
    assert not list(tmp_path.glob("out/train/*"))


def test_a_full_disk_leaves_no_half_shard(source, tmp_path, monkeypatch):
    def full(self, captions, image):
        if image == 12:
            raise OSError(errno.ENOSPC, "No space left on device")
        return {"__key__": str(image), "jpg": b"x"}

    monkeypatch.setattr(ShardMaker, "sample", full)
    monkeypatch.setattr(ShardMaker, "size", lambda *_: 1)
    with pytest.raises(OSError, match="No space left"):
        write({"train": source("train")}, tmp_path / "out")
    assert sorted(path.name for path in tmp_path.glob("out/train/*.tar")) == ["00000.tar", "00001.tar"]
    assert not [path for path in (tmp_path / "out").rglob("*") if path.name.endswith(".tmp")]


def test_unreadable_pictures_are_named_or_left_out(source, tmp_path, capsys):
    (tmp_path / "train2017" / "000000000007.jpg").write_bytes(b"broken")
    (tmp_path / "train2017" / "000000000010.jpg").unlink()
    parts = {"train": source("train")}
    with pytest.raises(FileNotFoundError, match=r"000000000010\.jpg"):
        write(parts, tmp_path / "out")
    Image.new("RGB", (3, 3)).save(tmp_path / "train2017" / "000000000010.jpg")
    parts = {"train": source("train")}
    with pytest.raises(ValueError, match=r"007\.jpg \(.*row 2 \(id 7\)\): not a readable picture.*on_error=skip"):
        write(parts, tmp_path / "out", workers=2)
    write(parts, tmp_path / "out", skip=True)
    told = " ".join(capsys.readouterr().err.split())
    assert "22 images with their captions in 5 shards" in told
    assert "left out: 1 picture that could not be read, the first" in told
    assert 7 not in shards(tmp_path / "out").read("train").image_id


def test_two_at_once_are_refused(source, tmp_path):
    from filelock import FileLock

    (tmp_path / "out").mkdir()
    with FileLock(tmp_path / "out" / ".lock"), pytest.raises(OSError, match=r"another process writes shards to .*out"):
        write({"train": source("train")}, tmp_path / "out")
