"""Files to pixels, as an image encoder's spec asks for them."""

import io
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache

import numpy as np
import simplejpeg
import torch
import torch.nn.functional as F
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError
from torch import Tensor

from mmlit.contracts import ImageSpec

#: another one where pixels have changed: stores of features are known by it
VERSION = 2
#: a strip longer than this many times its width is cut before it is resized: whole, it would need gigabytes
_LONGEST = 16
_JPEG = b"\xff\xd8\xff"
#: what a picture may be: others (PostScript, …) are programs, or need one to be read
_FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "PPM", "AVIF", "JPEG2000", "ICO")
_APP1, _START_OF_SCAN = 0xE1, 0xDA
#: sides of a picture that was shrunk in decoding, in units of what is asked for: less shows in the pixels
_MARGIN = 3
#: ways of resizing that torch has
_TORCH = ("bilinear", "bicubic")


def decode(file: bytes, spec: ImageSpec, *, exact: bool) -> Tensor:
    """A picture file → uint8 (3,H,W), as `prepare`, or nearly so.

    JPEGs are the exception where `exact` is false: they are decoded without the interpreter's lock, at a half or a
    quarter of their size where that leaves three times what the encoder asks for, and resized by torch. Pixels then
    differ by two levels at most (of 255) where nothing was halved. Where it was, fine detail is averaged in another
    way: by less than one level in the mean of a photograph, more in single pixels (`docs/data.md` has it measured).

    Raises:
        ValueError: if the file is no readable picture.
    """
    if not exact and file.startswith(_JPEG) and spec.interpolation in _TORCH:
        pixels = _decode_jpeg(file, spec)
        if pixels is not None:
            return pixels
    with readable(file) as picture:
        return prepare(picture, spec)


@contextmanager
def readable(file: bytes) -> Iterator[Image.Image]:
    """As `opened`, but one kind of error for all that is wrong with a picture, also when its pixels are read.

    Raises:
        ValueError: saying what is wrong.
    """
    try:
        with opened(file) as picture:
            yield picture
    except UnidentifiedImageError as error:  # its message names a buffer in memory
        raise ValueError("of no format that is read here") from error
    except (OSError, SyntaxError) as error:
        raise ValueError(str(error)) from error


@contextmanager
def opened(file: bytes) -> Iterator[Image.Image]:
    """A picture file, nothing but its header read.

    Raises:
        OSError, SyntaxError: if it is no picture, or not of a format that is read here.
        ValueError: if it promises more pixels than Pillow's `MAX_IMAGE_PIXELS`.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        try:
            picture = Image.open(io.BytesIO(file), formats=_formats())
        except (Image.DecompressionBombWarning, Image.DecompressionBombError) as error:
            raise ValueError(str(error)) from error
    with picture:
        yield picture


@cache
def _formats() -> list[str]:
    """Those that this Pillow was built with."""
    Image.init()
    return [name for name in _FORMATS if name in Image.OPEN]


def _decode_jpeg(file: bytes, spec: ImageSpec) -> Tensor | None:
    """Pixels of a JPEG; None for those that are left to Pillow: damaged, CMYK, very small, large or long ones."""
    try:
        height, width, colors, _ = simplejpeg.decode_jpeg_header(file)
        if colors == "CMYK" or height * width > (Image.MAX_IMAGE_PIXELS or sys.maxsize):
            return None
        side = spec.size if spec.resize == "squash" or spec.resize_to is None else spec.resize_to
        if not spec.size <= side <= min(height, width) or max(height, width) > _LONGEST * min(height, width):
            return None
        least = _MARGIN * side
        factor = next((factor for factor in (4, 2) if min(height, width) >= factor * least), 1)
        smallest = {"min_height": height // factor, "min_width": width // factor, "min_factor": factor}
        pixels = torch.from_numpy(simplejpeg.decode_jpeg(file, **(smallest if factor > 1 else {}))).permute(2, 0, 1)
    except ValueError:
        return None
    return _resized(_upright(file, pixels), spec)


def _upright(file: bytes, pixels: Tensor) -> Tensor:
    """Turned as the file's EXIF says; most files have none, and opening them all for it would take a while."""
    if not _has_exif(file):
        return pixels
    with opened(file) as picture:
        orientation = picture.getexif().get(ExifTags.Base.Orientation, 1)
    if orientation in (5, 6, 7, 8):
        pixels = pixels.transpose(1, 2)
    mirrored = {2: (2,), 3: (1, 2), 4: (1,), 6: (2,), 7: (1, 2), 8: (1,)}.get(orientation, ())
    return pixels.flip(mirrored) if mirrored else pixels


