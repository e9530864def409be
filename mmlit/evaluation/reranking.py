"""Reranking: the costly score decides among the candidates of the cheap one."""

from collections.abc import Callable, Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from mmlit.contracts import Encoded
from mmlit.evaluation.ranking import TOP, Gallery, Ranking, Score, best, rank_all, require_finite


class _Items(NamedTuple):
    """One side of the gallery: what is encoded, its ids, and the image id that says which pairs are true."""

    encoded: Encoded
    ids: Tensor
    key: Tensor

    def take(self, index: Tensor | slice) -> "_Items":
        return _Items(self.encoded.take(index).trimmed(), self.ids[index], self.key[index])


#: queries (Q) and items (C) → scores (Q,C), whichever of them are the images
_Judge = Callable[[_Items, _Items], Tensor]


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
    images = _Items(gallery.image, gallery.image_id, gallery.image_id)
    texts = _Items(gallery.text, gallery.text_id, gallery.text_image_id)
    ranked: list[Tensor] = []
    for query, item, rank, swap in ((images, texts, full.i2t_rank, False), (texts, images, full.t2i_rank, True)):
        candidates = _candidates(_judge(coarse, swap=swap), query, item, num_candidates, image_block)
        ranked += _direction(_judge(score, swap=swap), query, item, rank, candidates)
    return Ranking(*ranked)


def _judge(score: Score, *, swap: bool) -> _Judge:
    """A score with the query first: fp32, finite, transposed where texts ask."""

    def judge(query: _Items, item: _Items) -> Tensor:
        image, text = (item, query) if swap else (query, item)
        scores = score(image.encoded, text.encoded).float()
        require_finite(scores, image.ids, text.ids)
        return scores.T if swap else scores

    return judge


def _direction(
    judge: _Judge, query: _Items, item: _Items, coarse_rank: Tensor, candidates: Iterator[tuple[int, Tensor]]
) -> tuple[Tensor, Tensor]:
    """Ranks (Q,) and the numbers of the best ten (Q,10)."""
    rank, top = coarse_rank.clone(), torch.full((len(coarse_rank), TOP), -1, device=coarse_rank.device)
    for number, near in candidates:
        asking, found = query.take(slice(number, number + 1)), item.take(near)
        values = judge(asking, found)[0]
        true = found.key == asking.key
        if true.any():  # otherwise its coarse rank, which lies behind the candidates, stands
            rank[number] = 1 + (values[~true] >= values[true].max()).sum()
        first = near[values.argsort(descending=True, stable=True)][:TOP]
        top[number, : len(first)] = first
    return rank, top


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
