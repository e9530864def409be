"""Student's t against closed forms, published tables and numerical integration."""

import math

import numpy as np
import pytest

from mmlit.results.student import critical, two_sided


def integrated(statistic: float, freedom: float) -> float:
    """The density's tails by Simpson's rule over t = sqrt(ν) tan(θ)."""
    angle = np.linspace(math.atan(statistic / math.sqrt(freedom)), math.pi / 2, 20_001)
    height = np.cos(angle).clip(0) ** (freedom - 1)
    weight = np.array([1.0, *[4.0, 2.0] * 9_999, 4.0, 1.0])
    area = (weight * height).sum() * (angle[1] - angle[0]) / 3
    half = math.exp(math.lgamma(freedom / 2) + math.lgamma(0.5) - math.lgamma((freedom + 1) / 2)) / 2
    return float(area / half)


def test_closed_forms_of_one_and_two_degrees_of_freedom() -> None:
    t = np.array([1e-3, 0.5, 1, 3, 30, 1e5])
    np.testing.assert_allclose(two_sided(t, 1), 2 / math.pi * np.arctan(1 / t), rtol=1e-10)
    tail = 2 / (np.sqrt(2 + t**2) * (np.sqrt(2 + t**2) + t))
    np.testing.assert_allclose(two_sided(t, 2), tail, rtol=1e-10)


@pytest.mark.parametrize("freedom", [1.5, 2.7, 4, 9.3, 40, 999, 24_999])
@pytest.mark.parametrize("statistic", [0.1, 1, 2.2, 4.5])
def test_equals_the_integral_of_the_density(freedom: float, statistic: float) -> None:
    assert two_sided(statistic, freedom) == pytest.approx(integrated(statistic, freedom), rel=1e-6)


def test_critical_values_of_the_printed_tables() -> None:
    found = critical([0.05, 0.05, 0.05, 0.01, 0.05], [1, 2, 4, 10, 1e6])
    np.testing.assert_allclose(found, [12.7062, 4.3027, 2.7764, 3.1693, 1.95996], atol=5e-5)


def test_critical_turns_two_sided_around_even_far_out() -> None:
    probability, freedom = np.array([0.5, 1e-3, 1e-9]), np.array([[1.0], [2.5], [300]])
    np.testing.assert_allclose(two_sided(critical(probability, freedom), freedom), np.tile(probability, (3, 1)), 1e-8)


def test_ends_and_what_is_unknown() -> None:
    np.testing.assert_array_equal(
        two_sided([0, np.inf, -np.inf, np.nan, 1], [3, 3, 3, 3, np.nan]), [1, 0, 0, np.nan, np.nan]
    )
    assert two_sided(-2.0, 7) == two_sided(2.0, 7)
    assert np.isnan(critical(0.05, np.nan))
