"""How pictures are read, and what happens when one cannot be."""

import logging
from collections.abc import Sequence
from typing import Literal

import torch

from mmlit.data.captions import Captions

log = logging.getLogger(__name__)


class UnreadablePictureError(ValueError):
    """A picture that cannot be read, or too many of them; the message names file and row."""

    def __init__(self, message: str) -> None:
        # A loader raises what its worker raised anew, with the worker's whole traceback for a message.
        super().__init__(message.strip().rpartition(f"{type(self).__name__}: ")[2])


class Reading:
    """How pictures are read in training.

    The reported split is always read exactly, and a picture of a gallery that cannot be read always stops the run: a
    gallery with holes is another gallery.

    Args:
        decode: `fast` lets JPEG decoding shrink a picture on its way to the encoder's size (see
            `mmlit.data.decode.decode`); `exact` resizes whole pictures as the encoder's own transform does.
        on_error: `raise` stops the run at a picture that cannot be read; `skip` takes another image in its place.
        max_bad_share: `skip` stops the run when more than this share of the training images cannot be read, in [0, 1).

    Raises:
        ValueError: if `max_bad_share` is out of range.
    """

    def __init__(
        self, *, decode: Literal["fast", "exact"], on_error: Literal["raise", "skip"], max_bad_share: float
    ) -> None:
        if not 0 <= max_bad_share < 1:
            raise ValueError(f"reading.max_bad_share must lie in [0, 1), got {max_bad_share}")
        self.decode, self.on_error, self.max_bad_share = decode, on_error, max_bad_share


class Broken:
    """Which pictures of a split cannot be read; all reading processes of a device share what they find.

    Args:
        captions: the split; pictures whose file is missing are broken from the start.
        reading: what to do with a broken one.
        world_size: W, of which this device reads the W-th part: what it finds counts W times.
        gallery: whether the split is ranked: then messages say that it keeps all its pictures.
    """

    def __init__(self, *, captions: Captions, reading: Reading, world_size: int = 1, gallery: bool = False) -> None:
        self.captions, self.skips, self.world_size = captions, reading.on_error == "skip", world_size
        self.hint = "; a ranked split is never thinned out: `mmlit data check --fix` makes data without it"
        self.hint = self.hint if gallery else ""
        self.limit = reading.max_bad_share * captions.num_images
        self.told = f"{reading.max_bad_share:.3g} (reading.max_bad_share)"
        self.flags = torch.zeros(captions.num_images, dtype=torch.bool).share_memory_()
        missing = [] if captions.missing is None else captions.missing.tolist()
        self.known = len(missing)  # to every device
        for image in missing:
            self.found(image, "no such file")

    def __contains__(self, image: int) -> bool:
        return bool(self.flags[image])

    def found(self, image: int, why: object) -> None:
        """Marks a picture, tells of it once, and stops the run where it must not go on.

        Raises:
            UnreadablePictureError: at the first one, or at one too many of them where they are skipped.
        """
        told = f"{self.captions.name(image)}: not a readable picture: {why}{self.hint}"
        if not self.skips:
            raise UnreadablePictureError(told)
        if image not in self:
            self.flags[image] = True
            log.warning("%s; another image takes its place", told)
        self._check(told)

    def recall(self, images: Sequence[int]) -> None:
        """Marks the pictures that could not be read when every picture of the split was, by all devices together.

        Raises:
            UnreadablePictureError: as `found`.
        """
        for image in images:
            told = f"{self.captions.name(image)}: not a readable picture when it was encoded{self.hint}"
            if not self.skips:
                raise UnreadablePictureError(told)
            if image not in self:
                self.flags[image] = True
                self.known += 1
                log.warning("%s; another image takes its place", told)
            self._check(told)

    def _check(self, last: str) -> None:
        marked = int(self.flags.sum())
        found = max(0, marked - self.known)
        if (count := min(marked, self.known) + found * self.world_size) > self.limit:
            raise UnreadablePictureError(
                f"{count} of {self.captions.num_images} pictures of {self.captions.source} cannot be read, more than "
                f"{self.told}, the last one {last}"
            )
