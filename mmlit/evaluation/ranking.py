"""Ranks of a gallery, block by block: memory grows with N + M, never with N × M."""

from collections.abc import Callable, Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from mmlit.contracts import Encoded

Score = Callable[[Encoded, Encoded], Tensor]
#: how many retrieved ids are kept per query
TOP = 10


class Gallery(NamedTuple):
    """Embedded images and texts with their correspondence; each image and text id once."""

    image: Encoded
    text: Encoded
    image_id: Tensor
    text_id: Tensor
    text_image_id: Tensor


class Ranking(NamedTuple):
    """Ranks from 1 of the best true item (N,), (M,); the ten best (N,10), (M,10), −1 where there are fewer."""

    i2t_rank: Tensor
    i2t_top: Tensor
    t2i_rank: Tensor
    t2i_top: Tensor


class _Block(NamedTuple):
    rows: slice
    columns: slice
    scores: Tensor
    positives: Tensor


def rank_all(score: Score, gallery: Gallery, *, image_block: int, text_block: int) -> Ranking:
    """Ranks every image against every text and the other way round, from scores of all pairs.

    A query's rank is 1 + the number of wrong items that score at least as high as its best true one: ties count
    against the model. Scores are compared in fp32.

    Raises:
        ValueError: if a score is not finite (naming image and text), or a query has no true item.
    """
    num_images, num_texts = len(gallery.image_id), len(gallery.text_id)
    device = gallery.image_id.device
    best_i = torch.full((num_images,), -torch.inf, device=device)
    best_t = torch.full((num_texts,), -torch.inf, device=device)
    # True pairs lie in few blocks when texts are stored by image, so that this first pass costs little.
    for block in _blocks(score, gallery, image_block, text_block, only_with_positives=True):
        true = block.scores.masked_fill(~block.positives, -torch.inf)
        best_i[block.rows] = torch.maximum(best_i[block.rows], true.amax(1))
        best_t[block.columns] = torch.maximum(best_t[block.columns], true.amax(0))
    _require_true_item(best_i, gallery.image_id, "image")
    _require_true_item(best_t, gallery.text_id, "text")
    rank_i, rank_t = torch.ones_like(gallery.image_id), torch.ones_like(gallery.text_id)
    top_i, top_t = _Top(num_images, device), _Top(num_texts, device)
    for block in _blocks(score, gallery, image_block, text_block):
        wrong = block.scores.masked_fill(block.positives, -torch.inf)
        rank_i[block.rows] += (wrong >= best_i[block.rows, None]).sum(1)
        rank_t[block.columns] += (wrong >= best_t[block.columns]).sum(0)
        top_i.update(block.rows, block.columns, block.scores)
        top_t.update(block.columns, block.rows, block.scores.T)
    return Ranking(rank_i, top_i.index, rank_t, top_t.index)


def _blocks(
    score: Score, gallery: Gallery, image_block: int, text_block: int, *, only_with_positives: bool = False
) -> Iterator[_Block]:
    for start in range(0, len(gallery.image_id), image_block):
        rows = slice(start, start + image_block)
        image = gallery.image.take(rows).trimmed()
        for begin in range(0, len(gallery.text_id), text_block):
            columns = slice(begin, begin + text_block)
            positives = gallery.image_id[rows, None] == gallery.text_image_id[columns]
            if only_with_positives and not positives.any():
                continue
            scores = score(image, gallery.text.take(columns).trimmed()).float()
            require_finite(scores, gallery.image_id[rows], gallery.text_id[columns])
            yield _Block(rows, columns, scores, positives)


def require_finite(scores: Tensor, image_id: Tensor, text_id: Tensor) -> None:
    """A NaN would win every comparison that counts ties against the model.

    Raises:
        ValueError: naming the first image and text whose score is NaN or infinite.
    """
    if not scores.isfinite().all():
        row, column = (~scores.isfinite()).nonzero()[0].tolist()
        raise ValueError(
            f"score of image id {int(image_id[row])} with text id {int(text_id[column])} is "
            f"{scores[row, column].item()}; only finite scores can be ranked"
        )


def _require_true_item(best: Tensor, ids: Tensor, side: str) -> None:
    missing = best.isneginf().nonzero()
    if len(missing):
        raise ValueError(f"{side} id {int(ids[missing[0]])} has no true item in the gallery")


def best(scores: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """The k highest of fp32 scores (B,C) per row and their columns; of equals the first, which `topk` leaves open."""
    bits = (scores + 0.0).view(torch.int32)  # adding 0 makes one zero of −0 and 0
    order = bits ^ ((bits >> 31) & (2**31 - 1))  # integers that compare as the floats do
    key = order.long() * 2**31 - torch.arange(scores.shape[1], device=scores.device)
    index = (-key.topk(k, dim=1).values) % 2**31
    return scores.gather(1, index), index


class _Top:
    """The best items of each query over blocks; of equals the first in the gallery."""

    def __init__(self, num_queries: int, device: torch.device) -> None:
        self.score = torch.full((num_queries, TOP), -torch.inf, device=device)
        self.index = torch.full((num_queries, TOP), -1, device=device)

    def update(self, queries: slice, items: slice, scores: Tensor) -> None:
        near, at = best(scores, min(TOP, scores.shape[1]))
        near, index = torch.cat([self.score[queries], near], 1), torch.cat([self.index[queries], items.start + at], 1)
        self.score[queries], order = best(near, TOP)
        self.index[queries] = index.gather(1, order)
