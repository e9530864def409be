"""What each image adds to a row's result, seed by seed: all that the tests between rows need."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from mmlit.results.ranks import Ranks

CUTOFFS = (1, 5, 10)

Floats = NDArray[np.float64]


class Queries(NamedTuple):
    """What was asked: ids ascending, and the position of each text's image. Shapes: (N,), (M,), (M,)."""

    image_id: NDArray[np.int64]
    text_id: NDArray[np.int64]
    text_image: NDArray[np.int64]


class Hits(NamedTuple):
    """A row's hits by seed, image and cutoff (in the order of `CUTOFFS`).

    `image` (S,N,3) is 0 or 1, `text` (S,N,3) counts the texts of that image.
    """

    queries: Queries
    image: Floats
    text: Floats


class Outcome(NamedTuple):
    """One row on one metric, in points.

    Attributes:
        values: (S,) each seed's value.
        shares: (N,) what each image, with its texts, adds to the mean over seeds; they sum up to it.
        influence: (N,) how far the mean over seeds moves with each image's weight, linearized; sums up to 0.
        residual: the variance of one seed's value that comes from the seed meeting these images and no others;
            0 for one seed.
        untrained: whether nothing was trained, so that one run is all there is and no seed could change it.
    """

    values: Floats
    shares: Floats
    influence: Floats
    residual: float
    untrained: bool = False

    @property
    def has_seeds(self) -> bool:
        """Whether another seed may come out otherwise."""
        return not (self.untrained and len(self.values) == 1)


def hits_of(ranks: Sequence[Ranks]) -> Hits:
    """Gather the hits of one row's seeds, in one order of images.

    Raises:
        ValueError: no ranks are given, or the seeds did not rank the same images and texts.
    """
    if not ranks:
        raise ValueError("hits need the ranks of at least one run")
    seeds = [_hits(each) for each in ranks]
    for other in seeds[1:]:
        check_same_queries(seeds[0].queries, other.queries)
    image, text = (np.concatenate(parts) for parts in zip(*((each.image, each.text) for each in seeds), strict=True))
    return Hits(seeds[0].queries, image, text)


def check_same_queries(one: Queries, other: Queries) -> None:
    """Raise ValueError unless both have the same image ids, text ids and correspondence."""
    for name, mine, theirs in zip(Queries._fields, one, other, strict=True):
        if not np.array_equal(mine, theirs):
            raise ValueError(f"{name} differs: these ranks are not of the same queries")


def outcome_of(hits: Hits, metric: str, *, untrained: bool = False) -> Outcome:
    """Add a metric's hits up within each image.

    The mean over texts is a ratio, for images may have different numbers of texts; it enters the influence
    linearized. The residual is the interaction's mean square in a two-way layout of seeds and images.

    Source: Cochran, Sampling Techniques (1977), chapters 6 (ratios) and 9A (clusters of unequal sizes).

    Args:
        hits: of one row.
        metric: `rsum`, `i2t_r1`, `t2i_r10` and so on.
        untrained: see `Outcome`.

    Raises:
        ValueError: there are fewer than two images, or the metric is unknown.
    """
    num_seeds, num_images = hits.image.shape[:2]
    if num_images < 2:
        raise ValueError(f"a standard error needs at least 2 images, got {num_images}")
    for_image, for_text = _columns(metric)
    sizes = np.bincount(hits.queries.text_image, minlength=num_images)
    image = 100 * hits.image[..., for_image].sum(axis=-1)
    text = 100 * hits.text[..., for_text].sum(axis=-1)
    shares = image / num_images + text / sizes.sum()
    image_mean, text_mean = image.mean(axis=1, keepdims=True), text.sum(axis=1, keepdims=True) / sizes.sum()
    influence = (image - image_mean) / num_images + (text - sizes * text_mean) / sizes.sum()
    mean = influence.mean(axis=0)
    spread = np.square(influence - mean).sum() * num_images / (num_images - 1)
    return Outcome(
        values=shares.sum(axis=1),
        shares=shares.mean(axis=0),
        influence=mean,
        residual=float(spread / (num_seeds - 1)) if num_seeds > 1 else 0.0,
        untrained=untrained,
    )


def _hits(ranks: Ranks) -> Hits:
    images, texts = np.argsort(ranks.image_id), np.argsort(ranks.text_id)
    image_id = ranks.image_id[images]
    text_image = np.searchsorted(image_id, ranks.text_image_id[texts])
    cutoffs = np.array(CUTOFFS)
    found = (ranks.t2i_rank[texts, None] <= cutoffs).astype(np.float64)
    text: Floats = np.stack(
        [np.bincount(text_image, weights=each, minlength=image_id.size) for each in found.T], axis=-1
    )
    image = (ranks.i2t_rank[images, None] <= cutoffs).astype(np.float64)
    return Hits(Queries(image_id, ranks.text_id[texts], text_image), image[None], text[None])


def _columns(metric: str) -> tuple[list[int], list[int]]:
    """The cutoffs' positions that a metric adds up, for images and for texts."""
    every = list(range(len(CUTOFFS)))
    known = {"rsum": (every, every)}
    known |= {f"i2t_r{k}": ([column], []) for column, k in enumerate(CUTOFFS)}
    known |= {f"t2i_r{k}": ([], [column]) for column, k in enumerate(CUTOFFS)}
    if metric not in known:
        raise ValueError(f"metric must be one of {', '.join(known)}, got {metric!r}")
    return known[metric]
