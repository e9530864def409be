"""Reranking: the costly score decides among the candidates of the cheap one."""

import time
from collections.abc import Callable, Iterator, Sequence
from itertools import accumulate
from typing import NamedTuple

import torch
from torch import Tensor

from mmlit.contracts import Encoded
from mmlit.evaluation.nearest import TOP, best
from mmlit.evaluation.ranking import Gallery, Ranking, Score, block_sizes, rank_all, require_finite


class _Items(NamedTuple):
    """One side of the gallery: what is encoded, its ids, and the image id that says which pairs are true."""

    encoded: Encoded
    ids: Tensor
    key: Tensor

    def take(self, index: Tensor | slice) -> "_Items":
        return _Items(self.encoded.take(index).trimmed(), self.ids[index], self.key[index])


#: queries (Q) and items (C) → scores (Q,C), whichever of them are the images
_Judge = Callable[[_Items, _Items], Tensor]


class Reranked(NamedTuple):
    """A ranking with so many candidates per query, and the seconds that finding and scoring them took."""

    num_candidates: int
    ranking: Ranking
    i2t_seconds: float
    t2i_seconds: float


def rerank(
    coarse: Score, score: Score, gallery: Gallery, *, num_candidates: int, image_block: int, text_block: int
) -> Ranking:
    """Ranks the whole gallery: the `num_candidates` best by `coarse` first, ordered by `score`; the rest as it was.

    The same rules as `rank_all`: ties count against the model, also at the border of the candidates.

    Raises:
        ValueError: as `rank_all`; if `num_candidates` < 1.
    """
    if num_candidates < 1:
        raise ValueError(f"num_candidates must be >= 1, got {num_candidates}")
    full = rank_all(coarse, gallery, image_block=image_block, text_block=text_block)
    (reranked,) = rerank_each(
        coarse, score, gallery, full, nums_candidates=(num_candidates,), image_block=image_block, text_block=text_block
    )
    return reranked.ranking


def rerank_each(
    coarse: Score,
    score: Score,
    gallery: Gallery,
    full: Ranking,
    *,
    nums_candidates: Sequence[int],
    image_block: int,
    text_block: int,
) -> list[Reranked]:
    """`rerank` with each of these numbers of candidates, fewest first; a pair is scored once for all of them.

    Args:
        coarse: finds the candidates.
        score: orders them.
        gallery: what is ranked.
        full: the gallery's ranking by `coarse`, whose order the rest keeps.
        nums_candidates: candidates per query, ≥ 0; where the gallery is smaller, all of it.
        image_block: queries whose candidates are found at a time, as in `rank_all`.
        text_block: as in `rank_all`.

    Raises:
        ValueError: as `rank_all`.
    """
    nums = sorted(set(nums_candidates))
    block = block_sizes(gallery, image_block, text_block).image
    images = _Items(gallery.image, gallery.image_id, gallery.image_id)
    texts = _Items(gallery.text, gallery.text_id, gallery.text_image_id)
    ways: list[list[_Way]] = []
    for query, item, rank, swap in ((images, texts, full.i2t_rank, False), (texts, images, full.t2i_rank, True)):
        candidates = _candidates(_judge(coarse, swap=swap), query, item, nums[-1], block)
        ways.append(_direction(_judge(score, swap=swap), query, item, rank, candidates, nums=nums))
    return [
        Reranked(num, Ranking(i2t.rank, i2t.top, t2i.rank, t2i.top) if num else full, i2t.seconds, t2i.seconds)
        for num, i2t, t2i in zip(nums, *ways, strict=True)
    ]


def _judge(score: Score, *, swap: bool) -> _Judge:
    """A score with the query first: fp32, finite, transposed where texts ask."""

    def judge(query: _Items, item: _Items) -> Tensor:
        image, text = (item, query) if swap else (query, item)
        scores = score(image.encoded, text.encoded).float()
        require_finite(scores, image.ids, text.ids)
        return scores.T if swap else scores

    return judge


class _Way(NamedTuple):
    """One direction: ranks (Q,), the numbers of the best ten (Q,10), and the seconds that it took."""

    rank: Tensor
    top: Tensor
    seconds: float


def _direction(
    judge: _Judge,
    query: _Items,
    item: _Items,
    coarse_rank: Tensor,
    candidates: Iterator[tuple[int, Tensor]],
    *,
    nums: Sequence[int],
) -> list[_Way]:
    """For each of the increasing `nums` the ranking by so many candidates: each adds to those before it."""
    ranks = [coarse_rank.clone() for _ in nums]
    tops = [torch.full((len(coarse_rank), TOP), -1, device=coarse_rank.device) for _ in nums]
    finding, scoring = 0.0, [0.0] * len(nums)
    start = time.perf_counter()
    for number, near in candidates:
        finding += time.perf_counter() - start
        asking, values = query.take(slice(number, number + 1)), coarse_rank.new_empty(0, dtype=torch.float)
        true = item.key[near] == asking.key
        for place, (rank, top, num) in enumerate(zip(ranks, tops, nums, strict=True)):
            start = time.perf_counter()
            more = near[len(values) : num]
            if len(more):
                values = torch.cat([values, judge(asking, item.take(more))[0]])
            scoring[place] += time.perf_counter() - start
            own = true[:num]
            if own.any():  # otherwise its coarse rank, which lies behind the candidates, stands
                rank[number] = 1 + (values[~own] >= values[own].max()).sum()
            first = near[values.argsort(descending=True, stable=True)][:TOP]
            top[number, : len(first)] = first
        start = time.perf_counter()
    seconds = [finding + part for part in accumulate(scoring)]
    return [_Way(*way) for way in zip(ranks, tops, seconds, strict=True)]


def _candidates(judge: _Judge, query: _Items, item: _Items, k: int, block: int) -> Iterator[tuple[int, Tensor]]:
    """Each query with the numbers of its k best items; of equal ones a wrong one goes before a true one."""
    everything = item.take(slice(None))
    for start in range(0, len(query.ids), block):
        asking = query.take(slice(start, start + block))
        scores = judge(asking, everything)
        true = asking.key[:, None] == item.key
        wrong, wrong_index = best(scores.masked_fill(true, -torch.inf), min(k, scores.shape[1]))
        best_true = scores.masked_fill(~true, -torch.inf)
        for row in range(len(scores)):
            yield start + row, _merge(wrong[row], wrong_index[row], best_true[row], k)


def _merge(wrong: Tensor, wrong_index: Tensor, true: Tensor, k: int) -> Tensor:
    """The k best of wrong items (sorted) and true ones, a wrong one first where they are equal."""
    at = true.isfinite().nonzero().flatten()
    real = wrong.isfinite()
    values, index = torch.cat([wrong[real], true[at]]), torch.cat([wrong_index[real], at])
    return index[values.argsort(descending=True, stable=True)[:k]]
