"""A part of the picture, resized to the encoder's size."""

from typing import ClassVar

from PIL import Image
from torchvision.transforms import InterpolationMode, v2

from mmlit.contracts import ImageSpec
from mmlit.data.augmentation import PictureAugmentation


class Crop(PictureAugmentation):
    """A random crop of the whole picture, its sides' ratio between 3 : 4 and 4 : 3.

    Args:
        scale: least and greatest share of the picture, 0 < least ≤ greatest ≤ 1.

    Raises:
        ValueError: if the shares are out of range.

    Source: Szegedy et al. 2014, "Going deeper with convolutions", Sec. 6, arXiv 1409.4842; of pairs with shares of
    0.9 to 1 Radford et al. 2021 (CLIP) in open_clip's recipe.
    """

    contradicts: ClassVar[frozenset[str]] = frozenset({"objects"})

    def __init__(self, *, scale: tuple[float, float]) -> None:
        least, greatest = scale
        if not 0 < least <= greatest <= 1:
            raise ValueError(
                f"augmentation.crop.scale must be two shares in (0, 1], the smaller one first, got {list(scale)}"
            )
        self.scale = (least, greatest)

    def resized(self, picture: Image.Image, spec: ImageSpec) -> Image.Image:
        """See `PictureAugmentation.resized`."""
        crop = v2.RandomResizedCrop(spec.size, scale=self.scale, interpolation=InterpolationMode(spec.interpolation))
        return crop(picture)
