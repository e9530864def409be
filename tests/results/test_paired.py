"""Differences with their standard error, by hand, in loops, and against resampling."""

import numpy as np
import pytest

from mmlit.results.paired import Hits, mean_hits, paired_difference
from mmlit.results.ranks import Ranks

METRICS = ("rsum", "i2t_r1", "i2t_r5", "i2t_r10", "t2i_r1", "t2i_r5", "t2i_r10")


def ranks_of(i2t_rank: object, t2i_rank: object, image_id: object, text_id: object, owner: object) -> Ranks:
    given = [np.asarray(each, dtype=np.int64) for each in (i2t_rank, t2i_rank, image_id, text_id, owner)]
    tops = [np.full((each.size, 10), -1) for each in given[:2]]
    return Ranks(given[0], tops[0], given[1], tops[1], *given[2:])


def random_ranks(seed: int, num_images: int = 30, spread: float = 1.0) -> Ranks:
    """One to seven texts per image; an image's own difficulty is shared by its texts and by every seed."""
    shape, generator = np.random.default_rng(0), np.random.default_rng(seed)
    owner = np.repeat(np.arange(num_images), shape.integers(1, 8, num_images))
    difficulty = shape.normal(1, 1, num_images)
    t2i = np.exp(difficulty[owner] + spread * generator.normal(size=owner.size))
    i2t = np.exp(difficulty + spread * generator.normal(size=num_images))
    i2t_rank, t2i_rank = (np.clip(rank, 1, num_images).astype(int) for rank in (i2t, t2i))
    return ranks_of(i2t_rank, t2i_rank, np.arange(num_images), np.arange(owner.size), owner)


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
    row = mean_hits([ranks_of([1, 1, 1, 2], [1, 1, 1, 1, 2, 2, 2, 2], *ids)])
    base = mean_hits([ranks_of([1, 2, 2, 2], [2] * 8, *ids)])
    # i2t gains 0, 100, 100, 0: mean 50, sd 57.735 (n - 1), error sd / 2.
    assert paired_difference(row, base, "i2t_r1") == pytest.approx((50, 28.8675), abs=1e-4)
    # t2i gains 100, 100, 0, 0 per image, two texts each: the same, though eight texts would say 18.9.
    assert paired_difference(row, base, "t2i_r1") == pytest.approx((50, 28.8675), abs=1e-4)
    # Nobody misses at 5 or 10. Per image the sums are 100, 200, 100, 0: mean 100, sd 81.65.
    assert paired_difference(row, base, "rsum") == pytest.approx((100, 40.8248), abs=1e-4)


@pytest.mark.parametrize("metric", METRICS)
def test_equals_a_slow_reference(metric: str) -> None:
    row, base = [random_ranks(1), random_ranks(2), random_ranks(3)], [random_ranks(4), random_ranks(5)]
    found = paired_difference(mean_hits(row), mean_hits(base), metric)
    assert found == pytest.approx(reference(row, base, metric), rel=1e-12)


@pytest.mark.parametrize("metric", ["rsum", "t2i_r1"])
def test_is_what_resampling_whole_images_converges_to(metric: str) -> None:
    """Trap 10."""
    row, base = mean_hits([random_ranks(1, 400)]), mean_hits([random_ranks(4, 400)])
    columns = slice(0, 3) if metric == "rsum" else slice(0, 1)
    text = 100 * (row.text - base.text)[:, columns].sum(axis=1)
    image = 100 * (row.image - base.image).sum(axis=1) if metric == "rsum" else np.zeros(400)
    sums, sizes = np.bincount(row.text_image, weights=text), np.bincount(row.text_image)
    drawn = np.random.default_rng(0).integers(0, 400, size=(4000, 400))
    resampled = image[drawn].mean(axis=1) + sums[drawn].sum(axis=1) / sizes[drawn].sum(axis=1)
    assert paired_difference(row, base, metric).error == pytest.approx(resampled.std(), rel=0.05)


def test_texts_of_one_image_are_not_independent_and_pairing_gains() -> None:
    """Trap 10: copies of an image's caption bring no certainty; a shared difficulty cancels."""
    generator = np.random.default_rng(0)
    single = [generator.integers(1, 3, 200) for _ in range(2)]
    errors = []
    for copies in (1, 5):
        owner = np.repeat(np.arange(200), copies)
        row, base = (
            mean_hits([ranks_of(rank, np.repeat(rank, copies), range(200), range(200 * copies), owner)])
            for rank in single
        )
        errors.append(paired_difference(row, base, "t2i_r1").error)
    assert errors[1] == pytest.approx(errors[0])

    row, base = (mean_hits([random_ranks(seed, 400, spread=0.2)]) for seed in (1, 4))
    unpaired = 100 * np.sqrt((row.image[:, 0].var() + base.image[:, 0].var()) / 400)
    assert paired_difference(row, base, "i2t_r1").error < 0.7 * unpaired


def test_queries_are_paired_by_id_and_not_by_place() -> None:
    ranks, base = random_ranks(1), mean_hits([random_ranks(4)])
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
        expected = paired_difference(mean_hits([ranks]), base, metric)
        assert paired_difference(mean_hits([shuffled]), base, metric) == expected


def test_a_row_does_not_differ_from_itself_and_sides_may_be_swapped() -> None:
    row, base = mean_hits([random_ranks(1)]), mean_hits([random_ranks(4)])
    assert paired_difference(row, row, "rsum") == (0, 0)
    there, back = paired_difference(row, base, "rsum"), paired_difference(base, row, "rsum")
    assert there.value == pytest.approx(-back.value)
    assert there.error == pytest.approx(back.error)


def test_hits_are_averaged_over_seeds() -> None:
    ids = ([1, 2], [1, 2], [1, 2])
    hits = mean_hits([ranks_of([1, 2], [1, 1], *ids), ranks_of([2, 2], [1, 2], *ids)])
    np.testing.assert_array_equal(hits.image, [[0.5, 1, 1], [0, 1, 1]])
    np.testing.assert_array_equal(hits.text, [[1, 1, 1], [0.5, 1, 1]])


def test_refusals() -> None:
    hits = mean_hits([random_ranks(1)])
    with pytest.raises(ValueError, match="at least one run"):
        mean_hits([])
    with pytest.raises(ValueError, match="image_id differs"):
        mean_hits([random_ranks(1), random_ranks(1, num_images=29)])
    moved = hits._replace(text_image=np.roll(hits.text_image, 1))
    with pytest.raises(ValueError, match="text_image differs"):
        paired_difference(hits, moved, "rsum")
    with pytest.raises(ValueError, match=r"metric must be one of rsum, .*, got 'i2t_r2'"):
        paired_difference(hits, hits, "i2t_r2")
    one: Hits = mean_hits([ranks_of([1], [1], [1], [1], [1])])
    with pytest.raises(ValueError, match="at least 2 images, got 1"):
        paired_difference(one, one, "rsum")
