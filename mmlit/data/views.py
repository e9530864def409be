"""Augmentations of a picture that no caption stands beside, so that none can be made false by them."""

import numpy as np
import torch
from PIL import Image, ImageFilter
from torch import Tensor
from torchvision.transforms import InterpolationMode, v2

from mmlit.contracts import ImageSpec
from mmlit.data.decode import readable, upright


class TwoViews:
    """Two random crops of a picture, each with its own colours, blur and side.

    A crop is taken from the whole picture and resized to the encoder's size. Everything is decided by a key.

    Args:
        scale: least and greatest share of the picture that a crop has, 0 < least ≤ greatest ≤ 1; its sides' ratio lies
            between 3 : 4 and 4 : 3.
        flip: probability of mirroring left and right, in [0, 1].
        jitter: probability that colours change, in [0, 1]: brightness, contrast and saturation by a factor between
            0.6 and 1.4, hue by a tenth of the circle at most.
        grayscale: probability that a view has no colours, in [0, 1].
        blur: probability of a Gaussian blur, in [0, 1].

    Raises:
        ValueError: if a number is out of range.

    Source: Chen et al. 2020 (SimCLR), App. A, arXiv 2002.05709, with the strengths of Chen et al. 2020 (MoCo v2),
    Sec. 3, arXiv 2003.04297, as Mu et al. 2021 (SLIP), Sec. 4, arXiv 2112.12750.
    Differs: the blur's deviation is in proportion to the side, 0.1 to 2 pixels where that is 224.
    """

    def __init__(
        self, *, scale: tuple[float, float], flip: float, jitter: float, grayscale: float, blur: float
    ) -> None:
        least, greatest = scale
        if not 0 < least <= greatest <= 1:
            raise ValueError(f"views.scale must be two shares in (0, 1], the smaller one first, got {list(scale)}")
        for name, probability in {"flip": flip, "jitter": jitter, "grayscale": grayscale, "blur": blur}.items():
            if not 0 <= probability <= 1:
                raise ValueError(f"views.{name} must lie in [0, 1], got {probability}")
        self.scale, self.flip, self.jitter, self.grayscale, self.blur = (least, greatest), flip, jitter, grayscale, blur
        self._transforms: dict[ImageSpec, v2.Compose] = {}

    def __call__(self, file: bytes, spec: ImageSpec, key: int) -> tuple[Tensor, ...]:
        """An undecoded picture → two uint8 (3,H,W), H = W = `spec.size`.

        Raises:
            ValueError: if it is no readable picture.
        """
        if spec not in self._transforms:
            self._transforms[spec] = self._made(spec)
        with readable(file) as opened:
            picture = upright(opened)
        with torch.random.fork_rng(devices=[]):  # torchvision draws from the process's own generator
            torch.default_generator.manual_seed(key)
            return tuple(self._view(picture, spec) for _ in range(2))

    def _view(self, picture: Image.Image, spec: ImageSpec) -> Tensor:
        view = self._transforms[spec](picture)
        blurred, deviation = torch.rand(2).tolist()
        if blurred < self.blur:  # torchvision's needs ten times as long
            view = view.filter(ImageFilter.GaussianBlur((0.1 + 1.9 * deviation) * spec.size / 224))
        return torch.from_numpy(np.array(view)).permute(2, 0, 1)

    def _made(self, spec: ImageSpec) -> v2.Compose:
        colours = v2.ColorJitter(brightness=0.4, contrast=0.4, saturation=0.4, hue=0.1)
        return v2.Compose(
            [
                v2.RandomResizedCrop(
                    spec.size, scale=self.scale, interpolation=InterpolationMode(spec.interpolation), antialias=True
                ),
                v2.RandomHorizontalFlip(self.flip),
                v2.RandomApply([colours], self.jitter),
                v2.RandomGrayscale(self.grayscale),
            ]
        )
