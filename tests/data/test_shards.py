"""Shards are read where they lie, whole or not at all, in an order that is local."""

import gzip
import json
import logging
import tarfile
from hashlib import sha256

import numpy as np
import pytest
import torch
from data.real_files import content, is_compact, looked_for, module
from data.shard_files import jpeg, sample, write_img2dataset, write_shard

from mmlit.cli import main
from mmlit.data.batching import AllCaptions, EachCaption, OneCaption
from mmlit.data.captions import Captions
from mmlit.data.sampling import EpochSampler
from mmlit.data.shards import Shards


def shards(root, **changes) -> Shards:
    options = {"shards": "{split}/*.tar", "captions": "caption", "incomplete": "raise", "window": 1000}
    return Shards(root=root, **options | changes)


def texts(captions: Captions) -> list[list[str]]:
    return [[captions.texts[text].as_py() for text in captions.texts_of(n)] for n in range(captions.num_images)]


def test_what_img2dataset_leaves(tmp_path):
    write_img2dataset(tmp_path / "train", size=7, per_shard=3)
    captions = looked_for(shards(tmp_path).read("train"))
    assert is_compact(captions)
    assert captions.files.to_pylist() == [f"train/{n // 3:05d}.tar" for n in range(7)]
    assert texts(captions) == [[f"caption {n}"] for n in range(7)]
    assert [captions.picture(n) for n in range(7)] == [jpeg(n) for n in range(7)]
    assert len({*captions.image_id.tolist(), *captions.text_id.tolist()}) == 14
    assert captions.name(4) == f"{tmp_path}/train/00001.tar: 000000004.jpg"
    again = shards(tmp_path).read("train")
    assert again.digest == shards(tmp_path, window=5).read("train").digest
    assert again.image_id.tolist() == captions.image_id.tolist()


def test_captions_and_ids_of_the_json(tmp_path):
    write_shard(tmp_path / "train" / "0.tar", {
        "a/one": sample(0, "first", "second ", image_id=7, text_ids=[70, 71]),
        "a/two": {"png": jpeg(1), "txt": "from the text\n", "json": {"better": "from a model"}},
        "three": {"webp": jpeg(2), "json": {"caption": "alone"}, "cls": "5"},
    })  # fmt: skip
    captions = shards(tmp_path).read("train")
    assert texts(captions) == [["first", "second "], ["from the text"], ["alone"]]
    assert captions.image_id[0] == 7
    assert captions.text_id[:2].tolist() == [70, 71]
    assert texts(shards(tmp_path, captions="better", incomplete="skip").read("train")) == [["first"], ["from a model"]]
    with pytest.raises(ValueError, match=r"1 sample without a caption, the first .*0\.tar: three;"):
        shards(tmp_path, captions=None).read("train")


BAD = {
    "without a picture": {"txt": "a"},
    "with several pictures": {"jpg": jpeg(0), "png": jpeg(0), "txt": "a"},
    "without a caption": {"jpg": jpeg(0), "txt": "  "},
    "not downloaded": {"txt": "a", "json": {"status": "failed_to_download"}},
    "with broken JSON": {"jpg": jpeg(0), "json": "{", "txt": "a"},
    "with a caption that is not UTF-8": {"jpg": jpeg(0), "txt": b"\xff"},
}


@pytest.mark.parametrize("kind", BAD)
def test_incomplete_samples_are_refused_or_told(tmp_path, kind, caplog):
    write_shard(tmp_path / "train" / "0.tar", {"0": sample(0), "bad": BAD[kind], "2": sample(2), "3": BAD[kind]})
    told = rf"split 'train': 2 samples {kind}, the first {tmp_path}/train/0\.tar: bad"
    with pytest.raises(ValueError, match=rf"{told}; .*the 2 whole samples: data\.source\.incomplete=skip"):
        shards(tmp_path).read("train")
    with caplog.at_level(logging.WARNING):
        captions = shards(tmp_path, incomplete="skip").read("train")
    assert texts(captions) == [["caption 0"], ["caption 2"]]
    assert f"2 samples {kind}" in caplog.text