def _has_exif(file: bytes) -> bool:
    """Whether one of the segments before the picture itself is EXIF's."""
    place = 2
    while file[place : place + 1] == b"\xff" and file[place + 1] != _START_OF_SCAN:
        if file[place + 1] == _APP1 and file.startswith(b"Exif\0\0", place + 4):
            return True
        place += 2 + int.from_bytes(file[place + 2 : place + 4], "big")
    return False


def _resized(pixels: Tensor, spec: ImageSpec) -> Tensor:
    """As `prepare`, on bytes: torch resizes them without making floats of them, quickest as they were decoded."""
    height, width = pixels.shape[1:]
    size, side = spec.size, spec.size if spec.resize_to is None else spec.resize_to
    if spec.resize == "squash":
        wanted = (size, size)
    else:  # as torchvision rounds
        wanted = (side, int(side * width / height)) if height <= width else (int(side * height / width), side)
    if (height, width) != wanted:
        resized = F.interpolate(pixels[None], wanted, mode=spec.interpolation, antialias=True, align_corners=False)
        pixels = resized[0]
    if spec.resize == "squash":
        return pixels
    top, left = (round((length - size) / 2.0) for length in wanted)
    return pixels[:, top : top + size, left : left + size]


def ends_well(file: bytes) -> bool:
    """Whether it is a JPEG, PNG or WebP by its first bytes, and nothing is missing at its end."""
    if file.startswith(_JPEG):
        return file.endswith(b"\xff\xd9")
    if file.startswith(b"\x89PNG\r\n\x1a\n"):
        return file.endswith(b"IEND\xaeB`\x82")
    return file.startswith(b"RIFF") and file[8:12] == b"WEBP" and len(file) >= int.from_bytes(file[4:8], "little") + 8


def prepare(picture: Image.Image, spec: ImageSpec) -> Tensor:
    """A picture → uint8 (3,H,W), H = W = `spec.size`, upright, RGB (transparency on white).

    `squash` resizes both sides; `crop` resizes the shorter side to `spec.resize_to` and keeps the middle, pixel for
    pixel as torchvision's evaluation transforms. A side that has its length already is not touched.
    """
    picture = upright(picture)
    square = (spec.size, spec.size)
    if spec.resize == "crop":
        picture = _crop(picture, spec)
    elif picture.size != square:
        picture = picture.resize(square, Image.Resampling[spec.interpolation.upper()])
    return torch.from_numpy(np.array(picture)).permute(2, 0, 1)


def upright(picture: Image.Image) -> Image.Image:
    """Turned as EXIF says, RGB, transparency on white.

    Raises:
        ValueError: if its pixels are floats.
    """
    picture = _eight_bits(ImageOps.exif_transpose(picture))
    if picture.has_transparency_data:
        picture = picture.convert("RGBA")
        picture = Image.alpha_composite(Image.new("RGBA", picture.size, "white"), picture)
    return picture.convert("RGB")


def _eight_bits(picture: Image.Image) -> Image.Image:
    """Grey values of 16 bits as the upper 8 of them: Pillow itself would make white of all that is above 255."""
    if picture.mode == "F":
        raise ValueError("pixels are floats, which say nothing of their range: write it with 8 or 16 bits")
    if not picture.mode.startswith("I"):
        return picture
    return Image.fromarray((np.asarray(picture).clip(0, 65_535) >> 8).astype(np.uint8))


def _crop(picture: Image.Image, spec: ImageSpec) -> Image.Image:
    """The middle square of `spec.size` px, once the shorter side has `spec.resize_to`."""
    from torchvision.transforms import InterpolationMode, functional

    longest = _LONGEST * min(picture.size)
    if max(picture.size) > longest:
        picture = functional.center_crop(picture, [min(side, longest) for side in reversed(picture.size)])
    side = spec.size if spec.resize_to is None else spec.resize_to
    picture = functional.resize(picture, [side], InterpolationMode(spec.interpolation))
    return functional.center_crop(picture, [spec.size])
