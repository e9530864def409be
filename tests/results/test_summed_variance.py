"""A variance of several parts: against Student's t, against printed critical values, and the level it must keep."""

import math

import numpy as np
import pytest

from mmlit.results import student
from mmlit.results.summed_variance import critical, two_sided


@pytest.mark.parametrize("freedom", [2.0, 4.0, 9.0, 999.0])
def test_one_part_is_students_t(freedom: float) -> None:
    t = np.array([0.0, 1e-3, 0.1, 1.0, 2.0, 4.5, 12.0])
    found = two_sided(3 * t, {freedom: np.full(t.shape, 9.0)})
    np.testing.assert_allclose(found, student.two_sided(t, freedom), rtol=1e-3)


def test_two_parts_by_hand() -> None:
    """Student's printed 5 % is 4.30265 for 2 degrees of freedom and 2.26216 for 9."""
    parts = {2.0: np.array(1.0), 9.0: np.array(4.0)}
    least = (4.30265**2 + 4 * 2.26216**2) ** 0.5
    assert critical(0.05, parts) == pytest.approx(least, rel=1e-5)
    assert two_sided(np.array(-least), parts) == pytest.approx(0.05, rel=1e-4)


def test_two_sided_turns_critical_around_even_far_out() -> None:
    parts = {2.0: np.array([0.0, 1.0, 100.0]), 999.0: np.array([2.0, 2.0, 2.0])}
    for probability in (0.7, 1e-3, 1e-12, 1e-40):
        np.testing.assert_allclose(two_sided(critical(probability, parts), parts), probability, rtol=1e-3)


def test_ends_and_what_is_unknown() -> None:
    parts = {2.0: np.array([1.0, 1.0, 0.0, 0.0, np.nan])}
    np.testing.assert_array_equal(two_sided(np.array([0.0, 1e-9, 0.0, 5.0, np.nan]), parts), [1, 1, 1, 0, np.nan])


@pytest.mark.parametrize("probability", [0.05, 0.05 / 15])
@pytest.mark.parametrize("freedoms", [(2, 2), (2, 9), (4, 4)])
def test_the_level_is_kept_whatever_the_parts(freedoms: tuple[int, int], probability: float) -> None:
    """Over all ratios of the rows' spreads, with the normal tail of the difference computed rather than drawn."""
    generator = np.random.default_rng(0)
    chance = [generator.chisquare(freedom, 20_000) / freedom for freedom in freedoms]
    for ratio in (0.0, 0.01, 0.1, 0.5, 1.0, 2.0, 10.0, 100.0):
        true = (1.0, ratio)
        parts: dict[float, np.ndarray] = {999.0: np.full(20_000, 0.2)}
        for freedom, size, each in zip(freedoms, true, chance, strict=True):
            parts[freedom] = parts.get(freedom, 0) + size * each
        reach = critical(probability, parts) / (2 * (0.2 + sum(true))) ** 0.5
        beyond = np.array([math.erfc(each) for each in reach])
        assert beyond.mean() <= probability + 3 * beyond.std() / 20_000**0.5