def test_a_check_names_every_incomplete_sample(tmp_path, capsys):
    """By shard and key, whether they are to be skipped or not; of a picture's place, shard and member once."""
    for part in ("train", "val", "test"):
        own = {f"{part}{n}": sample(n + 10 * len(part)) for n in range(3)}
        write_shard(tmp_path / "data" / part / "0.tar", own)
    bad = {f"bad {n}": files for n, files in enumerate(BAD.values())}
    broken = {"jpg": jpeg(60)[:200], "txt": "a"}
    twice = {"jpg": jpeg(70), "txt": "b"}
    write_shard(tmp_path / "data" / "train" / "1.tar", {**bad, "cut": broken, "same": twice, "other": twice})
    whole = write_shard(tmp_path / "data" / "train" / "2.tar", {"x": sample(80), "y": sample(81)})
    whole.write_bytes(whole.read_bytes()[:5000])
    (tmp_path / "data" / "train" / "3.tar").write_bytes(b"")
    words = ["data", "check", "data=webdataset", f"data.root={tmp_path / 'data'}"]
    for how in ("raise", "skip"):
        assert main([*words, f"data.source.incomplete={how}", "--json", str(tmp_path / "found.json")]) == 1
        findings = json.loads((tmp_path / "found.json").read_text())["findings"]
        told = [f"{row['place']} {row['what']}" for row in findings["row"]["rows"]]
        assert told[:-2] == [f"train/1.tar: bad {n} is a sample {kind}" for n, kind in enumerate(BAD)]
        assert told[-2].startswith("train/2.tar is cut off: 1 whole sample, then nothing from byte ")
        assert told[-1] == "train/3.tar is cut off: 0 whole samples, then nothing from byte 0 on"
    printed = capsys.readouterr().out
    assert "  train/1.tar: cut.jpg is a picture that cannot be decoded: " in printed
    assert "  train/1.tar: other.jpg is a picture, equal to train/1.tar: same.jpg\n" in printed
    assert "rows or samples that cannot be used: 8\n" in printed


def test_a_shard_without_its_end_is_refused_wherever_it_was_cut(tmp_path):
    """Every sample that has its picture and its captions before the cut is found, and no other."""
    path = write_shard(tmp_path / "train" / "00003.tar", {str(n): sample(n) for n in range(4)})
    whole = path.read_bytes()
    with tarfile.open(path) as tar:
        files = [(member.offset_data, member.offset_data + member.size) for member in tar]
    ends = [end for _, end in files[2::3]]
    known = [
        (json[1], txt[0]) for json, txt in zip(files[1::3], files[2::3], strict=True)
    ]  # the text stands there, too
    for cut in [0, 1, 511, 512, 513, *range(1000, max(ends), 777), *ends, *(end - 1 for end in ends)]:
        path.write_bytes(whole[:cut])
        count = sum(end <= cut or json <= cut < txt for end, (json, txt) in zip(ends, known, strict=True))
        with pytest.raises(ValueError, match=rf"1 shard cut off, the first .*00003\.tar: {count} whole sample"):
            shards(tmp_path).read("train")
        if count:
            found = shards(tmp_path, incomplete="skip").read("train")
            assert [found.picture(n) for n in range(found.num_images)] == [jpeg(n) for n in range(count)], cut
    path.write_bytes(whole[: ends[1]] + b"x" * 3000)
    with pytest.raises(ValueError, match="cut off"):
        shards(tmp_path).read("train")


def test_what_cannot_be_read_in_place_is_refused(tmp_path):
    path = write_shard(tmp_path / "train" / "0.tar", {"0": sample(0)})
    packed = path.with_name("1.tar.gz")
    packed.write_bytes(gzip.compress(path.read_bytes()))
    with pytest.raises(ValueError, match=r"1\.tar\.gz is compressed"):
        shards(tmp_path).read("train/1.tar.gz")
    path.write_bytes(packed.read_bytes())
    with pytest.raises(ValueError, match=r"0\.tar is compressed"):
        shards(tmp_path).read("train")
    for url in ("https://a/{0..3}.tar", "pipe:cat a.tar"):
        with pytest.raises(ValueError, match="shards are read from files; fetch them first"):
            shards(tmp_path, shards=url).read("train")


