"""A store of features is used wherever it is exact, and changes no number."""

import csv
import shutil
from pathlib import Path

import pytest
from runs.test_whole_run import ALIGNMENTS

FROZEN = ("image_encoder.freeze=true", "text_encoder.freeze=true")
EVERY_STEP = ("trainer.max_epochs=4", "trainer.check_val_every_n_epoch=4", "trainer.log_every_n_steps=1", "logger=csv")


def losses(folder: Path) -> list[float]:
    """Of each step."""
    (path,) = folder.rglob("metrics.csv")
    with path.open() as file:
        return [float(row["train/loss"]) for row in csv.DictReader(file) if row.get("train/loss")]


def both_ways(train, tmp_path, *options: str) -> tuple[list[float], list[float]]:
    """Losses of the first 20 steps without a store and with one."""
    for place, more in (("plain", ["features=none"]), ("stored", [])):
        ended = train(*options, *EVERY_STEP, *more, f"paths.outputs={tmp_path}/{place}")
        assert ended.code == 0, ended.err
        assert ("features: encodes" in ended.out) == (place == "stored")
    plain, stored = (losses(tmp_path / place) for place in ("plain", "stored"))
    assert len(plain) == len(stored) >= 20
    return plain[:20], stored[:20]


@pytest.mark.slow
@pytest.mark.parametrize("alignment", ALIGNMENTS)
def test_losses_are_those_of_a_run_without_a_store(train, tmp_path, alignment):
    plain, stored = both_ways(train, tmp_path, f"alignment={alignment}", *FROZEN)
    assert stored == pytest.approx(plain, rel=0, abs=1e-5)


@pytest.mark.slow
def test_losses_under_autocast_are_the_same_for_only_pictures_are_stored(train, tmp_path):
    """What bf16 says of a caption depends on the batch that it is padded with, so captions are encoded as they come."""
    plain, stored = both_ways(train, tmp_path, "alignment=cross_attention", *FROZEN, "trainer.precision=bf16-mixed")
    assert stored == pytest.approx(plain, rel=0, abs=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("side", FROZEN)
def test_one_side_from_a_store(train, tmp_path, side):
    """The other tower is trained, and a line says so."""
    plain, stored = both_ways(train, tmp_path, "alignment=cross_attention", side)
    assert stored == pytest.approx(plain, rel=0, abs=1e-5)


def test_other_runs_find_the_store_and_it_is_no_part_of_what_a_run_is(train, tmp_path):
    folders = set()
    for options, told in (
        ([], "features: encodes 96 images of train, 480 captions of train, 16 images of val"),
        (["optimizer.lr=0.002"], "features: images of train, captions of train, images of val"),
        (["optimizer.lr=0.002", "features=none"], "holds a finished run of these options"),
        (["features.half=true"], "features: encodes 96 images"),
    ):
        ended = train(*FROZEN, "trainer.max_epochs=1", *options)
        assert ended.code == 0, ended.err
        assert told in ended.out
        folders |= {path.parent.name for path in tmp_path.rglob("result.json")}
    assert len(folders) == 3


@pytest.mark.slow
def test_broken_pictures_are_replaced_alike(train, tmp_path, scenes):
    broken = tmp_path / "broken"
    shutil.copytree(scenes, broken)
    for number, picture in enumerate(sorted((broken / "train2017").iterdir())):
        if number % 20 == 7:
            picture.write_bytes(b"nothing")
    plain, stored = both_ways(
        train, tmp_path, f"data.root={broken}", *FROZEN, "reading.on_error=skip", "reading.max_bad_share=0.1"
    )
    assert stored == pytest.approx(plain, rel=0, abs=1e-5)


@pytest.mark.slow
def test_an_evaluation_finds_what_training_kept(train, tmp_path):
    assert train(*FROZEN, "trainer.max_epochs=1").code == 0
    (path,) = tmp_path.rglob("*.ckpt")
    ended = train("fit=false", f"checkpoint={path}", f"paths.outputs={tmp_path}/x", small=False)
    assert ended.code == 0, ended.err
    assert "features: images of test, captions of test are in" in ended.out


@pytest.mark.slow
def test_two_devices_share_one_store(train, tmp_path):
    """Each store is built once, by both together; the losses are those without it."""
    options = ("trainer=ddp", "trainer.accelerator=cpu", "trainer.devices=2", "data.batch_size=8", *FROZEN)
    plain, stored = both_ways(train, tmp_path, *options)
    assert stored == pytest.approx(plain, rel=0, abs=1e-5)
    stores = [path for path in (tmp_path / "cache" / "features").iterdir() if path.is_dir()]
    assert len(stores) == 6
