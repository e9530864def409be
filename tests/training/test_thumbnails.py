"""Thumbnails and captions for the report: written once, small, and never the end of a run."""

import io
import logging
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mmlit.data.captions import Captions
from mmlit.results.pictures import read_pictures
from mmlit.training import thumbnails
from mmlit.training.thumbnails import SIDE, keep_pictures, thumbnail


@pytest.fixture
def captions(tmp_path: Path) -> Captions:
    """A wide picture, a small one and one that is gone, with 2, 1 and 1 captions."""
    Image.new("RGB", (400, 200), "red").save(tmp_path / "wide.png")
    Image.new("P", (32, 20)).save(tmp_path / "small.gif")
    return Captions.assemble(
        root=tmp_path,
        source=tmp_path / "captions.json",
        files=["wide.png", "small.gif", "gone.jpg"],
        image_id=[7, 5, 9],
        owner=[0, 1, 0, 2],
        texts=["<script>", "small", 'wide, "quoted"', "gone"],
        text_id=[1, 2, 3, 4],
        digest="d",
    )


def kept(captions: Captions, run: Path, ids: list[int]) -> None:
    keep_pictures(captions, np.array(ids), name="g.parquet", near=run, otherwise=run.parent)


def test_what_was_ranked_is_kept_once(captions: Captions, tmp_path: Path) -> None:
    run = tmp_path / "outputs" / "run"
    kept(captions, run, [9, 7])
    path = run.parent / "galleries" / "g.parquet"
    found = read_pictures(path)
    assert found.captions == {1: "<script>", 3: 'wide, "quoted"', 4: "gone"}
    assert set(found.thumbnails) == {7}, "5 was not ranked, 9 is gone"
    with Image.open(io.BytesIO(found.thumbnails[7])) as picture:
        assert (picture.size, picture.format) == ((SIDE, SIDE // 2), "JPEG")
    before = path.stat().st_mtime_ns
    kept(captions, run, [9, 7])
    kept(captions, run.parent / "run" / "evaluations" / "again", [9, 7])
    assert path.stat().st_mtime_ns == before
    assert len(list(tmp_path.rglob("*.parquet"))) == 1


def test_a_small_picture_stays_as_it_is(captions: Captions, tmp_path: Path) -> None:
    found = thumbnail(tmp_path / "small.gif")
    assert found is not None
    with Image.open(io.BytesIO(found)) as picture:
        assert picture.size == (32, 20)


def test_a_large_gallery_is_left_out(captions: Captions, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(thumbnails, "MOST", 2)
    kept(captions, tmp_path / "outputs" / "run", [9, 7, 5])
    assert not list(tmp_path.rglob("*.parquet"))


def test_a_full_disk_stops_no_run(
    captions: Captions, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(*_: object) -> None:
        raise OSError("No space left on device")

    monkeypatch.setattr(os, "fsync", refuse)
    with caplog.at_level(logging.WARNING):
        kept(captions, tmp_path / "outputs" / "run", [7])
    assert "no pictures for the report: No space left" in caplog.text
    assert not [path for path in (tmp_path / "outputs").rglob("*") if path.is_file()]
