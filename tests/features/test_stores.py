"""Stores hold what the encoders say, and are found by all that determines it and by nothing else."""

import json
import logging
import os
import pickle
import shutil
from collections import namedtuple
from contextlib import nullcontext

import numpy as np
import pytest
import torch
from features.towers import MANNER, TellingEncoder, captions, filled, reader, stores_in, towers

from mmlit.contracts import Encoded
from mmlit.data.folder import with_pictures
from mmlit.data.sampling import Row
from mmlit.features import key, stores
from mmlit.features.key import encoder_facts, image_facts, manner_facts, name_of, text_facts
from mmlit.features.stores import FeatureStores
from mmlit.image_encoders.tiny import TinyImageEncoder
from mmlit.text_encoders.tiny import TinyTextEncoder

CLOSE = {"rtol": 0, "atol": 1e-6}
MIXED = "trainer.precision=bf16-mixed a caption's features change with its batch's padding"
BF16 = MANNER._replace(precision="bf16-mixed", context=lambda: torch.autocast("cpu", torch.bfloat16))


@pytest.mark.parametrize(("tokens", "workers"), [(True, 0), (True, 2), (False, 0)])
@torch.no_grad()
def test_a_store_holds_what_the_encoders_say(root, tmp_path, small_chunks, tokens, workers):
    encoders = towers()
    rows = filled(root, tmp_path, encoders=encoders, tokens=tokens, manner=MANNER._replace(num_workers=workers))
    index = [7, 0, 59, 7]
    seen, expected = rows.image_store.take(index), encoders["image_encoder"](rows.pixels(index))
    texts = [3, 50, 99, 0]
    words, said = rows.text_store.take(texts), encoders["text_encoder"](*rows.tokens.take(texts))
    torch.testing.assert_close(seen.pooled, expected.pooled, **CLOSE)
    torch.testing.assert_close(words.pooled, said.pooled, **CLOSE)
    if tokens:
        torch.testing.assert_close(seen.tokens, expected.tokens, **CLOSE)
        assert torch.equal(seen.mask, expected.mask)
        assert torch.equal(words.mask, said.mask)
        torch.testing.assert_close(words.tokens[words.mask], said.tokens[said.mask], **CLOSE)
    else:
        assert seen.tokens.shape == (4, 0, 32)
        assert words.mask.shape == (4, 0)


def test_a_batch_comes_from_the_stores_alone(root, tmp_path, monkeypatch):
    """No picture is decoded once both sides are stored; another process maps the files anew."""
    rows = filled(root, tmp_path)
    monkeypatch.setattr("mmlit.data.reader.decode", lambda *_, **__: pytest.fail("decoded"))
    batch = rows([Row(3, (15,)), Row(9, (46,))])
    assert isinstance(batch.image, Encoded)
    again = pickle.loads(pickle.dumps(rows.image_store))  # noqa: S301
    assert torch.equal(again.take([3, 9]).tokens, batch.image.tokens)
    assert len(pickle.dumps(rows.image_store)) < 2000


def test_two_builds_give_the_same_bytes_and_the_second_run_encodes_nothing(root, tmp_path, small_chunks, monkeypatch):
    for place in ("a", "b"):
        filled(root, tmp_path / place)
    for one, other in zip(stores_in(tmp_path / "a"), stores_in(tmp_path / "b"), strict=True):
        assert one.name == other.name
        assert {path.name for path in one.iterdir()} == {"pooled", "tokens", "plan.json", "meta.json"}
        for name in ("pooled", "tokens"):
            assert (one / name).read_bytes() == (other / name).read_bytes()
    for kind in (TellingEncoder, TinyTextEncoder):
        monkeypatch.setattr(kind, "forward", lambda *_: pytest.fail("encoded"))
    assert filled(root, tmp_path / "a").image_store.take([1]).tokens.shape == (1, 16, 32)
    assert filled(root, tmp_path / "a", tokens=False).image_store.take([1]).tokens.shape == (1, 0, 32)


def test_random_numbers_of_training_are_left_alone(root, tmp_path):
    encoders = towers()
    before = torch.get_rng_state()
    filled(root, tmp_path, encoders=encoders)
    assert torch.equal(before, torch.get_rng_state())


def test_under_autocast_values_are_kept_as_they_come(root, tmp_path):
    encoders = towers()
    rows = filled(root, tmp_path, encoders=encoders, manner=BF16)
    with torch.no_grad(), BF16.context():
        said = encoders["image_encoder"](rows.pixels(range(16)))
    seen = rows.image_store.take(range(16))
    assert seen.pooled.dtype == said.pooled.dtype
    assert torch.equal(seen.pooled, said.pooled)
    assert torch.equal(seen.tokens, said.tokens)


