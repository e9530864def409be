"""Which queries the report shows, with which answers, and what it does without pictures."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mmlit.results.compare import compare
from mmlit.results.pictures import COLUMNS, file_name, find_pictures, read_pictures
from mmlit.results.report.examples import gallery

MakeRun = Callable[..., Path]

T2I_TOP = np.tile([10, 20, 30, 40, *[-1] * 6], (8, 1))
I2T_TOP = np.tile([1, 3, 5, 7, 2, 4, 6, 8, -1, -1], (4, 1))
TOPS = {"t2i_top": T2I_TOP, "i2t_top": I2T_TOP}


def test_the_largest_ratio_of_ranks_comes_first(make_run: MakeRun, tmp_path: Path) -> None:
    make_run("p", alignment="projection", t2i_rank=(2, 4, 1, 4, 1, 1, 1, 1), i2t_rank=(1, 1, 1, 4), **TOPS)
    make_run("j", t2i_rank=(1, 1, 1, 2, 1, 1, 4, 1), i2t_rank=(1, 1, 1, 1), **TOPS)
    comparison = compare([tmp_path / "runs"])
    best = next(i for i, row in enumerate(comparison.rows) if row.label == "joint")
    found = gallery(comparison, best, 1 - best)
    wins, losses = found.chapters[:2]
    assert wins.title == "Where joint beats projection"
    # text 2 (rank 1 against 4), then of image 10 none again, then text 4 (2 against 4); image 40 asks for its texts
    assert [(example.way, example.query) for example in wins.examples] == [("t2i", 2), ("t2i", 4), ("i2t", 40)]
    one, other = wins.examples[0].answers
    assert (one.row, one.ranks, other.ranks) == (best, (1,), (4,))
    assert one.top == (10, 20, 30, 40)
    assert one.right == (True, False, False, False)
    assert wins.examples[2].answers[0].right == (False, False, False, True, False), "text 7 is of image 40"
    assert [(example.way, example.query) for example in losses.examples] == [("t2i", 7)]


def test_ranks_of_all_seeds_count(make_run: MakeRun, tmp_path: Path) -> None:
    """A win by luck of one seed is no win: text 1 is better with seed 0 and worse with seed 1."""
    make_run("p0", alignment="projection", t2i_rank=(4, 4, 1, 1, 1, 1, 1, 1), **TOPS)
    make_run("p1", alignment="projection", seed=1, t2i_rank=(1, 4, 1, 1, 1, 1, 1, 1), **TOPS)
    make_run("j0", t2i_rank=(1, 1, 1, 1, 1, 1, 1, 1), **TOPS)
    make_run("j1", seed=1, t2i_rank=(4, 1, 1, 1, 1, 1, 1, 1), **TOPS)
    (wins,) = gallery(compare([tmp_path / "runs"]), 1, 0).chapters
    assert [example.query for example in wins.examples] == [2]
    assert wins.examples[0].answers[0].ranks == (1, 1)


def pictures(folder: Path, name: str) -> None:
    (folder / "galleries").mkdir(parents=True)
    columns = ([10, 20], [b"jpeg", None], [[1, 2], [3]], [["<b>one</b>", "two"], ["three"]])
    pq.write_table(pa.table(list(map(pa.array, columns)), names=list(COLUMNS)), folder / "galleries" / name)


def test_pictures_are_found_above_the_runs(make_run: MakeRun, tmp_path: Path) -> None:
    for name, alignment in (("p", "projection"), ("j", "joint")):
        make_run(name, alignment=alignment, **TOPS)
    comparison = compare([tmp_path / "runs"])
    found = gallery(comparison, 1, 0)
    assert "galleries/data-a-gallery-a.parquet" in str(found.missing)
    assert found.pictures.captions == {}
    pictures(tmp_path / "runs", file_name("data-a", "gallery-a"))
    found = gallery(comparison, 1, 0)
    assert found.missing is None
    assert found.pictures.thumbnails == {10: b"jpeg"}
    assert found.pictures.captions == {1: "<b>one</b>", 2: "two", 3: "three"}
    path = find_pictures(tmp_path / "runs" / "p", "data-a-gallery-a.parquet")
    assert path is not None
    path.write_bytes(b"half a file")
    assert "broken" in str(gallery(comparison, 1, 0).missing)
    with pytest.raises(ValueError, match="broken"):
        read_pictures(path)
