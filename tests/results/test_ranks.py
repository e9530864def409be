"""`ranks.npz`: what is written comes back, and arrays that do not fit together are refused."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mmlit.results.ranks import read_ranks, write_ranks


@pytest.fixture
def arrays() -> dict[str, Any]:
    """Two images, three texts; the tops are padded, for no gallery here has ten."""
    return {
        "i2t_rank": np.array([1, 3]),
        "i2t_top": np.array([[7, 8, 9] + [-1] * 7, [7, 8, 9] + [-1] * 7]),
        "t2i_rank": np.array([1, 2, 1]),
        "t2i_top": np.array([[5, 6] + [-1] * 8] * 3),
        "image_id": np.array([5, 6]),
        "text_id": np.array([7, 8, 9]),
        "text_image_id": np.array([5, 5, 6]),
    }


def test_round_trip_as_int64(tmp_path: Path, arrays: dict[str, Any]) -> None:
    arrays["i2t_rank"] = arrays["i2t_rank"].astype(np.int32)
    assert write_ranks(tmp_path / "run", **arrays) == tmp_path / "run" / "ranks.npz"
    ranks = read_ranks(tmp_path / "run")
    for name, array in ranks._asdict().items():
        assert array.dtype == np.int64
        np.testing.assert_array_equal(array, arrays[name])


def test_the_same_ranks_give_the_same_bytes(tmp_path: Path, arrays: dict[str, Any]) -> None:
    one, other = write_ranks(tmp_path / "a", **arrays), write_ranks(tmp_path / "b", **arrays)
    assert one.read_bytes() == other.read_bytes()


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("i2t_rank", [1.0, 3.0], "i2t_rank must hold whole numbers, got float64"),
        ("i2t_rank", [1, 2, 3], r"i2t_rank must be of shape \(2,\), got \(3,\)"),
        ("t2i_top", np.ones((3, 5), np.int64), r"t2i_top must be of shape \(3, 10\), got \(3, 5\)"),
        ("i2t_rank", [0, 1], "i2t_rank must lie in 1…3, got 0…1"),
        ("t2i_rank", [1, 1, 3], "t2i_rank must lie in 1…2, got 1…3"),
        ("image_id", [5, 5], "image_id repeats 5"),
        ("text_id", [7, 8, 8], "text_id repeats 8"),
        ("text_image_id", [5, 5, 4], "text_image_id 4 is not in image_id"),
        ("image_id", np.array([], np.int64), r"the gallery is empty \(0 images, 3 texts\)"),
    ],
)
def test_what_does_not_fit_is_refused(
    tmp_path: Path, arrays: dict[str, Any], name: str, value: object, message: str
) -> None:
    with pytest.raises(ValueError, match=f"ranks.npz: {message}"):
        write_ranks(tmp_path, **arrays | {name: value})
    assert not list(tmp_path.iterdir())


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"ranks\.npz is missing"):
        read_ranks(tmp_path)


def test_missing_arrays_are_named(tmp_path: Path, arrays: dict[str, Any]) -> None:
    del arrays["text_id"], arrays["i2t_top"]
    np.savez_compressed(tmp_path / "ranks.npz", **arrays)
    with pytest.raises(ValueError, match=r"ranks\.npz: missing i2t_top, text_id"):
        read_ranks(tmp_path)


def test_pickles_are_refused(tmp_path: Path, arrays: dict[str, Any]) -> None:
    np.savez_compressed(tmp_path / "ranks.npz", **arrays | {"text_id": np.array([{}], dtype=object)})
    with pytest.raises(ValueError, match=r"ranks\.npz: broken: .*allow_pickle"):
        read_ranks(tmp_path)


@pytest.mark.parametrize("keep", [0, 10, 0.5, 0.98])
def test_truncated_files_are_refused(tmp_path: Path, arrays: dict[str, Any], keep: float) -> None:
    """Trap 34: what an interrupted copy leaves is an error that names the file."""
    path = write_ranks(tmp_path, **arrays)
    content = path.read_bytes()
    path.write_bytes(content[: int(keep if keep >= 1 else keep * len(content))])
    with pytest.raises(ValueError, match=r"ranks\.npz: broken"):
        read_ranks(tmp_path)
