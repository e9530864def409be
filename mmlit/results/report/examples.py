"""Queries to look at: where one strategy beats another, and where the best one fails."""

from collections.abc import Sequence
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from mmlit.results.comparison import Comparison
from mmlit.results.pictures import Pictures, file_name, find_pictures, read_pictures
from mmlit.results.ranks import Ranks, read_ranks
from mmlit.results.rows import Group

SHOWN = 5
"""Answers per strategy."""

Ids = NDArray[np.int64]


class Answer(NamedTuple):
    """What one row answered: the right one's rank with each seed, and the first answers of the first seed."""

    row: int
    ranks: tuple[int, ...]
    top: tuple[int, ...]
    right: tuple[bool, ...]


class Example(NamedTuple):
    """A query: a text that asks for its image (`t2i`) or an image that asks for its texts (`i2t`)."""

    way: Literal["t2i", "i2t"]
    query: int
    image: int
    answers: tuple[Answer, ...]


class Chapter(NamedTuple):
    """Examples of one kind, and what kind that is."""

    title: str
    about: str
    examples: tuple[Example, ...]


class Gallery(NamedTuple):
    """The chapters, the pictures that they show, and why pictures are missing if they are."""

    chapters: tuple[Chapter, ...]
    pictures: Pictures
    missing: str | None


class _Asked(NamedTuple):
    """One row's runs in one direction: ranks (S,Q) by query, the tops of the first run (Q,10)."""

    row: int
    ranks: Ids
    top: Ids


def gallery(comparison: Comparison, best: int, other: int) -> Gallery:
    """Choose the queries of a report; the same runs give the same queries.

    Where a row wins, the right answer is among its first five with its first seed, and the ratio of the ranks, as a
    geometric mean over seeds, is the largest. An image appears once per chapter.

    Args:
        comparison: with its groups.
        best: the row whose failures are shown.
        other: the row to set it against; it ranked the same queries.
    """
    groups, labels = comparison.groups, [row.label for row in comparison.rows]
    own, first = _asked(groups[best], best)
    against, _ = _asked(groups[other], other)
    chapters = [
        _wins(first, own, against, labels[best], labels[other]),
        _wins(first, against, own, labels[other], labels[best]),
        _failures(first, own, against, labels[best]),
    ]
    pictures, missing = _pictures(groups[best])
    return Gallery(tuple(chapter for chapter in chapters if chapter.examples), pictures, missing)


def _asked(group: Group, row: int) -> tuple[dict[str, _Asked], Ranks]:
    """Both directions of a row's runs, every seed's queries in ascending order of their ids."""
    seeds = [_sorted(read_ranks(run.directory)) for run in group.runs]
    ways = {
        "t2i": _Asked(row, np.stack([each.t2i_rank for each in seeds]), seeds[0].t2i_top),
        "i2t": _Asked(row, np.stack([each.i2t_rank for each in seeds]), seeds[0].i2t_top),
    }
    return ways, seeds[0]


def _sorted(ranks: Ranks) -> Ranks:
    images, texts = np.argsort(ranks.image_id), np.argsort(ranks.text_id)
    by_image = {name: getattr(ranks, name)[images] for name in ("i2t_rank", "i2t_top", "image_id")}
    by_text = {name: getattr(ranks, name)[texts] for name in ("t2i_rank", "t2i_top", "text_id", "text_image_id")}
    return Ranks(**by_image, **by_text)


def _wins(ids: Ranks, one: dict[str, _Asked], two: dict[str, _Asked], winner: str, loser: str) -> Chapter:
    examples = []
    for way, count in (("t2i", 3), ("i2t", 2)):
        gain = _log(two[way].ranks) - _log(one[way].ranks)
        gain[(one[way].ranks[0] > SHOWN) | (gain <= 0)] = -np.inf
        examples += _chosen(ids, way, gain, count, (one[way], two[way]))
    about = f"Queries that {winner} answers among its first {SHOWN} and {loser} ranks far lower."
    return Chapter(f"Where {winner} beats {loser}", about, tuple(examples))


def _failures(ids: Ranks, own: dict[str, _Asked], against: dict[str, _Asked], label: str) -> Chapter:
    examples = []
    for way, count in (("t2i", 3), ("i2t", 1)):
        badness = _log(own[way].ranks)
        badness[own[way].ranks[0] <= SHOWN] = -np.inf
        examples += _chosen(ids, way, badness, count, (own[way], against[way]))
    return Chapter(f"Hardest failures of {label}", "Queries whose right answer it ranks lowest.", tuple(examples))


def _chosen(ids: Ranks, way: str, score: NDArray[np.float64], count: int, rows: Sequence[_Asked]) -> list[Example]:
    """The queries of the highest finite score, of different images; equal ones by id."""
    examples: list[Example] = []
    for query in np.argsort(-score, kind="stable"):
        if len(examples) == count or not np.isfinite(score[query]):
            break
        image = int(ids.text_image_id[query] if way == "t2i" else ids.image_id[query])
        if image not in {example.image for example in examples}:
            answers = tuple(_answer(ids, way, asked, int(query), image) for asked in rows)
            name = int(ids.text_id[query]) if way == "t2i" else image
            examples.append(Example("t2i" if way == "t2i" else "i2t", name, image, answers))
    return examples


def _answer(ids: Ranks, way: str, asked: _Asked, query: int, image: int) -> Answer:
    top = [int(one) for one in asked.top[query, :SHOWN] if one >= 0]
    if way == "i2t":
        places = np.searchsorted(ids.text_id, top)
        right = [int(ids.text_image_id[place]) == image for place in places]
    else:
        right = [one == image for one in top]
    return Answer(asked.row, tuple(int(rank) for rank in asked.ranks[:, query]), tuple(top), tuple(right))


def _log(ranks: Ids) -> NDArray[np.float64]:
    mean: NDArray[np.float64] = np.log(ranks).mean(axis=0)
    return mean


def _pictures(group: Group) -> tuple[Pictures, str | None]:
    run = group.runs[0]
    name = file_name(run.record.data.hash, run.record.gallery.hash)
    path = find_pictures(run.directory, name)
    empty = Pictures({}, {})
    if path is None:
        return empty, (
            f"Pictures and captions are missing: there is no galleries/{name} in a folder above the runs. A run "
            "leaves it unless its gallery has more than 10,000 images; runs of an older mmlit left none, and "
            "`mmlit evaluate RUN` of one of them makes it. Numbers are the data set's own ids."
        )
    try:
        return read_pictures(path), None
    except (ValueError, OSError) as error:
        return empty, f"Pictures and captions are missing: {error}."