def test_keys_and_ids_come_once(tmp_path):
    path = tmp_path / "train" / "0.tar"
    path.parent.mkdir()
    with tarfile.open(path, "w") as tar:
        for name in ("a.jpg", "b.jpg", "a.txt"):
            tar.addfile(tarfile.TarInfo(name))
    with pytest.raises(ValueError, match=r"0\.tar: a: comes twice, or its files do not stand side by side"):
        shards(tmp_path).read("train")
    with tarfile.open(path, "w") as tar:
        for name in ("a.jpg", "a.JPG"):
            tar.addfile(tarfile.TarInfo(name))
    with pytest.raises(ValueError, match=r"0\.tar: a\.JPG: duplicate file name$"):
        shards(tmp_path).read("train")
    for number, ids in enumerate(((1, [2]), (1, [3]))):
        write_shard(tmp_path / "val" / f"{number}.tar", {"a": sample(0, image_id=ids[0], text_ids=ids[1])})
    with pytest.raises(ValueError, match=r"val/0\.tar: a\.jpg and val/1\.tar: a\.jpg have the same image_id 1"):
        shards(tmp_path).read("val")


def test_names_of_shards(tmp_path):
    for name in ("cc/00000", "cc/00001", "cc/00002", "coco/0"):
        write_shard(tmp_path / f"{name}.tar", {"a": sample(0), "b": sample(1)})
    write_shard(tmp_path / "cc" / "00003.tar", {})
    read = lambda split, **options: shards(tmp_path, **options).read(split).files.to_pylist()[::2]  # noqa: E731
    assert read("cc/{00000..00001}.tar") == ["cc/00000.tar", "cc/00001.tar"]
    assert read("coco+cc/0000[12].tar") == ["coco/0.tar", "cc/00001.tar", "cc/00002.tar"]
    assert read("cc") == [f"cc/0000{n}.tar" for n in range(3)], "an empty shard is none the worse"
    assert read("0000", shards="cc/{split}{0..1}.tar") == ["cc/00000.tar", "cc/00001.tar"]
    with pytest.raises(FileNotFoundError, match=r"no shard .*cc/00004\.tar"):
        read("cc/{00002..00004}.tar")
    with pytest.raises(FileNotFoundError, match=r"split 'val': no shard .*val/\*\.tar \(found: cc/\*\.tar \(4\)"):
        read("val")
    with pytest.raises(FileNotFoundError, match=r"4 lie in .*cc itself: 'data\.train=\*\.tar' data\.val=0\.05"):
        shards(tmp_path / "cc").read("train")
    with pytest.raises(ValueError, match=r"00001\.tar comes twice"):
        read("cc/{00001,00001}.tar")
    with pytest.raises(ValueError, match=r"no samples in 1 shard$"):
        read("cc/00003.tar")


@pytest.fixture(scope="module")
def many(tmp_path_factory) -> Captions:
    """40 shards of 25 samples with 1 … 3 captions, a window of 100."""
    root = tmp_path_factory.mktemp("many")
    for shard in range(40):
        own = range(25 * shard, 25 * shard + 25)
        write_shard(root / "train" / f"{shard:02d}.tar", {
            f"{n:04d}": {"jpg": b"x", "json": {"caption": [f"{n} {k}" for k in range(1 + n % 3)]}} for n in own
        })  # fmt: skip
    return shards(root, window=100).read("train")


BATCHINGS = {
    "one": OneCaption(group_by_length=False),
    "one, by length": OneCaption(group_by_length=True),
    "all": AllCaptions(group_by_length=False),
    "each": EachCaption(group_by_length=False, unique_images=False),
    "each, once in a batch": EachCaption(group_by_length=True, unique_images=True),
}


