"""How often differences hold by mistake and how often true ones are found, with seeds drawn anew each time.

Every experiment draws images (shared by the methods), captions correlated within an image, methods on images, seeds of
each method and seeds on images. `made_rows.drawn_rows` draws hits, as they are ranked; `made_rows.normal_rows` draws
the sums over images, many tables at once, for what is claimed of levels. The margins are three standard errors.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import pytest
from numpy.typing import NDArray
from results.made_rows import NUM_IMAGES, TEXTS_PER_IMAGE, drawn_rows, normal_rows

from mmlit.results import summed_variance
from mmlit.results.differences import LEVEL
from mmlit.results.paired import Outcome, outcome_of
from mmlit.results.significance import pairwise, uncorrected
from mmlit.results.student import two_sided

REPETITIONS = 2000

SPREADS = (0.0, 0.05, 0.1, 0.3)
"""Between seeds, where an image's own is 1: from none to three times the error over images, for three seeds."""


class Rates(NamedTuple):
    """Shares of experiments in which a pair of rows holds, (R,R), and in which any of the `null` pairs does."""

    checkpoints: NDArray[np.float64]
    methods: NDArray[np.float64]
    any_checkpoints: float
    any_methods: float


def rates(
    seeds: Sequence[int],
    spreads: Sequence[float],
    *,
    repetitions: int,
    gains: Sequence[float] | None = None,
    null: Sequence[int] | None = None,
) -> Rates:
    generator = np.random.default_rng(0)
    rows = range(len(seeds)) if null is None else null
    pairs = np.ix_(rows, rows)
    found = []
    for _ in range(repetitions):
        outcomes = [outcome_of(hits, "rsum") for hits in drawn_rows(generator, seeds, spreads, gains)]
        tested = pairwise(outcomes, [0] * len(outcomes))
        held = [table <= LEVEL for table in (tested.checkpoints, tested.methods)]
        found.append((*held, *(table[pairs].any() for table in held)))
    return Rates(*(np.mean(part, axis=0) for part in zip(*found, strict=True)))


