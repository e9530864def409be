"""Differences between two rows on the same queries, with a standard error that respects images."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from mmlit.results.ranks import Ranks

CUTOFFS = (1, 5, 10)

Floats = NDArray[np.float64]


class Hits(NamedTuple):
    """A row's hits per query and cutoff (in the order of `CUTOFFS`), averaged over its seeds, in 0…1.

    Images are in the order of `image_id`, texts of `text_id`, both ascending; `text_image` is the position of
    each text's image. Shapes: image (N, 3), text (M, 3), image_id (N,), text_id (M,), text_image (M,).
    """

    image: Floats
    text: Floats
    image_id: NDArray[np.int64]
    text_id: NDArray[np.int64]
    text_image: NDArray[np.int64]


class Estimate(NamedTuple):
    """A difference in points and its standard error."""

    value: float
    error: float


def mean_hits(ranks: Sequence[Ranks]) -> Hits:
    """Average the hits of one row's seeds, query by query.

    Raises:
        ValueError: no ranks are given, or the seeds did not rank the same images and texts.
    """
    if not ranks:
        raise ValueError("mean_hits needs the ranks of at least one run")
    seeds = [_hits(each) for each in ranks]
    first = seeds[0]
    for other in seeds[1:]:
        check_same_queries(first, other)
    return first._replace(
        image=np.mean([seed.image for seed in seeds], axis=0),
        text=np.mean([seed.text for seed in seeds], axis=0),
    )


def check_same_queries(one: Hits, other: Hits) -> None:
    """Raise ValueError unless both have the same image ids, text ids and correspondence."""
    for name in ("image_id", "text_id", "text_image"):
        if not np.array_equal(getattr(one, name), getattr(other, name)):
            raise ValueError(f"{name} differs: these ranks are not of the same queries")


def paired_difference(row: Hits, baseline: Hits, metric: str) -> Estimate:
    """Estimate a metric's difference, row minus baseline, pairing each query with itself.

    The error is that of drawing whole images, each with its texts, in closed form (what a bootstrap over
    images converges to): a text's difference is not independent of its image's other texts'. The mean over
    texts is a ratio, for images may have different numbers of texts; it enters linearized. For rsum both
    directions and all cutoffs add up within an image before the variance is taken.

    Source: Cochran, Sampling Techniques (1977), chapters 6 (ratios) and 9A (clusters of unequal sizes).

    Args:
        row: hits of one row.
        baseline: hits of the other, on the same queries.
        metric: `rsum`, `i2t_r1`, `t2i_r10` and so on.

    Raises:
        ValueError: the queries differ, there are fewer than two images, or the metric is unknown.
    """
    check_same_queries(row, baseline)
    num_images, num_texts = len(row.image_id), len(row.text_id)
    if num_images < 2:
        raise ValueError(f"a standard error needs at least 2 images, got {num_images}")
    for_image, for_text = _columns(metric)
    image = 100 * (row.image - baseline.image)[:, for_image].sum(axis=1)
    text = 100 * (row.text - baseline.text)[:, for_text].sum(axis=1)
    text_mean = text.mean()
    text_surplus = np.bincount(row.text_image, weights=text - text_mean, minlength=num_images)
    influence = (image - image.mean()) / num_images + text_surplus / num_texts
    variance = num_images / (num_images - 1) * np.square(influence).sum()
    return Estimate(float(image.mean() + text_mean), float(np.sqrt(variance)))


def _hits(ranks: Ranks) -> Hits:
    images, texts = np.argsort(ranks.image_id), np.argsort(ranks.text_id)
    image_id = ranks.image_id[images]
    cutoffs = np.array(CUTOFFS)
    return Hits(
        image=(ranks.i2t_rank[images, None] <= cutoffs).astype(np.float64),
        text=(ranks.t2i_rank[texts, None] <= cutoffs).astype(np.float64),
        image_id=image_id,
        text_id=ranks.text_id[texts],
        text_image=np.searchsorted(image_id, ranks.text_image_id[texts]),
    )


def _columns(metric: str) -> tuple[list[int], list[int]]:
    """The cutoffs' positions that a metric adds up, for images and for texts."""
    every = list(range(len(CUTOFFS)))
    known = {"rsum": (every, every)}
    known |= {f"i2t_r{k}": ([column], []) for column, k in enumerate(CUTOFFS)}
    known |= {f"t2i_r{k}": ([], [column]) for column, k in enumerate(CUTOFFS)}
    if metric not in known:
        raise ValueError(f"metric must be one of {', '.join(known)}, got {metric!r}")
    return known[metric]
