"""What an image adds to a row's result: by hand, in loops, and against resampling."""

import numpy as np
import pytest
from results.made_rows import random_ranks, ranks_of

from mmlit.results.paired import Outcome, check_same_queries, hits_of, outcome_of
from mmlit.results.ranks import Ranks

METRICS = ("rsum", "i2t_r1", "i2t_r5", "i2t_r10", "t2i_r1", "t2i_r5", "t2i_r10")


def difference(row: list[Ranks], base: list[Ranks], metric: str) -> tuple[float, float]:
    """Value and standard error over images of row minus base."""
    mine, theirs = (outcome_of(hits_of(ranks), metric) for ranks in (row, base))
    num_images = mine.shares.size
    variance = num_images / (num_images - 1) * np.square(mine.influence - theirs.influence).sum()
    return float(mine.values.mean() - theirs.values.mean()), float(np.sqrt(variance))


def hit(rank: int, k: int) -> float:
    return 1.0 if rank <= k else 0.0


def reference(row: list[Ranks], base: list[Ranks], metric: str) -> tuple[float, float]:
    """The linearized, clustered estimate of Cochran (1977), one query and one seed at a time."""
    first = row[0]
    parts = [(d, k) for d in ("i2t", "t2i") for k in (1, 5, 10)]
    if metric != "rsum":
        parts = [(metric[:3], int(metric[5:]))]

    def gain(direction: str, query: int) -> float:
        total = 0.0
        for way, k in parts:
            if way == direction:
                for sign, seeds in ((1, row), (-1, base)):
                    for seed in seeds:
                        rank = getattr(seed, f"{direction}_rank")[query]
                        total += 100 * sign * hit(rank, k) / len(seeds)
        return total

    n, m = first.image_id.size, first.text_id.size
    image_mean = sum(gain("i2t", i) for i in range(n)) / n
    text_mean = sum(gain("t2i", j) for j in range(m)) / m
    variance = 0.0
    for i in range(n):
        influence = (gain("i2t", i) - image_mean) / n
        for j in range(m):
            if first.text_image_id[j] == first.image_id[i]:
                influence += (gain("t2i", j) - text_mean) / m
        variance += influence**2
    return image_mean + text_mean, (variance * n / (n - 1)) ** 0.5


def test_by_hand() -> None:
    """Four images, eight texts: the row finds images 1-3 first, the baseline only image 1."""
    ids = ([10, 20, 30, 40], range(8), [10, 10, 20, 20, 30, 30, 40, 40])
    row = [ranks_of([1, 1, 1, 2], [1, 1, 1, 1, 2, 2, 2, 2], *ids)]
    base = [ranks_of([1, 2, 2, 2], [2] * 8, *ids)]
    # i2t gains 0, 100, 100, 0: mean 50, sd 57.735 (n - 1), error sd / 2.
    assert difference(row, base, "i2t_r1") == pytest.approx((50, 28.8675), abs=1e-4)
    # t2i gains 100, 100, 0, 0 per image, two texts each: the same, though eight texts would say 18.9.
    assert difference(row, base, "t2i_r1") == pytest.approx((50, 28.8675), abs=1e-4)
    # Nobody misses at 5 or 10. Per image the sums are 100, 200, 100, 0: mean 100, sd 81.65.
    assert difference(row, base, "rsum") == pytest.approx((100, 40.8248), abs=1e-4)


@pytest.mark.parametrize("metric", METRICS)
def test_equals_a_slow_reference(metric: str) -> None:
    row, base = [random_ranks(1), random_ranks(2), random_ranks(3)], [random_ranks(4), random_ranks(5)]
    assert difference(row, base, metric) == pytest.approx(reference(row, base, metric), rel=1e-12)


@pytest.mark.parametrize("metric", ["rsum", "t2i_r1"])
def test_is_what_resampling_whole_images_converges_to(metric: str) -> None:
    """Trap 10."""
    row, base = (hits_of([random_ranks(seed, 400)]) for seed in (1, 4))
    columns = slice(0, 3) if metric == "rsum" else slice(0, 1)
    sums = 100 * (row.text - base.text)[0][:, columns].sum(axis=1)
    image = 100 * (row.image - base.image)[0].sum(axis=1) if metric == "rsum" else np.zeros(400)
    sizes = np.bincount(row.queries.text_image)
    drawn = np.random.default_rng(0).integers(0, 400, size=(4000, 400))
    resampled = image[drawn].mean(axis=1) + sums[drawn].sum(axis=1) / sizes[drawn].sum(axis=1)
    error = difference([random_ranks(1, 400)], [random_ranks(4, 400)], metric)[1]
    assert error == pytest.approx(resampled.std(), rel=0.05)


