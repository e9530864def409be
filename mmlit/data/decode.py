"""Files to pixels, as an image encoder's spec asks for them."""

import io
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor

from mmlit.contracts import ImageSpec

#: a strip longer than this many times its width is cut before it is resized: whole, it would need gigabytes
_LONGEST = 16


def decode(file: bytes, spec: ImageSpec, *, name: str | Path) -> Tensor:
    """A picture file → uint8 (3,H,W), as `prepare`.

    Raises:
        ValueError: if the file is no readable picture, naming it.
    """
    try:
        with Image.open(io.BytesIO(file)) as opened:
            return prepare(opened, spec)
    except UnidentifiedImageError as error:  # its message names a buffer in memory
        raise ValueError(f"{name}: not a readable picture: of no format that Pillow knows") from error
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise ValueError(f"{name}: not a readable picture: {error}") from error


def prepare(picture: Image.Image, spec: ImageSpec) -> Tensor:
    """A picture → uint8 (3,H,W), H = W = `spec.size`, upright, RGB (transparency on white).

    `squash` resizes both sides; `crop` resizes the shorter side to `spec.resize_to` and keeps the middle, pixel for
    pixel as torchvision's evaluation transforms. A side that has its length already is not touched.
    """
    picture = ImageOps.exif_transpose(picture)
    if picture.has_transparency_data:
        picture = picture.convert("RGBA")
        picture = Image.alpha_composite(Image.new("RGBA", picture.size, "white"), picture)
    picture = picture.convert("RGB")
    square = (spec.size, spec.size)
    if spec.resize == "crop":
        picture = _crop(picture, spec)
    elif picture.size != square:
        picture = picture.resize(square, Image.Resampling[spec.interpolation.upper()])
    return torch.from_numpy(np.array(picture)).permute(2, 0, 1)


def _crop(picture: Image.Image, spec: ImageSpec) -> Image.Image:
    """The middle square of `spec.size` px, once the shorter side has `spec.resize_to`."""
    from torchvision.transforms import InterpolationMode, functional

    longest = _LONGEST * min(picture.size)
    if max(picture.size) > longest:
        picture = functional.center_crop(picture, [min(side, longest) for side in reversed(picture.size)])
    side = spec.size if spec.resize_to is None else spec.resize_to
    picture = functional.resize(picture, [side], InterpolationMode(spec.interpolation))
    return functional.center_crop(picture, [spec.size])
