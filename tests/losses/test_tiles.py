"""Tiles of the matrix of all pairs, and what is true in them."""

import pytest
import torch
from losses.made_pairs import made_pairs, unit

from mmlit.losses import tiles
from mmlit.losses.tiles import Truth, tiling, wide

IMAGE_ID, OWNER = [3, 1, 4, 1, 5, 9, 2], [1, 4, 3, 1, 1, 9, 5, 2, 6, 2, 1]


@pytest.mark.parametrize("mix", [None, ([1, 3, 4, 1, 3, 6, 5], [0.8, 0.6, 0.3, 0.5, 1.0, 0.0, 0.25])])
def test_true_entries_are_the_positives(mix: tuple[list[int], list[float]] | None) -> None:
    """Trap 8: on any tile the list is `Pairs.positives`, with repeated and mixed images; no place comes twice."""
    pairs = made_pairs(unit(7, 3, 0), unit(11, 3, 1), IMAGE_ID, OWNER, mix=mix)
    whole = slice(None)
    for images, texts in ((whole, whole), (slice(2, 6), whole), (whole, slice(3, 9))):
        truth, expected = Truth.of(pairs, images, texts), pairs.positives(images, texts)
        for rows in (slice(0, 3), slice(3, 4), slice(1, 7)):
            for columns in (slice(0, 11), slice(2, 5), slice(5, 6)):
                tile = expected[rows, columns]
                row, column, weight = truth.within(rows, columns, like=tile)
                assert len({*zip(row.tolist(), column.tolist(), strict=True)}) == len(row)
                found = torch.zeros_like(tile)
                found[row, column] = weight
                torch.testing.assert_close(found, tile)
                assert (weight > 0).all()


@pytest.mark.parametrize("count", [0, 1, 4, 5, 8, 9, 23])
def test_spans_cover_everything_once_and_are_nearly_equal(count: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tiles, "CPU_SIDE", 4)
    rows, columns = tiling(torch.zeros(count, 2), torch.zeros(3, 2))
    assert [place for span in rows for place in range(count)[span]] == list(range(count))
    lengths = [span.stop - span.start for span in rows]
    assert len(lengths) == -(-count // 4)
    assert max(lengths, default=0) - min(lengths, default=0) <= max(1, len(lengths) - 1)
    assert columns == [slice(0, 3)]


def test_tiles_follow_the_memory_at_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    """Three tiles of fp32 take the stated share of what is free, what torch holds unused included."""
    gpu = torch.device("cuda", 0)
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda _: 3 * 2**30)
    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda _: 2**30)
    for free, side in ((0, 4230), (2**30, 5181), (120 * 2**30, 8192)):
        monkeypatch.setattr(torch.cuda, "mem_get_info", lambda _, free=free: (free, 140 * 2**30))
        assert tiles._side(gpu) == side
        assert side == 8192 or side**2 * 12 == pytest.approx(0.1 * (free + 2 * 2**30), rel=1e-3)
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda _: 2**30)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda _: (0, 140 * 2**30))
    assert tiles._side(gpu) == 1024
    assert tiles._side(torch.device("cpu")) == tiles.CPU_SIDE


def test_only_what_is_narrow_is_widened() -> None:
    """Trap 3."""
    for given, found in ((torch.bfloat16, torch.float32), (torch.float16, torch.float32)):
        assert wide(torch.zeros(2, 2, dtype=given)).dtype == found
    for same in (torch.zeros(2, 2), torch.zeros(2, 2).double()):
        assert wide(same) is same
