"""Ranks of a gallery, block by block: memory grows with N + M, never with N × M."""

from collections.abc import Callable, Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from mmlit.contracts import Encoded
from mmlit.evaluation.nearest import Top, best

__all__ = ["BlockSizes", "Gallery", "Ranking", "Score", "best", "block_sizes", "rank_all", "require_finite"]

Score = Callable[[Encoded, Encoded], Tensor]


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


class BlockSizes(NamedTuple):
    """Images and texts that are scored at a time."""

    image: int
    text: int


#: the most where tokens are compared, of which a score keeps something for each pair
_WITH_TOKENS = BlockSizes(64, 320)


class _Block(NamedTuple):
    """Scores of some images with some texts; `true` are the rows and the columns of the true pairs among them."""

    rows: slice
    columns: slice
    scores: Tensor
    true: tuple[Tensor, Tensor]


def block_sizes(gallery: Gallery, image_block: int, text_block: int) -> BlockSizes:
    """The sizes asked for, or less where the gallery's items carry tokens."""
    if gallery.image.tokens.shape[1] or gallery.text.tokens.shape[1]:
        return BlockSizes(min(image_block, _WITH_TOKENS.image), min(text_block, _WITH_TOKENS.text))
    return BlockSizes(image_block, text_block)


def rank_all(score: Score, gallery: Gallery, *, image_block: int, text_block: int) -> Ranking:
    """Ranks every image against every text and the other way round, from scores of all pairs.

    A query's rank is 1 + the number of wrong items that score at least as high as its best true one: ties count
    against the model. Scores are compared in fp32. Blocks are smaller than asked for where items carry tokens.

    Raises:
        ValueError: if a score is not finite (naming image and text), or a query has no true item.
    """
    device, num_images, num_texts = gallery.image_id.device, len(gallery.image_id), len(gallery.text_id)
    size = block_sizes(gallery, image_block, text_block)
    owner = owners(gallery)
    best_i = torch.full((num_images,), -torch.inf, device=device)
    best_t = torch.full((num_texts,), -torch.inf, device=device)
    # True pairs lie in few blocks when texts are stored by image, so that this first pass costs little.
    for block in _blocks(score, gallery, owner, size, only_with_true=True):
        row, column = block.true
        best_i[block.rows].scatter_reduce_(0, row, block.scores[row, column], "amax")
        best_t[block.columns][column] = block.scores[row, column]
    rank_i, rank_t = torch.ones_like(gallery.image_id), torch.ones_like(gallery.text_id)
    top_i = [Top(count, device) for count in _sizes(num_images, size.image)]
    top_t = [Top(count, device) for count in _sizes(num_texts, size.text)]
    for block in _blocks(score, gallery, owner, size):
        of_i, of_t = best_i[block.rows], best_t[block.columns]
        rank_i[block.rows] += top_i[block.rows.start // size.image].update(block.columns.start, block.scores, of_i)
        rank_t[block.columns] += top_t[block.columns.start // size.text].update(block.rows.start, block.scores.T, of_t)
        row, column = block.true  # counted, too, but none of the wrong
        own = block.scores[row, column]
        rank_i[block.rows].index_add_(0, row, (own >= of_i[row]).long(), alpha=-1)
        rank_t[block.columns].index_add_(0, column, (own >= of_t[column]).long(), alpha=-1)
    return Ranking(rank_i, _indices(top_i), rank_t, _indices(top_t))


def owners(gallery: Gallery) -> Tensor:
    """The number of each text's image: (M,).

    Raises:
        ValueError: naming the first image without a text or text without an image.
    """
    order = gallery.image_id.argsort()
    ids = gallery.image_id[order]
    place = torch.searchsorted(ids, gallery.text_image_id).clamp_max(len(ids) - 1)
    known = ids[place] == gallery.text_image_id
    owner = order[place]
    owned = torch.zeros_like(order, dtype=torch.bool)
    owned[owner[known]] = True
    for side, has_true, id_of in (("image", owned, gallery.image_id), ("text", known, gallery.text_id)):
        if not has_true.all():
            raise ValueError(f"{side} id {int(id_of[~has_true][0])} has no true item in the gallery")
    return owner


def _blocks(
    score: Score, gallery: Gallery, owner: Tensor, size: BlockSizes, *, only_with_true: bool = False
) -> Iterator[_Block]:
    columns = [slice(begin, begin + size.text) for begin in range(0, len(owner), size.text)]
    texts = [gallery.text.take(part).trimmed() for part in columns]
    for start in range(0, len(gallery.image_id), size.image):
        rows = slice(start, start + size.image)
        image = gallery.image.take(rows).trimmed()
        own = ((owner >= start) & (owner < start + size.image)).nonzero().flatten()
        own_of_block = own.split((own // size.text).bincount(minlength=len(columns)).tolist())
        for part, text, at in zip(columns, texts, own_of_block, strict=True):
            if len(at) or not only_with_true:
                scores = score(image, text).float()
                require_finite(scores, gallery.image_id[rows], gallery.text_id[part])
                yield _Block(rows, part, scores, (owner[at] - start, at - part.start))


def require_finite(scores: Tensor, image_id: Tensor, text_id: Tensor) -> None:
    """A NaN would win every comparison that counts ties against the model.

    Raises:
        ValueError: naming the first image and text whose score is NaN or infinite.
    """
    if scores.sum().isfinite():  # a sum over a number that is not finite is not finite either, and costs little
        return
    wrong = (~scores.isfinite()).nonzero()
    if len(wrong):
        row, column = wrong[0].tolist()
        raise ValueError(
            f"score of image id {int(image_id[row])} with text id {int(text_id[column])} is "
            f"{scores[row, column].item()}; only finite scores can be ranked"
        )


def _sizes(total: int, size: int) -> list[int]:
    return [min(size, total - start) for start in range(0, total, size)]


def _indices(tops: list[Top]) -> Tensor:
    for top in tops:
        top.settle()
    return torch.cat([top.index for top in tops])
