"""What changes training items: pictures, words, or pictures in pairs; decided by seed, epoch and ids alone."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import ClassVar

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from mmlit.contracts import Batch, ImageSpec, uniform
from mmlit.data.decode import decode, readable, upright

#: what captions may tell that an augmentation may make false: left and right, colours, what and how much is there
TOLD = ("sides", "colours", "objects")


class Augmentation:
    """Attributes: `contradicts`, of `TOLD`, what a caption may tell that is not true any more."""

    contradicts: ClassVar[frozenset[str]] = frozenset()


class PictureAugmentation(Augmentation):
    """Changes one picture; draws from torch's generator, which is seeded for each picture.

    Attributes: `late`, whether it comes after others, whatever the order they are given in.
    """

    late: ClassVar[bool] = False

    def resized(self, picture: Image.Image, spec: ImageSpec) -> Image.Image | None:
        """The whole picture → one of `spec.size`, in place of the encoder's own resizing; None leaves that to it."""
        return None

    def changed(self, pixels: Tensor) -> Tensor:
        """Pixels of the encoder's size, uint8 (3,H,W) → the same."""
        return pixels


class WordAugmentation(Augmentation, ABC):
    """Leaves words out."""

    @abstractmethod
    def kept(self, draws: Tensor) -> Tensor:
        """Uniform draws (M,L) in (0, 1), one for each token → whether it stays, (M,L) bool."""


class MixAugmentation(Augmentation, ABC):
    """Mixes each picture of a batch with another one; the target mixes with them (`Batch.mix_weight`)."""

    @abstractmethod
    def mixed(self, pixels: Tensor, others: Tensor, generator: np.random.Generator) -> tuple[Tensor, float]:
        """Two batches of pictures, uint8 (N,3,H,W) → one, and the share of the first in each of its pictures."""


class Augmenter:
    """Several augmentations at once; the order they are given in says nothing.

    Args:
        augmentations: of any of the three kinds; of those that mix or resize, one each at most.
        seed: of all draws.
        special_ids: tokens that are no words.

    Raises:
        ValueError: if two mix, or two resize.
    """

    def __init__(self, augmentations: Sequence[Augmentation], *, seed: int, special_ids: Sequence[int]) -> None:
        self.seed, self.special = seed, torch.tensor(special_ids)
        pictures = [each for each in augmentations if isinstance(each, PictureAugmentation)]
        self.pictures = sorted(pictures, key=lambda each: (each.late, type(each).__name__))
        self.words = [each for each in augmentations if isinstance(each, WordAugmentation)]
        self.mixes = [each for each in augmentations if isinstance(each, MixAugmentation)]
        resizing = [each for each in self.pictures if type(each).resized is not PictureAugmentation.resized]
        for kind, found in (("mix pictures", self.mixes), ("resize pictures", resizing)):
            if len(found) > 1:
                names = " and ".join(type(each).__name__ for each in found)
                raise ValueError(f"augmentation: {names} both {kind}; take one of them")
        self.resizes = bool(resizing)

    @property
    def towers(self) -> frozenset[str]:
        """The encoders that see another thing in each epoch."""
        sides = {"image_encoder": self.pictures or self.mixes, "text_encoder": self.words}
        return frozenset(name for name, found in sides.items() if found)

    def picture(self, file: bytes, spec: ImageSpec, *, exact: bool, epoch: int, image_id: int) -> Tensor:
        """An undecoded picture → uint8 (3,H,W).

        Raises:
            ValueError: if it is no readable picture.
        """
        with torch.random.fork_rng(devices=[]):  # torchvision draws from the process's own generator
            torch.default_generator.manual_seed(self._key(epoch, image_id, 0))
            pixels = self._resized(file, spec) if self.resizes else decode(file, spec, exact=exact)
            for augmentation in self.pictures:
                pixels = augmentation.changed(pixels)
        return pixels

    def tokens(self, ids: Tensor, mask: Tensor, *, text_id: Tensor, epochs: Tensor) -> tuple[Tensor, Tensor]:
        """Ids and mask (M,L) without the words left out; of a caption's words one stays at least."""
        for number, augmentation in enumerate(self.words):
            places = torch.arange(ids.shape[1])
            draws = uniform(self.seed, 1 + number, epochs[:, None], text_id[:, None], places)
            words = mask & ~torch.isin(ids, self.special)
            kept = augmentation.kept(draws) & words
            last = (draws * words).argmax(1)  # the one that would go last
            kept[torch.arange(len(ids)), last] |= words.any(1)
            kept |= mask & ~words
            order = torch.argsort(~kept, dim=1, stable=True)[:, : int(kept.sum(1).max())]
            ids, mask = (part.gather(1, order) for part in (torch.where(kept, ids, 0), kept))
        return ids, mask

    def mix(self, batch: Batch, *, epochs: Sequence[int]) -> Batch:
        """Each picture with the next one of this device's batch, all by one share, so that each caption is shown once.

        A picture that is alone is mixed with itself: all devices have mixed pictures, or none has.
        """
        if not self.mixes or not isinstance(batch.image, Tensor) or not len(batch.image):
            return batch
        (mix,) = self.mixes
        generator = np.random.default_rng(self._key(epochs[0], int(batch.image_id[0]), 1))
        pixels, share = mix.mixed(batch.image, batch.image.roll(-1, 0), generator)
        labels = batch.labels
        if labels is not None:
            labels = torch.lerp(labels.roll(-1, 0).float(), labels.float(), share)
        shares = torch.full((len(pixels),), share)
        return batch._replace(image=pixels, mix_image_id=batch.image_id.roll(-1), mix_weight=shares, labels=labels)

    def _resized(self, file: bytes, spec: ImageSpec) -> Tensor:
        with readable(file) as opened:
            picture = upright(opened)
        for augmentation in self.pictures:
            if (found := augmentation.resized(picture, spec)) is not None:
                picture = found
        return torch.from_numpy(np.array(picture)).permute(2, 0, 1)

    def _key(self, epoch: int, image_id: int, purpose: int) -> int:
        return int(uniform(self.seed, epoch, image_id, purpose) * 2**52)


def refuse_contradictions(augmentations: Sequence[Augmentation], told: Sequence[str]) -> None:
    """Trains no tower on captions that have become false.

    Raises:
        ValueError: if one of them contradicts what captions tell, or `told` has an unknown word.
    """
    if unknown := [word for word in told if word not in TOLD]:
        raise ValueError(f"data.captions_tell must be of {', '.join(TOLD)}, got {unknown[0]}")
    for augmentation in augmentations:
        if false := [word for word in told if word in augmentation.contradicts]:
            raise ValueError(
                f"augmentation: {type(augmentation).__name__} makes captions false that tell of {', '.join(false)}, as "
                "these do (data.captions_tell); leave it out"
            )
