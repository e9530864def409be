"""Rows made up for tests of differences: ranks by hand, at random, and hits drawn from a model with seeds."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from mmlit.results.differences import Pairwise
from mmlit.results.paired import Hits, Outcome, Queries
from mmlit.results.ranks import Ranks

NUM_IMAGES, TEXTS_PER_IMAGE = 120, 3
_THRESHOLDS = np.array([0.8, 0.0, -0.8])
"""How well an image or a text must do to be found first, within 5, within 10; symmetric, so that the spread between
seeds does not move the expected rsum."""


# i2t R@1 and t2i R@1 in percent of four images and eight texts; the others are found second.
QUARTER = {"i2t_rank": (1, 2, 2, 2), "t2i_rank": (1, 1, 2, 2, 2, 2, 2, 2)}
HALF = {"i2t_rank": (1, 1, 2, 2), "t2i_rank": (1, 1, 1, 1, 2, 2, 2, 2)}
ALL = {"i2t_rank": (1, 1, 1, 1), "t2i_rank": (1, 1, 1, 1, 1, 1, 1, 1)}


def setting(part: str, **values: object) -> Callable[[dict[str, Any]], object]:
    """Change keys of a part of a record before it is written."""
    return lambda record: record[part].update(values)


def ranks_of(i2t_rank: object, t2i_rank: object, image_id: object, text_id: object, owner: object) -> Ranks:
    """Ranks without their tops."""
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


def drawn_rows(
    generator: np.random.Generator,
    seeds: Sequence[int],
    spreads: Sequence[float],
    gains: Sequence[float] | None = None,
) -> list[Hits]:
    """Draw images, methods and seeds anew.

    How well a seed of a method does on a query is a sum of normal draws: of the image, shared by all methods and by its
    texts; of the text, shared by all methods; of the method on that image; of the seed (its spread is what another
    training run changes); of the seed on that image; and of the seed on that text.

    Args:
        generator: draws.
        seeds: number of seeds of each row.
        spreads: each row's standard deviation between seeds; an image's own is 1.
        gains: what each row is better by; nothing if not given.
    """
    n, k = NUM_IMAGES, TEXTS_PER_IMAGE
    image, text = generator.normal(size=n), 0.7 * generator.normal(size=(n, k))
    queries = Queries(np.arange(n), np.arange(n * k), np.repeat(np.arange(n), k))
    rows = []
    for number, spread, gain in zip(seeds, spreads, gains or [0.0] * len(seeds), strict=True):
        level = gain + spread * generator.normal(size=(number, 1)) + image + 0.4 * generator.normal(size=n)
        level = level + 0.5 * generator.normal(size=(number, n))
        texts = level[..., None] + text + 0.5 * generator.normal(size=(number, n, k))
        found = (texts[..., None] > _THRESHOLDS).sum(axis=2, dtype=np.float64)
        rows.append(Hits(queries, (level[..., None] > _THRESHOLDS).astype(np.float64), found))
    return rows


def normal_rows(
    generator: np.random.Generator, seeds: Sequence[int], spreads: Sequence[float], *, tables: int
) -> list[list[Outcome]]:
    """Draw many tables of equally good rows, in points of rsum, from normal distributions.

    What the images add to a difference between two rows has variance 5; the seed on these images moves one seed's value
    by variance 2, each seed by itself by its row's spread.

    Args:
        generator: draws.
        seeds: number of seeds of each row.
        spreads: each row's standard deviation between seeds.
        tables: how many.

    Returns:
        The rows of each table.
    """
    n = 60
    columns = []
    for number, spread in zip(seeds, spreads, strict=True):
        own = generator.normal(size=(tables, 1, n)) * np.sqrt(2.5 * n)
        meeting = generator.normal(size=(tables, number, n)) * np.sqrt(2.0 * n)
        gains = (own + meeting + spread * generator.normal(size=(tables, number, 1))) / n
        influence = gains - gains.mean(axis=2, keepdims=True)
        mean = influence.mean(axis=1)
        residual = np.square(influence - mean[:, None]).sum(axis=(1, 2)) * n / (n - 1) / (number - 1)
        parts = (gains.sum(axis=2), gains.mean(axis=1), mean, residual)
        columns.append([Outcome(*each) for each in zip(*parts, strict=True)])
    return [list(rows) for rows in zip(*columns, strict=True)]


def no_pairs(size: int) -> Pairwise:
    """A table of `size` rows none of which ranked the same queries."""
    return Pairwise(*(np.full((size, size), np.nan) for _ in Pairwise._fields))


def equal_pairs(size: int, *, checkpoints: float, methods: float) -> Pairwise:
    """Row i is i points better than the first, every pair with the same p-values and an error of 1 point."""
    place = np.arange(size, dtype=np.float64)
    value = place[:, None] - place
    full = [np.full((size, size), number) for number in (1.0, checkpoints, 1.0, methods, 5.0)]
    for table in (value, *full):
        np.fill_diagonal(table, np.nan)
    return Pairwise(value, *full)
