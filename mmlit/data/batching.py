"""What a training batch is made of: which captions, in which order. Functions of (seed, epoch, ids) alone."""

from typing import NamedTuple, Protocol

import numpy as np
import torch

from mmlit.contracts import uniform
from mmlit.data.apart import put_apart
from mmlit.data.captions import Captions
from mmlit.data.windows import shuffled_images, shuffled_texts

#: text number of a row that has all captions of its image
ALL = -1
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
            ValueError: if no image may come twice in a batch, and there is no such order.
        """
        owner = np.repeat(np.arange(captions.num_images), np.diff(captions.first))
        order = shuffled_texts(captions, seed, number)
        if self.group_by_length:
            order = _sorted(order, lengths, batch, captions.window)
        if self.unique_images:
            order = put_apart(order, owner, batch, seed, number)
        if self.group_by_length:
            order = _batches_shuffled(order, batch, seed, number, captions.window)
        return Epoch(owner[order], order)


def _grouped(
    order: np.ndarray, lengths: np.ndarray, batch: int, seed: int, number: int, *, window: int | None
) -> np.ndarray:
    """Batches of like length in random order; the last, smaller one, of any lengths, stays last.

    Source: the bucketing of sequence models, e.g. Khomenko et al. 2016, arXiv 1708.05604.
    """
    return _batches_shuffled(_sorted(order, lengths, batch, window), batch, seed, number, window)


def _sorted(order: np.ndarray, lengths: np.ndarray, batch: int, window: int | None) -> np.ndarray:
    """Sorts by length within some batches' worth of rows, up and down in turn: neighbours are alike everywhere.

    What fills no batch is taken from the end before, or it would always be the longest.
    """
    whole = len(order) // batch * batch
    span = batch * min(_near(order, batch, window), _SORTED_TOGETHER)
    pools = [order[start : min(start + span, whole)] for start in range(0, whole, span)]
    pools = [pool[np.argsort(lengths[pool], kind="stable")] for pool in pools]
    up = [pool if (len(pools) - place) % 2 else pool[::-1] for place, pool in enumerate(pools)]
    return np.concatenate([*up, order[whole:]])


def _batches_shuffled(order: np.ndarray, batch: int, seed: int, number: int, window: int | None) -> np.ndarray:
    """Whole batches in random order, those of a window among themselves."""
    count, near = len(order) // batch, _near(order, batch, window)
    rng = np.random.default_rng([seed, number, 1])
    stretches = [np.arange(start, min(start + near, count)) for start in range(0, count, near)]
    batches = np.concatenate([np.empty(0, np.int64), *(rng.permutation(stretch) for stretch in stretches)])
    return np.concatenate([order[: count * batch].reshape(-1, batch)[batches].ravel(), order[count * batch :]])


def _near(order: np.ndarray, batch: int, window: int | None) -> int:
    """Batches of a window."""
    return max(1, (window or len(order)) // batch)
