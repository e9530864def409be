"""The tests between rows: Holm by hand, against permutation and resampling, and what they say of few seeds."""

import itertools

import numpy as np
import pytest
from results.made_rows import drawn_rows, random_ranks

from mmlit.results.differences import LEVEL, Difference
from mmlit.results.paired import Outcome, hits_of, outcome_of
from mmlit.results.significance import corrected, pairwise


def outcome(gains: object, values: object = (0.0, 0.0, 0.0), residual: float = 0.0, untrained: bool = False) -> Outcome:
    """A row whose image i adds `gains[i]` points over the number of images; seeds move all images together."""
    each = np.asarray(gains, dtype=np.float64)
    shares = each / each.size
    return Outcome(
        shares.sum() + np.asarray(values, dtype=np.float64), shares, shares - shares.mean(), residual, untrained
    )


def test_holm_by_hand() -> None:
    """Four rows, six pairs: 0.001, 0.01, 0.02, 0.03, 0.04, 0.5."""
    table = np.full((4, 4), np.nan)
    above = np.triu_indices(4, 1)
    table[above] = [0.01, 0.04, 0.02, 0.5, 0.001, 0.03]
    table.T[above] = table[above]
    found = corrected(table)
    # 6 · 0.001, 5 · 0.01, 4 · 0.02, 3 · 0.03, then 2 · 0.04 < 0.09 and 1 · 0.5
    np.testing.assert_allclose(found[above], [0.05, 0.09, 0.08, 0.5, 0.006, 0.09])
    np.testing.assert_array_equal(found, found.T)
    assert np.isnan(np.diag(found)).all()


def test_holm_counts_only_the_pairs_there_are_and_ends_at_one() -> None:
    table = np.full((3, 3), np.nan)
    table[0, 1] = table[1, 0] = 0.03
    assert corrected(table)[0, 1] == 0.03
    table[0, 2] = table[2, 0] = 0.9
    np.testing.assert_allclose(corrected(table)[0, 1:], [0.06, 0.9])
    table[:] = 0.7
    assert corrected(table)[0, 1] == 1
    assert np.isnan(corrected(np.full((1, 1), np.nan))).all()


@pytest.mark.parametrize("metric", ["rsum", "t2i_r1", "i2t_r5"])
@pytest.mark.parametrize("other", [4, 5, 6])
def test_checkpoints_agree_with_flipping_the_signs_of_whole_images(metric: str, other: int) -> None:
    """Trap 10: under equal checkpoints an image with its texts might as well have come the other way round."""
    row, base = (outcome_of(hits_of([random_ranks(seed, 150)]), metric) for seed in (1, other))
    gains = row.shares - base.shares
    signs = np.random.default_rng(0).choice([-1.0, 1.0], size=(20_000, gains.size))
    flipped, own = np.abs(signs @ gains), abs(gains.sum())
    # Hits are few and whole: what comes out exactly as far counts half.
    permuted = np.mean(flipped > own + 1e-9) + np.mean(np.abs(flipped - own) <= 1e-9) / 2
    assert pairwise([row, base], [0, 0]).checkpoints[0, 1] == pytest.approx(permuted, abs=0.02)


@pytest.mark.parametrize("differing", [1, 2, 5, 8])
def test_checkpoints_that_differ_on_few_images_are_never_surer_than_a_permutation(differing: int) -> None:
    gains = np.zeros(200)
    gains[:differing] = 100
    signs = np.array(list(itertools.product([-1, 1], repeat=differing)))
    permuted = np.mean(np.abs(signs.sum(axis=1)) >= differing)
    assert pairwise([outcome(gains), outcome(np.zeros(200))], [0, 0]).checkpoints[0, 1] >= permuted
    everywhere = pairwise([outcome(np.ones(4)), outcome(np.zeros(4))], [0, 0])
    assert everywhere.checkpoints[0, 1] == 2**-3


def test_both_errors_by_hand() -> None:
    """Four images gain 0, 100, 100, 0; seeds spread by 6 and by 0 points, of which 4 squared are the images'."""
    row, base = outcome([0, 100, 100, 0], [-6, 0, 6], residual=4), outcome([0, 0, 0, 0])
    found = pairwise([row, base], [0, 0])
    assert found.value[0, 1] == 50
    assert found.value[1, 0] == -50
    assert found.image_error[0, 1] == pytest.approx(28.8675, abs=1e-4)
    # 833.33 over images, and (36 - 4) / 3 over seeds
    assert found.total_error[0, 1] == pytest.approx((2500 / 3 + 32 / 3) ** 0.5)
    # Student's printed 5 % of 3 degrees of freedom for the four images, less 4 / 3, and of 2 for the three seeds
    assert found.needed[0, 1] == pytest.approx(((2500 / 3 - 4 / 3) * 3.18245**2 + 12 * 4.30265**2) ** 0.5, rel=1e-5)


def test_seeds_that_agree_more_than_images_explain_add_nothing() -> None:
    found = pairwise([outcome([0, 1, 2, 5], residual=9), outcome([3, 1, 0, 0])], [0, 0])
    assert found.total_error[0, 1] == found.image_error[0, 1]


def test_too_few_seeds_leave_the_methods_unjudged() -> None:
    gains = np.random.default_rng(0).normal(50, 1, 100)
    for few in ([0.0], [0.0, 1.0]):
        found = pairwise([outcome(gains, few), outcome(np.zeros(100))], [0, 0])
        assert found.checkpoints[0, 1] < 1e-9
        (_, difference) = found.against(0)
        assert difference is not None
        assert (difference.total_error, difference.methods, difference.least) == (None, None, None)
        assert (difference.checkpoints_hold, difference.methods_hold) == (True, None)
        assert found.families() == (1, 0, 1, 0)


