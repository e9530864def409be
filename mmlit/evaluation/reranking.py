"""Reranking: the costly score decides among the candidates of the cheap one."""

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from mmlit.contracts import Encoded
from mmlit.evaluation.ranking import TOP, Gallery, Ranking, Score, rank_all, require_finite, trimmed


class _Side(NamedTuple):
    """One direction: what asks, what is found, and which items are true."""

    query: Encoded
    item: Encoded
    query_key: Tensor
    item_key: Tensor
    num_candidates: int


def rerank(
    coarse: Score, score: Score, gallery: Gallery, *, num_candidates: int, image_block: int, text_block: int
) -> Ranking:
    """Ranks the whole gallery: the `num_candidates` best by `coarse` come first, ordered by `score`; the rest keeps its order.

    The same rules as `rank_all`: ties count against the model, also at the border of the candidates.

    Raises:
        ValueError: as `rank_all`; if `num_candidates` < 1.
    """
    if num_candidates < 1:
        raise ValueError(f"num_candidates must be >= 1, got {num_candidates}")
    full = rank_all(coarse, gallery, image_block=image_block, text_block=text_block)
    i2t = _Side(gallery.image, gallery.text, gallery.image_id, gallery.text_image_id, num_candidates)
    t2i = _Side(gallery.text, gallery.image, gallery.text_image_id, gallery.image_id, num_candidates)
    ids = gallery.image_id, gallery.text_id
    rank_i, top_i = _direction(coarse, score, i2t, full.i2t_rank, image_block, ids, False)
    rank_t, top_t = _direction(coarse, score, t2i, full.t2i_rank, image_block, ids, True)
    return Ranking(rank_i, top_i, rank_t, top_t)


def _direction(
    coarse: Score,
    score: Score,
    side: _Side,
    coarse_rank: Tensor,
    block: int,
    ids: tuple[Tensor, Tensor],
    from_text: bool,
) -> tuple[Tensor, Tensor]:
    """Ranks (Q,) and the numbers of the best ten (Q,10)."""
    rank, top = coarse_rank.clone(), torch.full((len(coarse_rank), TOP), -1, device=coarse_rank.device)
    for query, candidates in _candidates(coarse, side, block, from_text):
        asking = side.query.take(slice(query, query + 1))
        found = trimmed(side.item.take(candidates))
        values = (score(found, trimmed(asking)).T if from_text else score(trimmed(asking), found))[0].float()
        own = ids[1][query : query + 1] if from_text else ids[0][query : query + 1]
        others = (ids[0] if from_text else ids[1])[candidates]
        require_finite(values[:, None] if from_text else values[None], *((others, own) if from_text else (own, others)))
        true = side.item_key[candidates] == side.query_key[query]
        if true.any():  # otherwise its coarse rank, which lies behind the candidates, stands
            rank[query] = 1 + (values[~true] >= values[true].max()).sum()
        best = candidates[values.argsort(descending=True, stable=True)][:TOP]
        top[query, : len(best)] = best
    return rank, top


def _candidates(coarse: Score, side: _Side, block: int, from_text: bool) -> Iterator[tuple[int, Tensor]]:
    """Each query with the numbers of its candidates; of equal items a wrong one goes before a true one."""
    item = trimmed(side.item)
    for start in range(0, len(side.query_key), block):
        rows = slice(start, start + block)
        query = trimmed(side.query.take(rows))
        scores = (coarse(item, query).T if from_text else coarse(query, item)).float()
        true = side.query_key[rows, None] == side.item_key
        order = scores.masked_fill(true, -torch.inf).topk(min(side.num_candidates, scores.shape[1]), dim=1)
        best_true = scores.masked_fill(~true, -torch.inf)
        yield from (
            (start + row, _merge(order.values[row], order.indices[row], best_true[row], side.num_candidates))
            for row in range(len(scores))
        )


def _merge(wrong: Tensor, wrong_index: Tensor, true: Tensor, k: int) -> Tensor:
    """The k best of wrong items (sorted) and true ones, a wrong one first where they are equal."""
    at = true.isfinite().nonzero().flatten()
    real = wrong.isfinite()
    values, index = torch.cat([wrong[real], true[at]]), torch.cat([wrong_index[real], at])
    return index[values.argsort(descending=True, stable=True)[:k]]
