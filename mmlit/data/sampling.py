"""Which image, which caption, in which order: functions of (seed, epoch, id) and of nothing else."""

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset, Sampler

from mmlit.contracts import uniform
from mmlit.data.captions import Captions


class Row(NamedTuple):
    """What to read: image number `image` with the captions number `texts` of a split."""

    image: int
    texts: tuple[int, ...]


class TrainingRows(Dataset[Row]):
    """One caption of each image, drawn anew each epoch; indexed by (image number, epoch).

    A bare image number stands for epoch 0: so Lightning asks with `trainer.overfit_batches`.
    """

    def __init__(self, *, captions: Captions, seed: int) -> None:
        self.captions, self.seed = captions, seed

    def __len__(self) -> int:
        return self.captions.num_images

    def __getitem__(self, key: tuple[int, int] | int) -> Row:
        return self.__getitems__([key])[0]

    def __getitems__(self, keys: Sequence[tuple[int, int] | int]) -> list[Row]:
        """The rows of a batch: their draws are made together, which a loader asks for where it is offered."""
        images, epochs = zip(*(key if isinstance(key, tuple) else (key, 0) for key in keys), strict=True)
        ids = torch.from_numpy(self.captions.image_id[list(images)])
        draws = uniform(self.seed, torch.tensor(epochs), ids).tolist()
        texts = map(self.captions.texts_of, images)
        return [Row(image, (own[int(draw * len(own))],)) for image, own, draw in zip(images, texts, draws, strict=True)]


class EvaluationRows(Dataset[Row]):
    """Each image once, with all its captions."""

    def __init__(self, *, captions: Captions) -> None:
        self.captions = captions

    def __len__(self) -> int:
        return self.captions.num_images

    def __getitem__(self, image: int) -> Row:
        return Row(image, tuple(self.captions.texts_of(image)))


class EpochSampler(Sampler[tuple[int, int]]):
    """(image number, epoch) in an order that only seed and epoch decide; each of W devices takes every W-th batch row.

    A global batch holds the same images for any number of devices. `drop_last` leaves out the last, smaller global
    batch; without it the shares of the last one may be uneven, and a rest of fewer images than devices is left out,
    since every device must take part in every step. `set_epoch` is called by Lightning.
    """

    def __init__(
        self, *, size: int, batch_size: int, seed: int, drop_last: bool, rank: int = 0, world_size: int = 1
    ) -> None:
        self.size, self.batch_size, self.seed, self.drop_last = size, batch_size, seed, drop_last
        self.rank, self.world_size, self.epoch, self.skip = rank, world_size, 0, 0

    def set_epoch(self, epoch: int) -> None:
        """The epoch of the next pass."""
        self.epoch = epoch

    def __iter__(self) -> Iterator[tuple[int, int]]:
        generator = np.random.default_rng([self.seed, self.epoch])
        order = generator.permutation(self.size)[: self._total()]
        skip, self.skip = self.skip, 0
        return ((int(image), self.epoch) for image in order[self.rank :: self.world_size][skip:])

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


def held_out(image_id: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Numbers of the images that stay and of the `count` that are set aside; the same for every run and seed.

    Raises:
        ValueError: if `count` is not between 1 and the number of images − 1.
    """
    if not 1 <= count < len(image_id):
        raise ValueError(f"data.val={count} images to set aside must lie in 1 … {len(image_id) - 1}")
    order = np.argsort(uniform(0, torch.from_numpy(image_id)).numpy(), kind="stable")
    return np.sort(order[count:]), np.sort(order[:count])
