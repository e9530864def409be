"""Files to pixels, as an image encoder's spec asks for them."""

import io
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor

from mmlit.contracts import ImageSpec

_FILTERS = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}


def decode(file: bytes, spec: ImageSpec, *, name: str | Path) -> Tensor:
    """A picture file → uint8 (3,H,W), H = W = `spec.size`, upright, RGB (transparency on white).

    `squash` resizes both sides; `crop` resizes the shorter side and keeps the middle.

    Raises:
        ValueError: if the file is no readable picture, naming it.
    """
    try:
        with Image.open(io.BytesIO(file)) as opened:
            picture = ImageOps.exif_transpose(opened)
            if picture.has_transparency_data:
                picture = picture.convert("RGBA")
                picture = Image.alpha_composite(Image.new("RGBA", picture.size, "white"), picture)
            picture = picture.convert("RGB")
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise ValueError(f"{name}: not a readable picture: {error}") from error
    square = (spec.size, spec.size)
    if spec.resize == "crop":
        picture = ImageOps.fit(picture, square, _FILTERS[spec.interpolation])
    elif picture.size != square:
        picture = picture.resize(square, _FILTERS[spec.interpolation])
    return torch.from_numpy(np.array(picture)).permute(2, 0, 1)
