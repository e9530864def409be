"""Which differences between rows hold: as checkpoints on these queries, and as methods.

Two statements, kept apart:

(a) *These checkpoints on these queries.* The rows' runs as they are, a row's seeds averaged query by query, each
query paired with itself; whole images, with their texts, are drawn anew. The standard error is what a bootstrap over
images converges to, the p-value Student's t with as many degrees of freedom as images less one. It is never smaller
than the smallest that a sign-flip permutation over images can give, 2^(1 − k) if k images differ.

(b) *The methods.* Another training seed may come out otherwise. Each row's variance between seeds is added, over its
number of seeds; the part of it that is the seeds' meeting with these images is in the variance of (a) already and is
taken out there, where it is known well. Three seeds know their spread badly: a lucky draw of seeds that agree must not
let a difference pass. So each part of the variance goes with the critical value for its own degrees of freedom. That
keeps the level whatever the true spreads are, and asks for much where seeds are few and rows are many. Seeds count as
independent draws: the same seed number shares little between two methods.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from mmlit.results import summed_variance
from mmlit.results.differences import LEAST_SEEDS, LEVEL, Pairwise
from mmlit.results.paired import Outcome
from mmlit.results.student import two_sided

Floats = NDArray[np.float64]

_NOTHING = 1e-9
"""Points that an image's gain may be away from 0 by rounding."""


class Uncorrected(NamedTuple):
    """Each pair of rows by itself, (R,R): the difference, its variances and two-sided p-values.

    NaN where there is no such statement. `images` and `parts` split the variances of (a) and (b) by their degrees of
    freedom.
    """

    value: Floats
    image_variance: Floats
    checkpoints: Floats
    total_variance: Floats
    methods: Floats
    images: dict[float, Floats]
    parts: dict[float, Floats]


def pairwise(outcomes: Sequence[Outcome], queries: Sequence[int]) -> Pairwise:
    """Test every pair of rows on one metric, corrected for all pairs.

    Args:
        outcomes: one per row, on the same metric.
        queries: one number per row; rows of equal number ranked the same queries, only these are compared.
    """
    found = uncorrected(outcomes, queries)
    checkpoints = corrected(found.checkpoints)
    # What does not even hold for the checkpoints cannot for the methods, though fewer pairs may be corrected for.
    methods = np.maximum(corrected(found.methods), checkpoints)
    level = LEVEL / max(int((np.triu(methods, 1) > LEVEL).sum()), 1)
    needed = np.maximum(*(summed_variance.critical(level, parts) for parts in (found.images, found.parts)))
    return Pairwise(
        value=found.value,
        image_error=np.sqrt(found.image_variance),
        checkpoints=checkpoints,
        total_error=np.sqrt(found.total_variance),
        methods=methods,
        needed=np.where(np.isnan(methods), np.nan, needed),
    )


def uncorrected(outcomes: Sequence[Outcome], queries: Sequence[int]) -> Uncorrected:
    """Test every pair of rows as if it were the only one; arguments as for `pairwise`.

    Source: for (b) Banerjee (1960), see `summed_variance.py`.
    Differs: Satterthwaite's degrees of freedom would ask for less. They are estimated from the same few seeds, and with
        three of unequal spread that test rejects several times too often at the small p that Holm's correction asks for
        (tests/results/test_significance_simulated.py).
    """
    size = len(outcomes)
    image_variance, floor, freedom = (np.full((size, size), np.nan) for _ in range(3))
    for kind in sorted(set(queries)):
        rows = [i for i, own in enumerate(queries) if own == kind]
        block = np.ix_(rows, rows)
        image_variance[block], floor[block] = _over_images([outcomes[i] for i in rows])
        freedom[block] = outcomes[rows[0]].shares.size - 1
    np.fill_diagonal(image_variance, np.nan)
    mean = np.array([each.values.mean() for each in outcomes])
    value = np.where(np.isnan(image_variance), np.nan, mean[:, None] - mean)
    value[np.abs(value) < _NOTHING] = 0
    checkpoints = np.maximum(two_sided(_ratio(value, image_variance), freedom), floor)
    variance, parts = _with_seeds(outcomes, image_variance, freedom)
    methods = summed_variance.two_sided(np.where(np.isnan(variance), np.nan, value), parts)
    images = _by_freedom(image_variance, freedom)
    return Uncorrected(value, image_variance, checkpoints, variance, np.maximum(methods, checkpoints), images, parts)


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


def _with_seeds(
    outcomes: Sequence[Outcome], image_variance: Floats, freedom_images: Floats
) -> tuple[Floats, dict[float, Floats]]:
    """For each pair the variance over images and seeds, NaN where seeds are too few, and its parts by freedom.

    Only where seeds agree better than their meeting with the images explains do the parts sum up to less.
    """
    between, meeting, freedom = (np.array(part) for part in zip(*map(_seeds, outcomes), strict=True))
    added = (between[:, None] + between) - (meeting[:, None] + meeting)
    own = np.maximum(image_variance - (meeting[:, None] + meeting), 0)
    parts = _by_freedom(own, freedom_images)
    for known, share in _by_freedom(between, freedom).items():
        parts[known] = parts.get(known, 0) + (share[:, None] + share)
    return image_variance + np.maximum(added, 0), parts


def _by_freedom(variance: Floats, freedom: Floats) -> dict[float, Floats]:
    """Split variances by their degrees of freedom, 0 where they have others."""
    return {float(known): np.where(freedom == known, variance, 0) for known in np.unique(freedom[freedom > 0])}


def _seeds(outcome: Outcome) -> tuple[float, float, float]:
    """The variance of a row's mean between seeds, the part of it that is in the images', its degrees of freedom."""
    number = len(outcome.values)
    if not outcome.has_seeds:
        return 0.0, 0.0, 0.0
    if number < LEAST_SEEDS:
        return np.nan, np.nan, 0.0
    return float(outcome.values.var(ddof=1)) / number, outcome.residual / number, number - 1.0


def _ratio(value: Floats, variance: Floats) -> Floats:
    """t; 0 for no difference, infinite where a difference has no variance."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(value == 0, 0.0 * variance, np.abs(value) / np.sqrt(variance))
