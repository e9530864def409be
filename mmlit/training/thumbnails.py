"""Thumbnails and captions of the reported gallery, written once for the report."""

import io
import logging
from pathlib import Path
from typing import BinaryIO

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image, ImageOps

from mmlit.data.captions import Captions
from mmlit.results.atomic import write_atomically
from mmlit.results.pictures import COLUMNS, FOLDER, find_pictures

log = logging.getLogger(__name__)

#: pixels of a thumbnail's longer side
SIDE = 96
#: images of a gallery at most: beyond, it would be tens of megabytes
MOST = 10_000
_QUALITY = 80


def keep_pictures(captions: Captions, image_ids: np.ndarray, *, name: str, near: Path, otherwise: Path) -> None:
    """Writes `galleries/NAME` unless a folder above the run has it; a full disk is told, and stops no run.

    Args:
        captions: the reported split.
        image_ids: (N,) the images that were ranked.
        name: the file's.
        near: the run's folder.
        otherwise: gets the folder `galleries` if there is no such file yet.
    """
    if len(image_ids) > MOST or find_pictures(near, name):
        return
    try:
        table = _table(captions, np.flatnonzero(np.isin(captions.image_id, image_ids)))
        write_atomically(otherwise / FOLDER / name, lambda file: pq.write_table(table, file, compression="zstd"))
    except OSError as error:
        log.warning("no pictures for the report: %s", error)


def _table(captions: Captions, images: np.ndarray) -> pa.Table:
    texts = [captions.texts_of(image) for image in images.tolist()]
    columns = (
        pa.array(captions.image_id[images], pa.int64()),
        pa.array([_thumbnail_of(captions, image) for image in images.tolist()], pa.binary()),
        pa.array([captions.text_id[own.start : own.stop] for own in texts], pa.list_(pa.int64())),
        pa.array([[captions.texts[i].as_py() for i in own] for own in texts], pa.list_(pa.string())),
    )
    return pa.table(columns, names=list(COLUMNS))


def _thumbnail_of(captions: Captions, image: int) -> bytes | None:
    try:
        return thumbnail(io.BytesIO(captions.picture(image)))
    except OSError:
        return None


def thumbnail(file: Path | BinaryIO) -> bytes | None:
    """A JPEG of at most `SIDE` pixels a side, upright, transparency on white; None if it cannot be read any more."""
    try:
        with Image.open(file) as opened:
            opened.draft("RGB", (2 * SIDE, 2 * SIDE))  # lets a JPEG decode at a fraction of its size
            picture = ImageOps.exif_transpose(opened)
            if picture.has_transparency_data:
                picture = picture.convert("RGBA")
                picture = Image.alpha_composite(Image.new("RGBA", picture.size, "white"), picture)
            picture = picture.convert("RGB")
            picture.thumbnail((SIDE, SIDE))
            small = io.BytesIO()
            picture.save(small, "JPEG", quality=_QUALITY, subsampling=0)
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError):
        return None
    return small.getvalue()
