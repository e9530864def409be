"""The pictures and captions of a gallery, small, for reports: one file per data and gallery, beside the runs."""

from pathlib import Path
from typing import NamedTuple

FOLDER = "galleries"
COLUMNS = ("image_id", "thumbnail", "text_id", "caption")
"""One line per image: `thumbnail` is a JPEG or null, `text_id` and `caption` are lists of equal length."""

_UP = 5
"""How many folders above a run are searched: `outputs/SWEEP/RUN/evaluations/NAME` finds what lies in `outputs`."""


class Pictures(NamedTuple):
    """Thumbnails (JPEG) by image id and captions by text id."""

    thumbnails: dict[int, bytes]
    captions: dict[int, str]


def file_name(data_hash: str, gallery_hash: str) -> str:
    """The file of one gallery of one data set; both hashes are those of a record."""
    return f"{data_hash}-{gallery_hash}.parquet"


def find_pictures(directory: Path, name: str) -> Path | None:
    """The file of that name in a folder `galleries` above a run, the nearest first."""
    folders = list(directory.absolute().parents)[:_UP]
    places = (folder / FOLDER / name for folder in folders)
    return next((place for place in places if place.is_file()), None)


def read_pictures(path: Path) -> Pictures:
    """Read a gallery's file.

    Raises:
        ValueError: it is broken, or lacks a column.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        table = pq.read_table(path, columns=list(COLUMNS))
    except (pa.ArrowInvalid, pa.ArrowKeyError) as error:
        raise ValueError(f"{path}: broken: {error}") from error
    images, thumbnails = (table.column(name).to_pylist() for name in COLUMNS[:2])
    texts, captions = (table.column(name).combine_chunks().flatten().to_pylist() for name in COLUMNS[2:])
    kept = {image: thumbnail for image, thumbnail in zip(images, thumbnails, strict=True) if thumbnail is not None}
    return Pictures(kept, dict(zip(texts, captions, strict=True)))