@pytest.mark.parametrize("batching", BATCHINGS.values(), ids=BATCHINGS)
def test_an_epoch_is_whole_local_and_another_each_time(many, batching):
    lengths = np.random.default_rng(0).integers(3, 20, many.num_texts)
    rows = [batching.epoch(many, lengths, batch=16, seed=0, number=number) for number in (0, 1, 0)]
    assert np.array_equal(rows[0].image, rows[2].image)
    assert not np.array_equal(rows[0].image, rows[1].image)
    each = batching.size(many) == many.num_texts
    assert np.array_equal(np.sort(rows[0].text if each else rows[0].image), np.arange(batching.size(many)))
    size, shard = batching.size(many), rows[0].image // 25
    spread = [len(set(shard[start : start + size // 20].tolist())) for start in range(0, size, size // 20)]
    assert max(spread) <= (12 if batching.group_by_length else 8), "four shards are a window"
    assert max(spread[:4]) >= 3, "and not from one after the other"
    if not each:
        own = [
            batching.epoch(many._replace(window=window), lengths, batch=16, seed=3, number=5) for window in (1000, None)
        ]
        assert np.array_equal(own[0].image, own[1].image), "with a window of all, order is that of any other data"


def test_devices_share_the_same_local_order(many):
    plan = lambda number: BATCHINGS["one"].epoch(many, np.ones(0), batch=32, seed=0, number=number)  # noqa: E731
    options = {"plan": plan, "size": many.num_images, "drop_last": True}
    one = [image for image, *_ in EpochSampler(batch_size=32, **options)]
    both = [
        [image for image, *_ in EpochSampler(batch_size=16, rank=rank, world_size=2, **options)] for rank in range(2)
    ]
    assert [image for pair in zip(*both, strict=True) for image in pair] == one


def from_shards(root, **changes):
    return module(root, lambda root: shards(root, window=20), val=4, test="test", **changes)


@pytest.fixture
def two_splits(tmp_path):
    for split, count in (("train", 40), ("test", 4)):
        for shard in range(0, count, 4):
            own = {f"{n:03d}": sample(n, f"{split} {n}", "x") for n in range(shard, shard + 4)}
            write_shard(tmp_path / split / f"{shard:03d}.tar", own)
    return tmp_path


def test_batches_are_the_same_for_any_workers_and_after_a_stop(two_splits):
    whole = list(from_shards(two_splits).train_dataloader())
    assert len(whole) == 18
    loader = from_shards(two_splits, num_workers=2).train_dataloader()
    given = iter(loader)
    begun = [next(given) for _ in range(7)]
    rest = from_shards(two_splits).train_dataloader()
    rest.load_state_dict(loader.state_dict())
    for one, other in zip(whole, [*begun, *rest], strict=True):
        assert all(torch.equal(a, b) for a, b in zip(one, other, strict=True) if isinstance(a, torch.Tensor))


def test_headers_are_read_once(two_splits, monkeypatch):
    cache = two_splits / "cache"
    first = from_shards(two_splits, cache=cache).readers
    monkeypatch.setattr(Shards, "read", lambda self, split: pytest.fail("read again"))
    again = from_shards(two_splits, cache=cache).readers
    for name, reader in first.items():
        found = again[name].captions
        assert content(found) == content(reader.captions)
        assert (found.window, found.digest) == (20, reader.captions.digest)
        assert np.array_equal(found.spans, reader.captions.spans)
    write_shard(two_splits / "test" / "000.tar", {"a": sample(50)})
    with pytest.raises(pytest.fail.Exception, match="read again"):
        from_shards(two_splits, cache=cache)


def test_a_picture_that_goes_missing_is_told_by_name(two_splits):
    data = from_shards(two_splits)
    path = two_splits / "train" / "008.tar"
    path.write_bytes(path.read_bytes()[:600])
    with pytest.raises(ValueError, match=rf"{path}: 0\d\d\.jpg: not a readable picture: .* ends at byte 600"):
        list(data.train_dataloader())


def test_an_image_in_two_splits_is_refused(two_splits):
    """Trap 9."""
    with pytest.raises(ValueError, match="share 4 images"):
        module(two_splits, shards, train="train", val="test", test="train/000.tar")


def test_a_window_is_at_least_one_image(tmp_path):
    with pytest.raises(ValueError, match=r"data\.source\.window must be >= 1, got 0"):
        shards(tmp_path, window=0)


@pytest.mark.parametrize(
    ("batching", "expected"),
    [("one", "72a592ed"), ("one, by length", "c689be81"), ("all", "54c7749d"), ("each", "af3a5d03")],
)
def test_data_without_archives_keeps_its_order(many, batching, expected):
    """The hash of what each batching gives: another one moves the numbers of runs that are repeated."""
    files, lengths = many._replace(window=None, spans=None), np.random.default_rng(0).integers(3, 20, many.num_texts)
    rows = BATCHINGS[batching].epoch(files, lengths, batch=48, seed=4, number=2)
    assert sha256(rows.image.tobytes() + rows.text.tobytes()).hexdigest()[:8] == expected
