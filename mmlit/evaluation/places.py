"""Places of given pairs in the complete ranking of a gallery, block by block."""

from collections.abc import Callable, Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from mmlit.contracts import Encoded
from mmlit.evaluation.nearest import best
from mmlit.evaluation.ranking import Gallery, Score, block_sizes, require_finite
from mmlit.evaluation.truth import Relevance

#: the place of an item that is not in the gallery: behind every other
NEVER = 2**62


class Side(NamedTuple):
    """Images or texts of a gallery: what is encoded, ids, and how many are scored at a time."""

    encoded: Encoded
    ids: Tensor
    block: int

    def take(self, index: Tensor | slice) -> "Side":
        return Side(self.encoded.take(index).trimmed(), self.ids[index], self.block)


#: queries (Q) and items (C) → fp32 scores (Q,C), whichever of them are the images
Judge = Callable[[Side, Side], Tensor]


def judge(score: Score, *, images_ask: bool) -> Judge:
    """A score with the query first; a score that is not finite raises."""

    def ask(query: Side, item: Side) -> Tensor:
        parts = []
        for start in range(0, len(item.ids), item.block):
            some = item.take(slice(start, start + item.block))
            image, text = (query, some) if images_ask else (some, query)
            scores = score(image.encoded, text.encoded).float()
            require_finite(scores, image.ids, text.ids)
            parts.append(scores if images_ask else scores.T)
        return torch.cat(parts, 1)

    return ask


def sides(gallery: Gallery, *, images_ask: bool, image_block: int, text_block: int) -> tuple[Side, Side]:
    """Those who ask and those who are found."""
    size = block_sizes(gallery, image_block, text_block)
    images = Side(gallery.image, gallery.image_id, size.image)
    texts = Side(gallery.text, gallery.text_id, size.text)
    return (images, texts) if images_ask else (texts, images)


def locate(ids: Tensor, among: Tensor) -> Tensor:
    """Where each id stands in `among`, −1 for one that is not there."""
    sorted_ids, at = among.sort()
    near = torch.searchsorted(sorted_ids, ids.contiguous()).clamp_max(len(among) - 1)
    return at[near].masked_fill(sorted_ids[near] != ids, -1)


def places(
    score: Score,
    coarse: Score | None,
    gallery: Gallery,
    relevance: Relevance,
    *,
    images_ask: bool,
    num_candidates: int,
    image_block: int,
    text_block: int,
) -> Tensor:
    """The place, from 1, of each pair's item among all items of the gallery as its query ranks them: (E,) int64.

    Ties count against the model: of equal scores, items that the relevance does not name go first, then those of
    lower grade. With `coarse` the order is that of `rerank`: its `num_candidates` best items ordered by `score`, then
    the rest. An item that is not in the gallery has the place `NEVER`.

    Raises:
        ValueError: if a score is not finite (naming image and text), `num_candidates` < 1, or a query is not in the
            gallery.
    """
    if num_candidates < 1:
        raise ValueError(f"num_candidates must be >= 1, got {num_candidates}")
    asking, found = sides(gallery, images_ask=images_ask, image_block=image_block, text_block=text_block)
    device = asking.ids.device
    query, item = (
        locate(ids.to(device), side.ids) for ids, side in ((relevance.query_id, asking), (relevance.item_id, found))
    )
    if (query < 0).any():
        raise ValueError(f"query id {int(relevance.query_id[int((query < 0).nonzero()[0])])} is not in the gallery")
    result = torch.full_like(query, NEVER)
    # by query, then lower grades first, then the gallery's order: what later stable sorts leave as it is
    order = (item >= 0).nonzero().flatten()
    for key in (item, relevance.grade.to(device), query):
        order = order[key[order].argsort(stable=True)]
    cheap = judge(coarse or score, images_ask=images_ask)
    costly = judge(score, images_ask=images_ask) if coarse else None
    for pairs, rows in _blocks(query[order], asking.block):
        block = _Block(asking.take(rows), found, locate(query[order[pairs]], rows), item[order[pairs]])
        result[order[pairs]] = _places(block, cheap, costly, num_candidates)
    return result


class _Block(NamedTuple):
    """Queries with their pairs, sorted by query, then by rising grade: row among the queries, item's number."""

    asking: Side
    found: Side
    row: Tensor
    item: Tensor


def _blocks(query: Tensor, block: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Sorted query numbers of pairs → places of the pairs and the different numbers, of `block` queries at a time."""
    different, counts = query.unique_consecutive(return_counts=True)
    ends = counts.cumsum(0)
    for rows in torch.arange(len(different), device=query.device).split(block):
        start, end = int(ends[rows[0]] - counts[rows[0]]), int(ends[rows[-1]])
        yield torch.arange(start, end, device=query.device), different[rows]


def _places(block: _Block, cheap: Judge, costly: Judge | None, num_candidates: int) -> Tensor:
    scores = cheap(block.asking, block.found)
    own = scores[block.row, block.item]
    scores[block.row, block.item] = -torch.inf
    place = _behind(scores, block.row, own) + order_within(block.row, -own)
    if costly is None:
        return place
    wrong, wrong_item = best(scores, min(num_candidates, scores.shape[1]))
    for row in range(len(scores)):
        mine = ((block.row == row) & (place <= num_candidates)).nonzero().flatten()
        if not len(mine):
            continue  # all of them lie behind the candidates, where the cheap order stands
        near = wrong_item[row][wrong[row].isfinite()][: num_candidates - len(mine)]
        values = costly(
            block.asking.take(torch.tensor([row], device=near.device)),
            block.found.take(torch.cat([block.item[mine], near])),
        )[0]
        true, others = values[: len(mine)], values[len(mine) :]
        place[mine] = (others >= true[:, None]).sum(1) + order_within(torch.zeros_like(mine), -true)
    return place


def _behind(scores: Tensor, row: Tensor, value: Tensor) -> Tensor:
    """How many of a row's scores are at least as high as each value; as many values at a time as there are rows."""
    pieces = zip(row.split(len(scores)), value.split(len(scores)), strict=True)
    return torch.cat([(scores[at] >= own[:, None]).sum(1) for at, own in pieces])


def order_within(group: Tensor, key: Tensor) -> Tensor:
    """The number, from 1, of each entry by rising key among those of its group; of equal ones the first is first."""
    by_key = key.argsort(stable=True)
    order = by_key[group[by_key].argsort(stable=True)]
    starts = torch.searchsorted(group[order], group[order])
    number = torch.empty_like(order)
    number[order] = torch.arange(len(order), device=order.device) - starts + 1
    return number