def single(seeds: Sequence[int], spreads: Sequence[float]) -> NDArray[np.float64]:
    """The uncorrected p-values of (b) for all pairs of equal rows, (REPETITIONS, pairs)."""
    generator, size = np.random.default_rng(0), len(seeds)
    above_diagonal, at_once, found = np.triu_indices(size, 1), 50 // size, []
    for _ in range(REPETITIONS // at_once):
        tables = normal_rows(generator, seeds, spreads, tables=at_once)
        outcomes = [outcome for rows in tables for outcome in rows]
        # Rows of other queries are not compared: many tables in one.
        methods = uncorrected(outcomes, np.repeat(np.arange(at_once), size).tolist()).methods
        blocks = methods.reshape(at_once, size, at_once, size)[np.arange(at_once), :, np.arange(at_once)]
        found.append(blocks[:, above_diagonal[0], above_diagonal[1]])
    return np.concatenate(found)


def above(level: float, repetitions: int) -> float:
    """What an estimated rate may reach if the true one is `level`: three standard errors more."""
    return level + 3 * float(np.sqrt(level * (1 - level) / repetitions))


@pytest.mark.parametrize(
    ("seeds", "spreads"),
    [
        *(((n, n), spreads) for n in (3, 5, 10) for spreads in ((0.0, 0.0), (4.0, 4.0), (0.0, 8.0), (1.5, 14.5))),
        *(((3, 10), spreads) for spreads in ((4.0, 4.0), (1.5, 14.5), (14.5, 1.5), (30.0, 0.0))),
    ],
)
def test_two_equal_methods_hold_at_most_as_often_as_claimed(seeds: tuple[int, ...], spreads: tuple[float, ...]) -> None:
    """Few seeds that agree by luck let nothing pass: from equal spreads to one tenth and none."""
    found = single(seeds, spreads)
    for level in (LEVEL, LEVEL / 15):
        assert (found <= level).mean() <= above(level, REPETITIONS)
    # Not absurdly cautious either: with three seeds a sixth of the level is used, with ten almost all.
    assert (found <= LEVEL).mean() >= {3: 0.008, 5: 0.02, 10: 0.035}[min(seeds)]


@pytest.mark.parametrize(
    ("num_seeds", "spreads"),
    [
        (3, (4.8, 6.1, 11.9, 5.6, 1.5, 14.5)),
        (3, (0.0, 1.0, 1.0, 1.0, 1.0, 14.0)),
        (5, (4.8, 6.1, 11.9, 5.6, 1.5, 14.5)),
        (5, (3.0,) * 6),
    ],
)
def test_of_six_equal_methods_some_pair_holds_at_most_as_often_as_claimed(
    num_seeds: int, spreads: tuple[float, ...]
) -> None:
    """Holm's correction asks of the first of 15 pairs a p of 0.0033, far out in the tail."""
    found = single([num_seeds] * 6, spreads)
    assert (found.min(axis=1) <= LEVEL / 15).mean() <= LEVEL
    # Each pair by itself, too, not only all of them together.
    assert (found <= LEVEL / 15).mean(axis=0).max() <= above(LEVEL / 15, REPETITIONS)


@pytest.mark.parametrize("num_seeds", [3, 5, 10])
def test_equal_methods_hold_as_often_as_claimed_and_checkpoints_alone_would_mislead(num_seeds: int) -> None:
    repetitions = 200
    found = [rates([num_seeds] * 2, [spread] * 2, repetitions=repetitions) for spread in SPREADS]
    methods = [float(each.methods[0, 1]) for each in found]
    assert max(methods) <= above(LEVEL, repetitions)
    assert np.mean(methods) <= above(LEVEL, repetitions * len(SPREADS))
    # (a) is right about what it says where seeds do not differ, and wrong about methods where they do.
    checkpoints = [float(each.checkpoints[0, 1]) for each in found]
    assert 0.02 <= checkpoints[0] <= above(LEVEL, repetitions)
    assert checkpoints == sorted(checkpoints)
    assert checkpoints[-1] > 0.35


@pytest.mark.parametrize(
    ("seeds", "spreads"), [((3, 3), (0.05, 0.3)), ((3, 3), (0.0, 0.1)), ((3, 10), (0.1, 0.1)), ((3, 10), (0.2, 0.05))]
)
def test_unequal_spreads_and_numbers_of_seeds(seeds: tuple[int, ...], spreads: tuple[float, ...]) -> None:
    assert rates(seeds, spreads, repetitions=300).methods[0, 1] <= above(LEVEL, 300)


def test_in_a_table_of_equal_rows_checkpoints_hold_by_mistake_as_rarely_as_claimed() -> None:
    same = rates([3] * 5, [0.0] * 5, repetitions=250)
    assert 0.01 <= same.any_checkpoints <= above(LEVEL, 250)
    assert same.any_methods <= LEVEL


def test_true_differences_do_not_bring_false_ones_with_them() -> None:
    """Holm's correction lets go pairs that hold, and must still protect the others."""
    found = rates([5] * 4, [0.05] * 4, repetitions=200, gains=[1.0, 0.0, 0.0, 0.0], null=[1, 2, 3])
    assert found.methods[0, 1:].min() > 0.95
    assert found.any_methods <= above(LEVEL, 200)


def test_pairing_gains_power() -> None:
    """Trap 10: the images' shared difficulty cancels, and the unpaired test with the same level sees far less."""
    generator = np.random.default_rng(0)
    paired: list[bool] = []
    unpaired: list[bool] = []
    false_alarms: list[bool] = []
    for _ in range(200):
        for gain, unpaired_found in ((0.2, unpaired), (0.0, false_alarms)):
            one, other = (outcome_of(each, "rsum") for each in drawn_rows(generator, [5, 5], [0.03] * 2, [gain, 0.0]))
            unpaired_found.append(unpaired_probability(one, other) <= LEVEL)
            if gain:
                paired.append(pairwise([one, other], [0, 0]).methods[0, 1] <= LEVEL)
    assert np.mean(false_alarms) <= above(LEVEL, 200)
    assert np.mean(paired) > np.mean(unpaired) + 0.3


def unpaired_probability(one: Outcome, other: Outcome) -> float:
    """As if each row had been asked other images."""
    variance = sum(np.square(each.influence).sum() * NUM_IMAGES / (NUM_IMAGES - 1) for each in (one, other))
    return float(two_sided((one.values.mean() - other.values.mean()) / np.sqrt(variance), 2 * NUM_IMAGES - 2))


def test_texts_taken_for_independent_would_mislead() -> None:
    """Trap 10: equal checkpoints would be told apart three times as often as claimed, and are not."""
    generator = np.random.default_rng(0)
    naive, images = [], []
    for _ in range(400):
        rows = drawn_rows(generator, [1, 1], [0.0, 0.0])
        images.append(pairwise([outcome_of(each, "t2i_r5") for each in rows], [0, 0]).checkpoints[0, 1] <= LEVEL)
        lost, won = (((one.text - other.text)[0, :, 1]).clip(0).sum() for one, other in (rows, rows[::-1]))
        # McNemar's test over texts; what an image's texts gain and lose among themselves is left out
        naive.append(two_sided((won - lost) / np.sqrt(max(won + lost, 1)), NUM_IMAGES * TEXTS_PER_IMAGE) <= LEVEL)
    assert np.mean(images) <= above(LEVEL, 400)
    assert np.mean(naive) > 0.1


def test_satterthwaites_freedom_would_reject_too_often() -> None:
    """Why (b) has a critical value for each part: one for the sum lets lucky seeds pass."""
    generator, repetitions, spread, images = np.random.default_rng(0), 20_000, np.array([1.5, 14.5]) ** 2 / 3, 5.0
    value = generator.normal(size=repetitions) * np.sqrt(spread.sum() + images)
    seeds = (spread * generator.chisquare(2, (repetitions, 2)) / 2).sum(axis=1)
    freedom = (images + seeds) ** 2 / (seeds**2 / 2 + images**2 / 999)
    satterthwaite = two_sided(value / np.sqrt(images + seeds), freedom)
    parts = summed_variance.two_sided(value, {999.0: np.full(repetitions, images), 2.0: seeds})
    for level, excess in ((LEVEL, 1.2), (LEVEL / 15, 3.0)):
        assert (satterthwaite <= level).mean() > excess * level
        assert (parts <= level).mean() <= level