def test_half_the_room_only_when_asked(root, tmp_path):
    whole, half = filled(root, tmp_path), filled(root, tmp_path, half=True)
    one, other = whole.image_store.take([5]), half.image_store.take([5])
    assert other.tokens.dtype == torch.float32
    assert 0 < (one.tokens - other.tokens).abs().max() < 2e-3
    sizes = sorted((path / "tokens").stat().st_size for path in stores_in(tmp_path))
    assert sizes[0] * 2 == sizes[1] or sizes[0] * 2 == sizes[2]


WRONG_HITS = {
    "weights": lambda root, folder: filled(root, folder, encoders=towers(seed=1)),
    "autocast": lambda root, folder: filled(root, folder, manner=BF16),
    "half": lambda root, folder: filled(root, folder, half=True),
}


@pytest.mark.parametrize("change", WRONG_HITS)
def test_no_other_run_gets_a_store(root, tmp_path, change):
    filled(root, tmp_path)
    before = set(stores_in(tmp_path))
    WRONG_HITS[change](root, tmp_path)
    new = {path.name.partition("-")[0] for path in set(stores_in(tmp_path)) - before}
    assert new == ({"images"} if change == "autocast" else {"images", "captions"})


def test_a_picture_that_was_written_anew_is_encoded_anew(root, tmp_path):
    """Also one of the same size; the captions, which have not changed, are found."""
    copy = tmp_path / "scenes"
    shutil.copytree(root, copy)
    filled(copy, tmp_path)
    picture = captions(copy).path(3)
    os.utime(picture, ns=(1, 1))
    filled(copy, tmp_path)
    assert [path.name.partition("-")[0] for path in stores_in(tmp_path)] == ["captions", "images", "images"]


