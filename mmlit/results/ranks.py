"""`ranks.npz`: every query's rank and its ten best ids, from which differences are tested pair by pair."""

import zipfile
import zlib
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mmlit.results.atomic import write_atomically

FILE_NAME = "ranks.npz"
TOP = 10
_TOPS = {"i2t_top": "i2t_rank", "t2i_top": "t2i_rank"}

Ids = NDArray[np.int64]


class Ranks(NamedTuple):
    """Ranks count from 1; a gallery of fewer than ten leaves -1 in the tops' last places.

    Shapes: i2t_rank (N,), i2t_top (N, 10) text ids, t2i_rank (M,), t2i_top (M, 10) image ids, image_id (N,),
    text_id (M,), text_image_id (M,).
    """

    i2t_rank: Ids
    i2t_top: Ids
    t2i_rank: Ids
    t2i_top: Ids
    image_id: Ids
    text_id: Ids
    text_image_id: Ids


def write_ranks(
    directory: Path,
    *,
    i2t_rank: ArrayLike,
    i2t_top: ArrayLike,
    t2i_rank: ArrayLike,
    t2i_top: ArrayLike,
    image_id: ArrayLike,
    text_id: ArrayLike,
    text_image_id: ArrayLike,
) -> Path:
    """Check the ranks of one evaluation and write them as `ranks.npz`, atomically.

    Args:
        directory: the run's directory, made if missing.
        i2t_rank: (N,) rank of each image's best own text, 1…M.
        i2t_top: (N, 10) ids of the ten best texts, -1 where there are fewer.
        t2i_rank: (M,) rank of each text's image, 1…N.
        t2i_top: (M, 10) ids of the ten best images, -1 where there are fewer.
        image_id: (N,) ids, all different.
        text_id: (M,) ids, all different.
        text_image_id: (M,) the image that each text belongs to.

    Returns:
        The file's path.

    Raises:
        ValueError: a shape or a type does not fit, ids repeat, a text's image is not in the gallery, or a
            rank lies outside the gallery; the message names the file and the array. Nothing is written.
    """
    path = directory / FILE_NAME
    given = {
        "i2t_rank": i2t_rank,
        "i2t_top": i2t_top,
        "t2i_rank": t2i_rank,
        "t2i_top": t2i_top,
        "image_id": image_id,
        "text_id": text_id,
        "text_image_id": text_image_id,
    }
    ranks = _checked({name: np.asarray(value) for name, value in given.items()}, path)
    return write_atomically(path, lambda file: np.savez_compressed(file, **ranks._asdict()))


def read_ranks(directory: Path, *, tops: bool = True) -> Ranks:
    """Read the `ranks.npz` of a run's directory.

    Args:
        directory: the run's.
        tops: whether the ten best ids are wanted, which are most of the file; else they are all -1.

    Raises:
        FileNotFoundError: there is none.
        ValueError: it is broken, lacks an array or breaks the rules of `write_ranks`.
    """
    path = directory / FILE_NAME
    if not path.is_file():
        raise FileNotFoundError(f"{path} is missing: differences are tested query by query")
    try:
        with zipfile.ZipFile(path) as archive:
            missing = [name for name in Ranks._fields if f"{name}.npy" not in archive.namelist()]
        if not missing:
            with np.load(path, allow_pickle=False) as file:
                arrays = {name: file[name] for name in Ranks._fields if tops or name not in _TOPS}
    except (zipfile.BadZipFile, zlib.error, EOFError, ValueError) as error:
        raise ValueError(f"{path}: broken: {error}") from error
    if missing:
        raise ValueError(f"{path}: missing {', '.join(missing)}")
    for name, rank in ({} if tops else _TOPS).items():
        arrays[name] = np.broadcast_to(np.int64(-1), (arrays[rank].size, TOP))
    return _checked(arrays, path)


def _checked(arrays: dict[str, NDArray[Any]], path: Path) -> Ranks:
    for name, array in arrays.items():
        if not np.issubdtype(array.dtype, np.integer):
            raise ValueError(f"{path}: {name} must hold whole numbers, got {array.dtype}")
    ranks = Ranks(**{name: array.astype(np.int64, copy=False) for name, array in arrays.items()})
    _check_shapes(ranks, path)
    for name in ("image_id", "text_id"):
        ids, counts = np.unique(arrays[name], return_counts=True)
        if (counts > 1).any():
            raise ValueError(f"{path}: {name} repeats {ids[counts > 1][0]}")
    strangers = np.setdiff1d(ranks.text_image_id, ranks.image_id)
    if strangers.size:
        raise ValueError(f"{path}: text_image_id {strangers[0]} is not in image_id")
    for name, rank, size in (
        ("i2t_rank", ranks.i2t_rank, ranks.text_id.size),
        ("t2i_rank", ranks.t2i_rank, ranks.image_id.size),
    ):
        if rank.min() < 1 or rank.max() > size:
            raise ValueError(f"{path}: {name} must lie in 1…{size}, got {rank.min()}…{rank.max()}")
    return ranks


def _check_shapes(ranks: Ranks, path: Path) -> None:
    n, m = ranks.image_id.size, ranks.text_id.size
    if not n or not m:
        raise ValueError(f"{path}: the gallery is empty ({n} images, {m} texts)")
    expected: list[tuple[int, ...]] = [(n,), (n, TOP), (m,), (m, TOP), (n,), (m,), (m,)]
    for name, array, shape in zip(Ranks._fields, ranks, expected, strict=True):
        if array.shape != shape:
            raise ValueError(f"{path}: {name} must be of shape {shape}, got {array.shape}")
