"""Which differences between rows hold: as checkpoints on these queries, and as methods.

Two statements, kept apart:

(a) *These checkpoints on these queries.* The rows' runs as they are, a row's seeds averaged query by query, each
query paired with itself; whole images, with their texts, are drawn anew. The standard error is what a bootstrap over
images converges to, the p-value Student's t with as many degrees of freedom as images less one. It is never smaller
than the smallest that a sign-flip permutation over images can give, 2^(1 − k) if k images differ.

(b) *The methods.* Another training seed may come out otherwise. To the variance of (a) comes each row's variance
between seeds, less the part of it that is the seeds' meeting with these images (which (a) holds already), over its
number of seeds. Seeds count as independent draws: the same seed number shares little between two methods.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from mmlit.results.differences import LEAST_SEEDS, Pairwise
from mmlit.results.paired import Outcome
from mmlit.results.student import two_sided

Floats = NDArray[np.float64]

_NOTHING = 1e-9
"""Points that an image's gain may be away from 0 by rounding."""


def pairwise(outcomes: Sequence[Outcome], queries: Sequence[int]) -> Pairwise:
    """Test every pair of rows on one metric.

    (b) takes Student's t with Satterthwaite's degrees of freedom over two components, images and seeds. The seeds'
    component is credited with those of the row of fewer seeds, as if all of it were that row's: which row spreads
    more cannot be learnt from three seeds each.

    Source: Satterthwaite (1946), "An approximate distribution of estimates of variance components"; Holm (1979).
    Differs: Welch weighs the rows' degrees of freedom by their estimated variances. In simulation that rejects too
        often where few seeds spread unequally (tests/results/test_significance.py).

    Args:
        outcomes: one per row, on the same metric.
        queries: one number per row; rows of equal number ranked the same queries, only these are compared.
    """
    size = len(outcomes)
    image_variance, floor = np.full((size, size), np.nan), np.full((size, size), np.nan)
    freedom_images = np.full((size, size), np.nan)
    for kind in sorted(set(queries)):
        rows = [i for i, own in enumerate(queries) if own == kind]
        block = np.ix_(rows, rows)
        image_variance[block], floor[block] = _over_images([outcomes[i] for i in rows])
        freedom_images[block] = outcomes[rows[0]].shares.size - 1
    np.fill_diagonal(image_variance, np.nan)
    mean = np.array([each.values.mean() for each in outcomes])
    value = np.where(np.isnan(image_variance), np.nan, mean[:, None] - mean)
    value[np.abs(value) < _NOTHING] = 0
    checkpoints = corrected(np.maximum(two_sided(_ratio(value, image_variance), freedom_images), floor))
    variance, freedom = _with_seeds(outcomes, image_variance, freedom_images)
    # What does not even hold for the checkpoints cannot for the methods, though fewer pairs may be corrected for.
    methods = np.maximum(corrected(two_sided(_ratio(value, variance), freedom)), checkpoints)
    return Pairwise(value, np.sqrt(image_variance), checkpoints, np.sqrt(variance), freedom, methods)


def corrected(probabilities: Floats) -> Floats:
    """Correct a symmetric table (R,R) of p-values for all pairs of rows; NaN is no pair and stays.

    Source: Holm (1979), "A simple sequentially rejective multiple test procedure".
    """
    result = np.full_like(probabilities, np.nan)
    rows, columns = np.nonzero(~np.isnan(np.where(np.tri(len(probabilities), dtype=bool), np.nan, probabilities)))
    single = probabilities[rows, columns]
    order = np.argsort(single, kind="stable")
    steps = np.arange(single.size, 0, -1) * single[order]
    joint = np.empty_like(single)
    joint[order] = np.minimum(np.maximum.accumulate(steps), 1) if single.size else steps
    result[rows, columns] = result[columns, rows] = joint
    return result


def _over_images(outcomes: Sequence[Outcome]) -> tuple[Floats, Floats]:
    """For each pair the variance over images of the difference, and the least p of a sign-flip permutation."""
    influence, shares = (np.stack(parts) for parts in zip(*((o.influence, o.shares) for o in outcomes), strict=True))
    size, num_images = shares.shape
    variance, floor = np.zeros((size, size)), np.ones((size, size))
    for i in range(size - 1):
        difference = influence[i + 1 :] - influence[i]
        variance[i, i + 1 :] = np.square(difference).sum(axis=1) * num_images / (num_images - 1)
        differing = (np.abs(shares[i + 1 :] - shares[i]) * num_images > _NOTHING).sum(axis=1)
        floor[i, i + 1 :] = np.minimum(np.exp2(1.0 - differing), 1)
    return variance + variance.T, np.triu(floor) + np.triu(floor, 1).T


def _with_seeds(outcomes: Sequence[Outcome], image_variance: Floats, freedom_images: Floats) -> tuple[Floats, Floats]:
    """For each pair the variance over images and seeds with its degrees of freedom; NaN where seeds are too few."""
    raw, net, freedom = (np.array(part) for part in zip(*map(_seeds, outcomes), strict=True))
    variance = image_variance + net[:, None] + net
    uncertain = np.square(raw[:, None] + raw) / np.minimum(freedom[:, None], freedom)
    uncertain += np.square(image_variance) / freedom_images
    # Two equal rows without any spread: t is 0 / 0, and any number of degrees of freedom says so.
    return variance, np.where(uncertain == 0, 1.0, np.square(variance) / np.where(uncertain == 0, 1.0, uncertain))


def _seeds(outcome: Outcome) -> tuple[float, float, float]:
    """The variance of a row's mean over seeds, the part of it that is not the images', its degrees of freedom."""
    if not outcome.has_seeds:
        return 0.0, 0.0, np.inf
    number = len(outcome.values)
    if number < LEAST_SEEDS:
        return np.nan, np.nan, np.nan
    variance = float(outcome.values.var(ddof=1))
    return variance / number, max(variance - outcome.residual, 0.0) / number, number - 1.0


def _ratio(value: Floats, variance: Floats) -> Floats:
    """t; 0 for no difference, infinite where a difference has no variance."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(value == 0, 0.0 * variance, np.abs(value) / np.sqrt(variance))
