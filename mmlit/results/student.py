"""Student's t distribution for whole arrays and for fractional degrees of freedom."""

import math

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]

_TINY = 1e-300
_STEPS = 1000


def two_sided(statistic: ArrayLike, freedom: ArrayLike) -> Floats:
    """The probability that |T| is at least |`statistic`|, elementwise; NaN where either is NaN.

    Source: the regularized incomplete beta function I_x(ν/2, 1/2), x = ν / (ν + t²) (DLMF 8.17.22).

    Args:
        statistic: t; infinite gives 0.
        freedom: ν > 0, finite, not necessarily whole; of a shape that broadcasts with `statistic`.
    """
    t, freedom = np.broadcast_arrays(np.asarray(statistic, np.float64), np.asarray(freedom, np.float64))
    probability = np.where(np.isnan(t) | np.isnan(freedom), np.nan, np.where(t == 0, 1.0, 0.0))
    rest = np.isfinite(t) & (t != 0) & np.isfinite(freedom)
    probability[rest] = _beta_share(freedom[rest] / 2, np.square(t[rest]) / freedom[rest])
    return probability


def critical(probability: ArrayLike, freedom: ArrayLike) -> Floats:
    """The |t| whose `two_sided` is `probability`, elementwise, to ten digits; NaN where `freedom` is NaN.

    Args:
        probability: in (0, 1).
        freedom: ν > 0, of a shape that broadcasts with `probability`.
    """
    wanted, freedom = np.broadcast_arrays(np.asarray(probability, np.float64), np.asarray(freedom, np.float64))
    # logarithms of t: heavy tails reach far
    low, high = np.full(wanted.shape, math.log(1e-6)), np.full(wanted.shape, math.log(1e150))
    for _ in range(60):
        middle = (low + high) / 2
        beyond = two_sided(np.exp(middle), freedom) < wanted
        low, high = np.where(beyond, low, middle), np.where(beyond, middle, high)
    return np.where(np.isnan(freedom), np.nan, np.exp((low + high) / 2))


def _beta_share(a: Floats, ratio: Floats) -> Floats:
    """I_x(a, 1/2) at x = 1 / (1 + ratio): by its continued fraction, on the side where that converges fast."""
    b, x, rest = np.full(a.shape, 0.5), 1 / (1 + ratio), ratio / (1 + ratio)
    different, place = np.unique(a, return_inverse=True)  # of a large table's pairs most have the same freedom
    log_beta = np.array([math.lgamma(each) + math.lgamma(0.5) - math.lgamma(each + 0.5) for each in different])[place]
    front = np.exp(-a * np.log1p(ratio) + b * np.log(rest) - log_beta)
    turn = x > (a + 1) / (a + b + 2)
    first, second = np.where(turn, b, a), np.where(turn, a, b)
    share = front * _fraction(first, second, np.where(turn, rest, x)) / first
    return np.where(turn, 1 - share, share)


def _fraction(a: Floats, b: Floats, x: Floats) -> Floats:
    """The continued fraction of the incomplete beta function, evaluated from the front (modified Lentz)."""
    numerator, denominator = np.ones_like(x), _away_from_zero(1 - (a + b) * x / (a + 1)) ** -1
    value = denominator.copy()
    for m in range(1, _STEPS):
        change = np.ones_like(x)
        for term in (
            m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m)),
            -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1)),
        ):
            denominator = _away_from_zero(1 + term * denominator) ** -1
            numerator = _away_from_zero(1 + term / numerator)
            change = numerator * denominator
            value = value * change
        if np.all(np.abs(change - 1) < 1e-13):
            break
    return value


def _away_from_zero(value: Floats) -> Floats:
    return np.where(np.abs(value) < _TINY, _TINY, value)
