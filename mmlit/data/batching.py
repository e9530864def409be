"""What a training batch is made of: which captions, in which order. Functions of (seed, epoch, ids) alone."""

from typing import NamedTuple, Protocol

import numpy as np
import torch

from mmlit.contracts import uniform
from mmlit.data.captions import Captions
from mmlit.data.windows import shuffled_images, shuffled_texts

#: text number of a row that has all captions of its image
ALL = -1
#: exchanges tried for each batch before batches are said to be too large
_TRIES = 100
#: batches whose rows are sorted by length together
_SORTED_TOGETHER = 32


class Epoch(NamedTuple):
    """Rows of an epoch in their order: `image` (R,) numbers of images, `text` (R,) of captions or `ALL`."""

    image: np.ndarray
    text: np.ndarray


class Batching(Protocol):
    """Decides what an epoch shows; `shows` says it."""

    shows: str

    def size(self, captions: Captions) -> int:
        """R, rows of an epoch."""

    def epoch(self, captions: Captions, lengths: np.ndarray, *, batch: int, seed: int, number: int) -> Epoch:
        """Epoch `number`, of which `batch` rows in turn are a global batch; `lengths` (M,) tokens of each caption."""


class OneCaption:
    """One caption of each image, drawn anew each epoch.

    Args:
        group_by_length: whether batches hold captions of like length. Less is computed for padding, but the negatives
            are other ones: not for a comparison.
    """

    shows = "one caption of each image"

    def __init__(self, *, group_by_length: bool) -> None:
        self.group_by_length = group_by_length

    def size(self, captions: Captions) -> int:
        """One row for each image."""
        return captions.num_images

    def epoch(self, captions: Captions, lengths: np.ndarray, *, batch: int, seed: int, number: int) -> Epoch:
        """See `Batching.epoch`."""
        draws = uniform(seed, number, torch.tensor(captions.image_id)).numpy()
        counts = np.diff(captions.first)
        text = captions.first[:-1] + (draws * counts).astype(np.int64)
        order = shuffled_images(captions, seed, number)
        if self.group_by_length:
            order = _grouped(order, lengths[text], batch, seed, number, window=captions.window)
        return Epoch(order, text[order])


class AllCaptions:
    """Each image with all its captions, each of which is a positive.

    Args:
        group_by_length: as of `OneCaption`, by an image's longest caption.
    """

    shows = "all captions of each image"

    def __init__(self, *, group_by_length: bool) -> None:
        self.group_by_length = group_by_length

    def size(self, captions: Captions) -> int:
        """One row for each image."""
        return captions.num_images

    def epoch(self, captions: Captions, lengths: np.ndarray, *, batch: int, seed: int, number: int) -> Epoch:
        """See `Batching.epoch`."""
        order = shuffled_images(captions, seed, number)
        if self.group_by_length:
            longest = np.maximum.reduceat(lengths, captions.first[:-1])
            order = _grouped(order, longest, batch, seed, number, window=captions.window)
        return Epoch(order, np.full(len(order), ALL))


class EachCaption:
    """Each caption once, with its image: an epoch shows an image as often as it has captions.

    Args:
        group_by_length: as of `OneCaption`.
        unique_images: whether a batch shows no image twice. Where one does come twice, both captions are positives.
    """

    shows = "each caption once"

    def __init__(self, *, group_by_length: bool, unique_images: bool) -> None:
        self.group_by_length, self.unique_images = group_by_length, unique_images

    def size(self, captions: Captions) -> int:
        """One row for each caption."""
        return captions.num_texts

    def epoch(self, captions: Captions, lengths: np.ndarray, *, batch: int, seed: int, number: int) -> Epoch:
        """See `Batching.epoch`.

        Raises:
            ValueError: if an image has more captions than there are batches, and none may come twice in a batch.
        """
        owner = np.repeat(np.arange(captions.num_images), np.diff(captions.first))
        order = shuffled_texts(captions, seed, number)
        if self.group_by_length:
            order = _grouped(order, lengths, batch, seed, number, window=captions.window)
        if self.unique_images:
            order = _apart(order, owner, batch, seed, number, window=captions.window)
        return Epoch(owner[order], order)


def _grouped(
    order: np.ndarray, lengths: np.ndarray, batch: int, seed: int, number: int, *, window: int | None
) -> np.ndarray:
    """Sorts by length within some batches' worth of rows, then shuffles the batches; the last, smaller one stays last.

    Source: the bucketing of sequence models, e.g. Khomenko et al. 2016, arXiv 1708.05604.
    """
    near = max(1, (window or len(order)) // batch)
    span = batch * (_SORTED_TOGETHER if window is None else min(near, _SORTED_TOGETHER))
    pools = [order[start : start + span] for start in range(0, len(order), span)]
    order = np.concatenate([pool[np.argsort(lengths[pool], kind="stable")] for pool in pools])
    whole = len(order) // batch * batch
    rng = np.random.default_rng([seed, number, 1])
    stretches = [np.arange(start, min(start + near, whole // batch)) for start in range(0, whole // batch, near)]
    batches = np.concatenate([np.empty(0, np.int64), *(rng.permutation(stretch) for stretch in stretches)])
    return np.concatenate([order[:whole].reshape(-1, batch)[batches].ravel(), order[whole:]])


def _apart(
    order: np.ndarray, owner: np.ndarray, batch: int, seed: int, number: int, *, window: int | None
) -> np.ndarray:
    """Exchanges rows between batches until no batch has two of one owner; every row still comes once."""
    reach = window or len(order)
    order = order.copy()
    rng = np.random.default_rng([seed, number, 2])
    num_batches = -(-len(order) // batch)
    if (most := int(np.bincount(owner).max())) > num_batches:
        raise ValueError(
            f"batching.unique_images=true: an image with {most} captions does not fit into {num_batches} batches of "
            f"{batch}; lower data.batch_size"
        )
    members = [set(owner[order[start : start + batch]].tolist()) for start in range(0, len(order), batch)]
    for place in _repeated(owner[order], batch):
        own, image = members[place // batch], int(owner[order[place]])
        low = max(0, place - reach)
        for other in low + rng.integers(min(len(order), place + reach) - low, size=_TRIES * num_batches):
            theirs, their_image = members[other // batch], int(owner[order[other]])
            if image in theirs or their_image in own or _twice(owner, order, batch, other):
                continue
            order[place], order[other] = order[other], order[place]
            theirs.remove(their_image)
            theirs.add(image)
            own.add(their_image)
            break
        else:
            raise ValueError(
                f"batching.unique_images=true cannot be had with batches of {batch}; lower data.batch_size"
            )
    return order


def _repeated(owner: np.ndarray, batch: int) -> np.ndarray:
    """Places whose owner stands in their batch already."""
    keys = owner + (np.arange(len(owner)) // batch) * (owner.max() + 1)
    _, first = np.unique(keys, return_index=True)
    return np.setdiff1d(np.arange(len(owner)), first)


def _twice(owner: np.ndarray, order: np.ndarray, batch: int, place: int) -> bool:
    """Whether the owner at `place` stands more than once in its batch."""
    start = place // batch * batch
    return int((owner[order[start : start + batch]] == owner[order[place]]).sum()) > 1