def test_other_bytes_of_the_same_size_and_time_are_encoded_anew(root, tmp_path):
    """As `cp -p` and `rsync -t` write them. The data's digest, which records hold, does not see times at all."""
    copy = tmp_path / "scenes"
    shutil.copytree(root, copy)
    before = captions(copy)
    picture = before.path(3)
    stat = picture.stat()
    content = bytearray(picture.read_bytes())
    content[len(content) // 2] ^= 1
    picture.write_bytes(content)
    os.utime(picture, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    after = captions(copy)
    assert (picture.stat().st_size, picture.stat().st_mtime_ns) == (stat.st_size, stat.st_mtime_ns)
    assert before.pictures != after.pictures
    assert (before.digest, before.stamp) == (after.digest, after.stamp)


def test_an_edited_caption_encodes_no_picture(root, tmp_path):
    copy = tmp_path / "scenes"
    shutil.copytree(root, copy)
    filled(copy, tmp_path)
    file = copy / "annotations" / "captions_train2017.json"
    content = json.loads(file.read_text())
    content["annotations"][7]["caption"] += " indeed"
    file.write_text(json.dumps(content))
    filled(copy, tmp_path)
    assert [path.name.partition("-")[0] for path in stores_in(tmp_path)] == ["captions", "captions", "images"]
    moved = copy.rename(tmp_path / "elsewhere")
    assert captions(moved).pictures == captions(moved.rename(copy)).pictures


def test_pictures_are_known_by_names_and_places(root):
    read = captions(root)
    renamed = read._replace(files=read.files.take([1, 0, *range(2, 60)]))
    spans = read._replace(spans=np.zeros((60, 2), np.int64))
    other = read._replace(spans=np.ones((60, 2), np.int64))
    some = read.subset(np.arange(5))
    found = {with_pictures(each).pictures for each in (read, renamed, spans, other)}
    assert len(found | {some.pictures, read.subset(np.arange(1, 6)).pictures}) == 6


def test_every_fact_makes_another_name(root, monkeypatch):
    encoders = towers()
    rows = reader(root, encoders)

    def names() -> list[str]:
        manner = manner_facts(MANNER, half=False)
        images, texts = image_facts(rows), text_facts(rows)
        image, text = (encoder_facts(encoder) for encoder in encoders.values())
        return [name_of({**own, **manner}, tokens=True) for own in ({**images, **image}, {**texts, **text})]

    plain = names()
    assert plain == names()
    facts = {**image_facts(rows), **encoder_facts(encoders["image_encoder"]), **manner_facts(MANNER, half=False)}
    assert set(facts) == {
        *("version", "side", "data", "items", "decode", "encoder", "fingerprint", "spec", "code", "libraries"),
        *("device", "precision", "products", "half"),
    }
    found = {name_of({**facts, name: "other"}, tokens=True) for name in facts}
    assert len(found | {name_of(facts, tokens=True), name_of(facts, tokens=False)}) == len(facts) + 2
    rows.tokens = rows.tokens._replace(ids=np.where(np.arange(len(rows.tokens.ids)) == 40, 7, rows.tokens.ids))
    assert [one == other for one, other in zip(plain, names(), strict=True)] == [True, False]
    monkeypatch.setattr(key, "_version", lambda library: "9.9")
    assert not set(plain) & set(names())
    monkeypatch.undo()
    with monkeypatch.context() as edited:
        edited.setattr(key.Path, "read_bytes", lambda path: b"edited")
        assert not set(plain) & set(names())
    assert image_facts(reader(root, encoders, decode="fast")) != image_facts(rows)
    assert manner_facts(MANNER._replace(device=torch.device("cuda")), half=False) != manner_facts(MANNER, half=False)


def test_what_the_disk_cannot_hold_is_refused_before_it_is_encoded(root, tmp_path, monkeypatch):
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(stores.shutil, "disk_usage", lambda path: usage(100, 50, 50_000))
    with pytest.raises(
        ValueError, match=r"60 images of train, 300 captions.*are still to be.*free.*features=none"
    ) as told:
        filled(root, tmp_path)
    assert "paths.cache=..." in str(told.value)
    assert not stores_in(tmp_path)


def test_its_size_is_told_before(root, tmp_path, caplog):
    caplog.set_level(logging.INFO)
    filled(root, tmp_path)
    assert "features: encodes 60 images of train, 300 captions of train: " in caplog.text
    caplog.clear()
    filled(root, tmp_path)
    assert f"features: images of train, captions of train are in {tmp_path}/features" in caplog.text


@pytest.mark.parametrize(
    ("trained", "folder", "precision", "told"),
    [
        (2, "cache", "32-true", "features: image_encoder is trained, text_encoder is trained: no store"),
        (1, "cache", "32-true", "features: text_encoder is trained: no store of its outputs"),
        (0, None, "32-true", "features: paths.cache=null keeps nothing: no store"),
        (0, "cache", "bf16-mixed", f"features: under {MIXED}: no store of its outputs"),
    ],
)
def test_a_run_says_why_it_has_none(root, tmp_path, caplog, trained, folder, precision, told):
    caplog.set_level(logging.INFO)
    encoders = towers()
    for encoder in list(encoders.values())[2 - trained :]:
        encoder.frozen = False
    rows = reader(root, encoders)
    where = folder and str(tmp_path / folder)
    manner = MANNER._replace(precision=precision)
    used = FeatureStores(folder=where, half=False).fill({"train": rows}, encoders, tokens=False, manner=manner)
    assert told in caplog.messages
    assert used == told.endswith("of its outputs")
    assert (rows.image_store is not None, rows.text_store is not None) == (used, False)


def test_masks_that_do_not_fit_are_told_and_leave_nothing(root, tmp_path, caplog, monkeypatch):
    plain = TinyImageEncoder.forward

    def holes(self, pixels):
        encoded = plain(self, pixels)
        return encoded._replace(mask=torch.arange(16).expand(len(pixels), 16) % 2 == 0)

    monkeypatch.setattr(TellingEncoder, "forward", holes)
    rows = filled(root, tmp_path)
    assert "features: image_encoder: its masks are not what the number of tokens says" in caplog.text
    assert rows.image_store is None
    assert rows.text_store is not None
    assert [path.name.partition("-")[0] for path in stores_in(tmp_path)] == ["captions"]


def test_pictures_that_cannot_be_read_are_known_to_who_opens_the_store(root, tmp_path):
    copy = tmp_path / "scenes"
    shutil.copytree(root, copy)
    captions(copy).path(11).write_bytes(b"nothing")
    for _ in range(2):
        rows = filled(copy, tmp_path, on_error="skip")
        assert rows.broken.flags.nonzero().flatten().tolist() == [11]
    with pytest.raises(ValueError, match="not a readable picture"):
        filled(copy, tmp_path, on_error="raise")


def test_fp16_refuses_what_has_no_place_in_it(root, tmp_path, monkeypatch):
    plain = TinyImageEncoder.forward
    monkeypatch.setattr(
        TellingEncoder,
        "forward",
        lambda self, x: Encoded(plain(self, x).tokens, plain(self, x).pooled * 1e6, plain(self, x).mask),
    )
    with pytest.raises(ValueError, match=r"features.half=true: a value is beyond"):
        filled(root, tmp_path, half=True)


def test_context_is_that_of_training(root, tmp_path):
    """What a run's forward passes run within is entered for every batch."""
    entered = []

    def context():
        entered.append(1)
        return nullcontext()

    filled(root, tmp_path, manner=MANNER._replace(context=context))
    assert len(entered) >= 2 + 4 + 5
