"""Tests with a variance that is a sum of parts, each estimated with degrees of freedom of its own.

A difference d is within chance while d² ≤ Σ vᵢ t²(p, fᵢ): each part vᵢ goes with the square of Student's critical value
for its own degrees of freedom fᵢ. A normal d exceeds that with probability p at most, whatever the true parts are: the
probability of staying within is concave in the bound, and it is 1 − p for each part alone. The price is that d exceeds
it less often than p where several parts count.

Source: Banerjee (1960), "Approximate confidence interval for linear functions of means of k populations when the
    population variances are not equal", Sankhyā 22.
"""

from collections.abc import Mapping
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from mmlit.results import student

Floats = NDArray[np.float64]

Parts = Mapping[float, Floats]
"""Degrees of freedom → that part of the variance, of one shape for all."""

_DEPTHS = np.geomspace(1e-5, 600, 2048)
"""−log p at which critical values are tabled; between them they are interpolated, to five digits."""


def two_sided(difference: Floats, parts: Parts) -> Floats:
    """The least p at which |`difference`| is more than chance, elementwise; 1 for none, NaN where it is NaN."""
    wanted = np.square(difference)
    # The last depth that the difference reaches, by halving: beyond `low` it is, up to `high` it is not.
    low, high = np.full(wanted.shape, -1), np.full(wanted.shape, len(_DEPTHS))
    while np.any(high - low > 1):
        middle = (low + high) // 2
        reached = _bound(parts, middle) <= wanted
        low, high = np.where(reached, middle, low), np.where(reached, high, middle)
    inside = (low >= 0) & (high < len(_DEPTHS))
    left, right = np.where(inside, low, 0), np.where(inside, high, 1)
    with np.errstate(divide="ignore", invalid="ignore"):
        start, end = np.log(_bound(parts, left)), np.log(_bound(parts, right))
        depth = _DEPTHS[left] + (np.log(wanted) - start) / (end - start) * (_DEPTHS[right] - _DEPTHS[left])
    probability = np.where(inside, np.exp(-depth), np.where(low < 0, 1.0, 0.0))
    return np.where(np.isnan(wanted), np.nan, np.where(wanted == 0, 1.0, probability))


def critical(probability: float, parts: Parts) -> Floats:
    """The difference beyond which `two_sided` is less than `probability`, in (0, 1)."""
    terms = [part * _square(probability, freedom) for freedom, part in parts.items()]
    found: Floats = np.sqrt(np.sum(terms, axis=0))
    return found


def _bound(parts: Parts, place: NDArray[np.int64]) -> Floats:
    """d² up to which chance reaches at a tabled depth."""
    terms = [part * _squares(freedom)[place] for freedom, part in parts.items()]
    found: Floats = np.sum(terms, axis=0)
    return found


@lru_cache(maxsize=1024)
def _square(probability: float, freedom: float) -> float:
    return float(student.critical(probability, freedom)) ** 2


@lru_cache(maxsize=64)
def _squares(freedom: float) -> Floats:
    return np.square(student.critical(np.exp(-_DEPTHS), freedom))