def test_texts_of_one_image_are_not_independent_and_pairing_gains() -> None:
    """Trap 10: copies of an image's caption bring no certainty; a shared difficulty cancels."""
    generator = np.random.default_rng(0)
    single = [generator.integers(1, 3, 200) for _ in range(2)]
    errors = []
    for copies in (1, 5):
        owner = np.repeat(np.arange(200), copies)
        row, base = (
            [ranks_of(rank, np.repeat(rank, copies), range(200), range(200 * copies), owner)] for rank in single
        )
        errors.append(difference(row, base, "t2i_r1")[1])
    assert errors[1] == pytest.approx(errors[0])

    row, base = ([random_ranks(seed, 400, spread=0.2)] for seed in (1, 4))
    unpaired = 100 * np.sqrt(sum(hits_of(ranks).image[0, :, 0].var() for ranks in (row, base)) / 400)
    assert difference(row, base, "i2t_r1")[1] < 0.7 * unpaired


def test_queries_are_paired_by_id_and_not_by_place() -> None:
    ranks = random_ranks(1)
    generator = np.random.default_rng(0)
    images, texts = generator.permutation(ranks.image_id.size), generator.permutation(ranks.text_id.size)
    shuffled = Ranks(
        ranks.i2t_rank[images],
        ranks.i2t_top[images],
        ranks.t2i_rank[texts],
        ranks.t2i_top[texts],
        ranks.image_id[images],
        ranks.text_id[texts],
        ranks.text_image_id[texts],
    )
    for metric in METRICS:
        one, other = (outcome_of(hits_of([each]), metric) for each in (ranks, shuffled))
        np.testing.assert_array_equal(one.influence, other.influence)


def test_shares_add_up_to_the_metric_and_influences_to_nothing() -> None:
    ranks = [random_ranks(seed) for seed in (1, 2, 3)]
    outcome = outcome_of(hits_of(ranks), "t2i_r5")
    np.testing.assert_allclose(outcome.values, [100 * (each.t2i_rank <= 5).mean() for each in ranks])
    assert outcome.shares.sum() == pytest.approx(outcome.values.mean())
    assert outcome.influence.sum() == pytest.approx(0, abs=1e-9)


def test_residual_by_hand() -> None:
    """Two seeds, four images: each seed finds another half, so that only their meeting with images is left."""
    ids = (range(4), range(4), range(4))
    outcome = outcome_of(
        hits_of([ranks_of([1, 1, 2, 2], [1] * 4, *ids), ranks_of([2, 2, 1, 1], [1] * 4, *ids)]), "i2t_r1"
    )
    # ± 50 points around the image's mean in 2 × 4 cells, (2 - 1)(4 - 1) degrees of freedom: 6666.7 over 4 images.
    assert outcome.residual == pytest.approx(20_000 / 3 / 4)
    assert list(outcome.values) == [50, 50]
    assert outcome_of(hits_of([random_ranks(1)]), "rsum").residual == 0


def test_another_seed_is_possible_unless_there_was_no_training() -> None:
    def made(seeds: int, untrained: bool) -> Outcome:
        return Outcome(np.zeros(seeds), np.zeros(4), np.zeros(4), 0.0, untrained)

    assert [made(1, False).has_seeds, made(1, True).has_seeds, made(2, True).has_seeds] == [True, False, True]


def test_refusals() -> None:
    hits = hits_of([random_ranks(1)])
    with pytest.raises(ValueError, match="at least one run"):
        hits_of([])
    with pytest.raises(ValueError, match="image_id differs"):
        hits_of([random_ranks(1), random_ranks(1, num_images=29)])
    moved = hits.queries._replace(text_image=np.roll(hits.queries.text_image, 1))
    with pytest.raises(ValueError, match="text_image differs"):
        check_same_queries(hits.queries, moved)
    with pytest.raises(ValueError, match=r"metric must be one of rsum, .*, got 'i2t_r2'"):
        outcome_of(hits, "i2t_r2")
    with pytest.raises(ValueError, match="at least 2 images, got 1"):
        outcome_of(hits_of([ranks_of([1], [1], [1], [1], [1])]), "rsum")
