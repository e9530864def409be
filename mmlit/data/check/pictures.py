"""Every picture of a split, decoded in parallel as training decodes it."""

import sys
import warnings
from collections import Counter
from collections.abc import Iterator, Sequence
from hashlib import blake2b
from math import ceil
from typing import Any, NamedTuple

import numpy as np
from PIL import ExifTags
from rich.console import Console
from rich.progress import track
from torch.utils.data import DataLoader, Dataset

from mmlit.contracts import ImageSpec
from mmlit.data.captions import Captions
from mmlit.data.decode import decode, opened

#: pictures that a process takes at a time
_CHUNK = 64
#: fewer pictures than this are not worth another process
_FEW = 512
_SPEC = ImageSpec(dim=1, size=224, resize="crop", interpolation="bilinear")
_PNG_DEPTH = 24


class Picture(NamedTuple):
    """Of one file: `error` says why it cannot be used; `content` is a hash of its bytes, width and height in px."""

    image: int
    error: str
    content: bytes = b""
    width: int = 0
    height: int = 0
    kind: str = ""
    mode: str = ""
    marks: tuple[str, ...] = ()


def pictures(captions: Captions, images: np.ndarray, *, workers: int, told: str) -> list[Picture]:
    """The pictures number `images`, in that order; a progress bar where there is a terminal."""
    chunks = _Chunks(captions, images)
    processes = 0 if len(images) < _FEW else workers
    loader = DataLoader(chunks, batch_size=None, num_workers=processes, collate_fn=_as_is)
    shown: Iterator[list[Picture]] = iter(
        track(loader, told, total=len(chunks), console=Console(stderr=True), disable=not sys.stderr.isatty())
    )
    return [picture for chunk in shown for picture in chunk]


def summary(found: Sequence[Picture]) -> dict[str, Any]:
    """Counts of formats, modes and oddities, and the sides in px."""
    sound = [picture for picture in found if not picture.error]
    sides = np.array([(picture.width, picture.height) for picture in sound], np.int64).reshape(-1, 2)
    if not sound:
        return {"readable": 0}
    return {
        "readable": len(sound),
        "width": [int(sides[:, 0].min()), int(sides[:, 0].max())],
        "height": [int(sides[:, 1].min()), int(sides[:, 1].max())],
        "sizes": len(np.unique(sides, axis=0)),
        "formats": dict(Counter(picture.kind for picture in sound).most_common()),
        "modes": dict(Counter(picture.mode for picture in sound).most_common()),
        "marks": dict(Counter(mark for picture in sound for mark in picture.marks).most_common()),
    }


class _Chunks(Dataset[list[Picture]]):
    def __init__(self, captions: Captions, images: np.ndarray) -> None:
        self.captions, self.images = captions, images

    def __len__(self) -> int:
        return ceil(len(self.images) / _CHUNK)

    def __getitem__(self, chunk: int) -> list[Picture]:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # odd EXIF; pictures that are large but decoded
            return [self._picture(int(image)) for image in self.images[chunk * _CHUNK : (chunk + 1) * _CHUNK]]

    def _picture(self, image: int) -> Picture:
        try:
            file = self.captions.picture(image)
            decode(file, _SPEC, exact=False)
            return _described(image, file)
        except (OSError, ValueError, SyntaxError) as error:
            return Picture(image, str(error) or type(error).__name__)


def _as_is(chunk: list[Picture]) -> list[Picture]:
    return chunk


def _described(image: int, file: bytes) -> Picture:
    with opened(file) as picture:
        exif = picture.getexif() if b"Exif" in file[:65_536] or picture.format != "JPEG" else {}
        marks = {
            "turned by EXIF": exif.get(ExifTags.Base.Orientation, 1) not in (None, 0, 1),
            "greyscale": picture.mode in ("1", "L", "LA") or picture.mode.startswith("I"),
            "palette": picture.mode.startswith("P"),
            "CMYK": picture.mode == "CMYK",
            "transparency": picture.has_transparency_data,
            "16 bits": picture.mode.startswith(("I", "F")) or _deep(file),
            "animated": bool(getattr(picture, "is_animated", False)),
            "one pixel wide or high": min(picture.size) == 1,
        }
        return Picture(
            image,
            "",
            blake2b(file, digest_size=16).digest(),
            *picture.size,
            str(picture.format),
            picture.mode,
            tuple(mark for mark, there in marks.items() if there),
        )


def _deep(file: bytes) -> bool:
    """Whether a PNG has 16 bits a channel: Pillow gives colours with 8."""
    return file.startswith(b"\x89PNG") and len(file) > _PNG_DEPTH and file[_PNG_DEPTH] == 16
