"""Rows of an epoch or a gallery, each device's share of them, and where a killed run goes on."""

from collections.abc import Callable, Iterator
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset, Sampler

from mmlit.contracts import uniform
from mmlit.data.batching import ALL, Epoch
from mmlit.data.captions import Captions


class Row(NamedTuple):
    """What to read: image number `image` with the captions number `texts` of a split, in epoch `epoch` of training."""

    image: int
    texts: tuple[int, ...]
    epoch: int = 0


class TrainingRows(Dataset[Row]):
    """What the sampler asks for; a bare number is that row of epoch 0: so Lightning asks with overfit_batches."""

    def __init__(self, *, captions: Captions, plan: Callable[[int], Epoch], size: int) -> None:
        self.captions, self.plan, self.size = captions, plan, size

    @cached_property
    def _first_epoch(self) -> Epoch:
        epoch = self.plan(0)
        order = np.lexsort((epoch.text, epoch.image))
        return Epoch(epoch.image[order], epoch.text[order])

    def __len__(self) -> int:
        return self.size

    def __getitem__(self, key: tuple[int, int, int] | int) -> Row:
        if not isinstance(key, tuple):
            key = (int(self._first_epoch.image[key]), int(self._first_epoch.text[key]), 0)
        image, text, epoch = key
        return Row(image, tuple(self.captions.texts_of(image)) if text == ALL else (text,), epoch)


class EvaluationRows(Dataset[Row]):
    """Each image once, with all its captions; or the images number `images` only."""

    def __init__(self, *, captions: Captions, images: np.ndarray | None = None) -> None:
        self.captions, self.images = captions, images

    def __len__(self) -> int:
        return self.captions.num_images if self.images is None else len(self.images)

    def __getitem__(self, place: int) -> Row:
        image = place if self.images is None else int(self.images[place])
        return Row(image, tuple(self.captions.texts_of(image)))


class EpochSampler(Sampler[tuple[int, int, int]]):
    """(image number, text number, epoch) in an order that only seed and epoch decide, W devices taking every W-th row.

    A global batch holds the same rows for any number of devices. `drop_last` leaves out the last, smaller global
    batch; without it the shares of the last one may be uneven, and a rest of fewer rows than devices is left out,
    since every device must take part in every step. `set_epoch` is called by Lightning.

    Args:
        plan: the rows of an epoch, given its number.
        size: rows of an epoch.
        batch_size: rows per device and step.
        drop_last: as above.
        rank: this device, 0 … W − 1.
        world_size: W.
    """

    def __init__(
        self,
        *,
        plan: Callable[[int], Epoch],
        size: int,
        batch_size: int,
        drop_last: bool,
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        self.plan, self.size, self.batch_size, self.drop_last = plan, size, batch_size, drop_last
        self.rank, self.world_size, self.epoch, self.skip = rank, world_size, 0, 0

    def set_epoch(self, epoch: int) -> None:
        """The epoch of the next pass."""
        self.epoch = epoch

    def __iter__(self) -> Iterator[tuple[int, int, int]]:
        skip, self.skip = self.skip, 0
        share = slice(self.rank + skip * self.world_size, self._total(), self.world_size)
        images, texts = (column[share] for column in self.plan(self.epoch))
        epoch = self.epoch
        return ((int(image), int(text), epoch) for image, text in zip(images, texts, strict=True))

    def __len__(self) -> int:
        return len(range(self.rank, self._total(), self.world_size))

    def _total(self) -> int:
        rest = self.size % (self.batch_size * self.world_size)
        return self.size - rest if self.drop_last or rest < self.world_size else self.size


class EpochLoader(DataLoader[Row]):
    """A training loader that a checkpoint can hold: the pass after `load_state_dict` begins where that one stood."""

    _given = 0

    def state_dict(self) -> dict[str, int]:
        """Batches of the current pass that were asked for so far."""
        return {"batches": self._given}

    def load_state_dict(self, state_dict: dict[str, int]) -> None:
        """The next pass begins behind so many batches."""
        self._given = state_dict["batches"]
        if isinstance(self.sampler, EpochSampler):  # Lightning puts another in its place for overfit_batches
            self.sampler.skip = self._given * int(self.batch_size or 1)

    def __iter__(self) -> Iterator[Any]:  # type: ignore[override]
        if not (isinstance(self.sampler, EpochSampler) and self.sampler.skip):
            self._given = 0
        for batch in super().__iter__():
            self._given += 1
            yield batch


class ShareSampler(Sampler[int]):
    """Every W-th image for evaluation; nothing is repeated to make the shares even."""

    def __init__(self, *, size: int, rank: int = 0, world_size: int = 1) -> None:
        self.share = range(rank, size, world_size)

    def __iter__(self) -> Iterator[int]:
        return iter(self.share)

    def __len__(self) -> int:
        return len(self.share)


def held_out(image_id: np.ndarray, count: int, *, option: str = "data.val") -> np.ndarray:
    """Numbers of the `count` images that are set aside, as `option` asks; the same for every run and seed.

    Raises:
        ValueError: if `count` is not between 1 and the number of images − 1.
    """
    if not 1 <= count < len(image_id):
        raise ValueError(f"{option}={count} images to set aside must lie in 1 … {len(image_id) - 1}")
    order = np.argsort(uniform(0, torch.from_numpy(image_id)).numpy(), kind="stable")
    return np.sort(order[:count])
