"""Pairs of one's own, from the file to the record."""

import json

import numpy as np
import pytest
from PIL import Image

SMALL = ("data.batch_size=8", "data.num_workers=0")


@pytest.fixture
def own(tmp_path):
    """Forty pictures with two captions each, as a table without splits and as a folder."""
    lines = ["image\tcaption"]
    (tmp_path / "own").mkdir()
    for number in range(40):
        pixels = np.random.default_rng(number).integers(0, 256, (20, 24, 4), np.uint8)
        Image.fromarray(pixels, "RGBA").save(tmp_path / "own" / f"{number}.png")
        captions = [f"picture number {number}", f"the {number} th one"]
        (tmp_path / "own" / f"{number}.txt").write_text("\n".join(captions))
        lines += [f"{number}.png\t{caption}" for caption in captions]
    (tmp_path / "own" / "captions.tsv").write_text("\n".join(lines))
    return tmp_path / "own"


@pytest.mark.slow
@pytest.mark.parametrize("words", [("data=pairs", "data.source.file=captions.tsv"), ("data=folder_pairs",)])
def test_one_command_trains_on_them(train, own, tmp_path, words):
    """Trap 9: selection and report have images of their own."""
    ended = train(*words, f"data.root={own}", *SMALL)
    assert ended.code == 0, ended.err
    assert "training on 34 images with 68 captions (all)" in ended.out
    assert "selection on 2 images with 4 captions (set aside from all)" in ended.out
    assert "report on 4 images with 8 captions (set aside from all)" in ended.out
    (path,) = (tmp_path / "outputs").rglob("result.json")
    found = json.loads(path.read_text())
    assert found["split"] == "0.1 of all"
    assert found["gallery"]["images"] == 4


@pytest.mark.slow
@pytest.mark.parametrize(("words", "told"), [
    ((), "data.source.file: must be given"),
    (("data.source.file=none.tsv",), "none.tsv not found"),
    (("data.source.file=captions.tsv", "data.source.caption=text"), "no column 'text' (data.source.caption)"),
    (("data.source.file=captions.tsv", "data.train=train"), "has one split, 'all'"),
    (("data.source.file=captions.tsv", "data.test=2.5"), "data.test=2.5 to set aside must be"),
])  # fmt: skip
def test_wrong_options_are_one_line(train, own, words, told):
    ended = train("data=pairs", f"data.root={own}", *SMALL, *words)
    assert ended.code == 2
    assert told in ended.err
    assert len(ended.err.splitlines()) == 1


@pytest.mark.slow
@pytest.mark.parametrize("part", ["val", "test"])
def test_a_gallery_that_cannot_be_read_stops_a_run_before_it_trains(train, own, tmp_path, part):
    """Whatever `reading.on_error` says of the training pictures."""
    first = {"val": 32, "test": 36}
    rows = [f"{n}.png\tpicture number {n}\t{'train' if n < 32 else 'val' if n < 36 else 'test'}" for n in range(40)]
    (own / "split.tsv").write_text("\n".join(["image\tcaption\tpart", *rows]))
    cut = own / f"{first[part]}.png"
    cut.write_bytes(cut.read_bytes()[:400])
    words = (
        "data.source.file=split.tsv",
        "data.source.split=part",
        "data.train=train",
        "data.val=val",
        "data.test=test",
    )
    ended = train(
        "data=pairs", f"data.root={own}", *words, *SMALL, "reading.on_error=skip", "reading.max_bad_share=0.5"
    )
    assert ended.code == 2
    assert f"{cut.name} ({own}/split.tsv: line {first[part] + 2}): not a readable picture" in ended.err
    assert ended.err.rstrip().endswith(
        "a ranked split is never thinned out: `mmlit data check --fix` makes data without it"
    )
    assert not list((tmp_path / "outputs").rglob("metrics.csv"))
