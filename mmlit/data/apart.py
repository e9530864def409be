"""Keeps the captions of one image in different batches."""

import heapq
import itertools
from collections import Counter
from collections.abc import Iterator, Sequence

import numpy as np

#: rows that one may be exchanged with, before all are dealt out anew
_TRIES = 1000


def put_apart(order: np.ndarray, owner: np.ndarray, batch: int, seed: int, number: int) -> np.ndarray:
    """Exchanges rows with near ones of other batches until no batch has two of one owner; every row still comes once.

    Where that finds no way, which is where batches are nearly as large as there are images, rows are dealt out anew.

    Args:
        order: (R,) rows, of which `batch` in turn are a batch; where like ones are near each other they stay so.
        owner: by row, the image that it shows.
        batch: rows of a batch; the last one may have fewer.
        seed: with `number`, what decides an order that is dealt out.
        number: of the epoch.

    Raises:
        ValueError: if there is no such order.
    """
    placed = order.copy()
    members = [Counter(owner[placed[start : start + batch]].tolist()) for start in range(0, len(placed), batch)]
    for place in _repeated(owner[placed], batch).tolist():
        own, image = members[place // batch], int(owner[placed[place]])
        if own[image] == 1:  # an exchange has brought another row here, or has taken the other one away
            continue
        lacking = [image not in each for each in members]
        for other in _nearest(place, batch, lacking, len(placed)):
            theirs, their_image = members[other // batch], int(owner[placed[other]])
            if their_image not in own:
                break
        else:
            return _dealt(order, owner, batch, seed, number)
        placed[place], placed[other] = placed[other], placed[place]
        theirs[image] = own[their_image] = 1
        own[image] -= 1
        theirs[their_image] -= 1
        if not theirs[their_image]:
            del theirs[their_image]
    return placed


def _repeated(owner: np.ndarray, batch: int) -> np.ndarray:
    """Places whose owner stands in their batch already."""
    keys = owner + (np.arange(len(owner)) // batch) * (owner.max() + 1)
    _, first = np.unique(keys, return_index=True)
    return np.setdiff1d(np.arange(len(owner)), first)


def _nearest(place: int, batch: int, among: Sequence[bool], size: int) -> Iterator[int]:
    """Some places of the batches `among` which to look, the nearest first."""
    own = place // batch
    before = (range(number * batch, (number + 1) * batch)[::-1] for number in range(own)[::-1] if among[number])
    after = (range(size)[number * batch : (number + 1) * batch] for number in range(own, len(among)) if among[number])
    sides = (itertools.chain.from_iterable(side) for side in (before, after))
    return itertools.islice(heapq.merge(*sides, key=lambda other: abs(other - place)), _TRIES)


def _dealt(order: np.ndarray, owner: np.ndarray, batch: int, seed: int, number: int) -> np.ndarray:
    """Gives each owner's rows, in their order, to different batches, those that lack most: it finds a way if one is.

    Source: Havel 1955, Časopis pro pěstování matematiky 80; Hakimi 1962, doi 10.1137/0110037, of bipartite degrees.
    """
    rng = np.random.default_rng([seed, number, 2])
    lack = np.full(-(-len(order) // batch), batch)
    lack[-1] = len(order) - batch * (len(lack) - 1)
    batch_of = np.empty(len(order), np.int64)
    places = np.split(np.argsort(owner[order], kind="stable"), np.cumsum(np.bincount(owner))[:-1])
    for own in rng.permutation(len(places)).tolist():
        count = len(places[own])
        chosen = np.sort(np.argsort(-(lack + rng.random(len(lack))))[:count])
        if count > len(lack) or not lack[chosen].all():
            raise ValueError(
                f"batching.unique_images=true: {len(order):,} captions of {len(places):,} images, up to "
                f"{max(map(len, places))} of one, do not fit into batches of {batch} without an image twice in one; "
                "lower data.batch_size"
            )
        batch_of[places[own]] = chosen
        lack[chosen] -= 1
    return order[np.argsort(batch_of, kind="stable")]