def test_one_run_of_what_was_not_trained_is_all_there_is() -> None:
    gains = np.random.default_rng(0).normal(50, 10, 100)
    given = outcome(gains, [0.0], untrained=True)
    found = pairwise([given, outcome(np.zeros(100), [-2, 0, 2])], [0, 0])
    assert found.total_error[0, 1] ** 2 == pytest.approx(found.image_error[0, 1] ** 2 + 4 / 3)
    two = pairwise([given, outcome(np.zeros(100), [0.0], untrained=True)], [0, 0])
    assert two.methods[0, 1] == two.checkpoints[0, 1]
    assert two.total_error[0, 1] == two.image_error[0, 1]


def test_the_least_difference_is_where_a_pair_begins_to_hold() -> None:
    rows = [
        outcome_of(each, "rsum") for each in drawn_rows(np.random.default_rng(0), [3] * 5, [0.1] * 5, [2, 0, 0, 0, 0])
    ]
    (_, difference) = pairwise(rows[1:3], [0, 0]).against(0)
    assert difference is not None
    assert difference.least is not None
    for factor, holds in ((0.99, False), (1.01, True)):
        (_, found) = pairwise([rows[1], moved_to(rows[2], difference, factor)], [0, 0]).against(0)
        assert found is not None
        assert found.methods_hold is holds
    # In a table, Holm's correction asks more of the pairs that are left: ten, less the four that hold.
    whole = pairwise(rows, [0] * 5)
    assert whole.families() == (10, 10, 4, 4)
    in_table = whole.against(1)[2]
    assert in_table is not None
    assert in_table.least is not None
    alone = pairwise([rows[1], moved_to(rows[2], in_table)], [0, 0])
    assert 6 * alone.methods[0, 1] == pytest.approx(LEVEL, rel=1e-3)


def moved_to(row: Outcome, difference: Difference, factor: float = 1.0) -> Outcome:
    """The row moved until its difference is what (b) would need, or `factor` times that."""
    move = factor * (difference.least or 0.0) - difference.value
    return row._replace(values=row.values + move, shares=row.shares + move / row.shares.size)


def test_rows_of_other_queries_are_no_pair() -> None:
    generator = np.random.default_rng(0)
    sizes = (50, 60, 50, 60)
    found = pairwise([outcome(generator.normal(0, 1, size)) for size in sizes], [0, 1, 0, 1])
    assert found.families().checkpoints == 2
    assert [own is None for own in found.against(0)] == [True, True, False, True]
    alone = pairwise([outcome(generator.normal(0, 1, 50)) for _ in range(2)], [0, 0])
    assert alone.families().checkpoints == 1


def test_equal_rows_are_equal_and_sides_may_be_swapped() -> None:
    row = outcome_of(hits_of([random_ranks(seed) for seed in (1, 2, 3)]), "rsum")
    other = outcome_of(hits_of([random_ranks(seed) for seed in (4, 5, 6)]), "rsum")
    found = pairwise([row, row, other], [0, 0, 0])
    assert found.against(0)[1] is not None
    assert found.checkpoints[0, 1] == found.methods[0, 1] == 1
    np.testing.assert_array_equal(found.value[:2, 2], -found.value[2, :2])
    constant = pairwise([outcome(np.zeros(4)), outcome(np.zeros(4))], [0, 0])
    assert constant.methods[0, 1] == constant.checkpoints[0, 1] == 1


def test_what_does_not_hold_for_checkpoints_does_not_for_methods() -> None:
    """Many single runs are corrected for in (a) only."""
    generator = np.random.default_rng(0)
    noise = generator.normal(0, 1, 100)
    rows = [outcome(np.zeros(100)), outcome(noise - noise.mean() + 0.25)]
    rows += [outcome(generator.normal(0, 1, 100), [0.0]) for _ in range(20)]
    assert pairwise(rows[:2], [0, 0]).methods[0, 1] <= LEVEL
    assert pairwise(rows, [0] * 22).methods[0, 1] == pairwise(rows, [0] * 22).checkpoints[0, 1] > LEVEL


def test_rows_may_be_put_in_another_order() -> None:
    generator = np.random.default_rng(0)
    rows = [outcome(generator.normal(0, 1, 20)) for _ in range(4)]
    order = [2, 0, 3, 1]
    for one, other in zip(
        pairwise(rows, [0] * 4).taken(order), pairwise([rows[i] for i in order], [0] * 4), strict=True
    ):
        np.testing.assert_allclose(one, other)


@pytest.mark.parametrize(
    ("checkpoints", "methods", "expected"),
    [(0.05, 0.05, (True, True)), (0.04, 0.06, (True, False)), (0.051, None, (False, None))],
)
def test_verdicts(checkpoints: float, methods: float | None, expected: tuple[bool, bool | None]) -> None:
    difference = Difference(1.0, 0.5, checkpoints, None if methods is None else 0.6, methods, None)
    assert (difference.checkpoints_hold, difference.methods_hold) == expected


def test_hundreds_of_rows_are_quick() -> None:
    """One pass over the images per row, not one per pair."""
    generator = np.random.default_rng(0)
    rows = [outcome(generator.normal(0, 1, 1000), generator.normal(0, 1, 3)) for _ in range(300)]
    found = pairwise(rows, [0] * 300)
    assert found.families()[:2] == (44_850, 44_850)
    assert len(found.against(0)) == 300
