"""`info_nce` on the cosines of a batch, both ways, without the matrix of all pairs."""

from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable

from mmlit.contracts import Pairs
from mmlit.losses.info_nce import info_nce
from mmlit.losses.tiles import Tile, TrueEntries, Truth, checked, tiling, wide

#: up to as many pairs the plain matrix is quicker than a tile, which is made of more and smaller operations
FEW_PAIRS = 2**15
#: added to a score, the logarithm of nothing
NOTHING = -1e30


def tiled_info_nce(pairs: Pairs, scale: Tensor) -> tuple[Tensor, Tensor]:
    """`info_nce(scale · cosines, positives)` of this device's images over all texts, and of its texts over all images.

    The forward pass keeps four numbers per row; the backward pass makes each tile of scores again, and from it the
    gradients. So memory grows with N + M. On one device texts read their softmax off the columns of the images' tiles,
    which makes four products in all, where two dense matrices need six. It is in fp32, whatever autocast says.

    Args:
        pairs: unit vectors (N,E), (M,E) in `pooled`; ids decide what is true. A row without a positive gives NaN.
        scale: (), one divided by the temperature; it gets a gradient, too.

    Returns:
        (N,) and (M,), ≥ 0, in nats, fp32 or wider.

    Raises:
        ValueError: if the embeddings are not matrices of one width, or `scale` is not a single number.

    Source: the loss as in `mmlit.losses.info_nce`; a softmax from tiles: Milakov and Gimelshein 2018, Alg. 3, arXiv
    1805.02867; tiles of a contrastive loss: Cheng et al. 2024, Sec. 3, arXiv 2410.17243.
    """
    image, text, all_image, all_text = (
        side.pooled for side in (pairs.image, pairs.text, pairs.all_image, pairs.all_text)
    )
    checked(image, text, scale)
    alone, everyone = all_image is image and all_text is text, slice(None)
    with torch.autocast(image.device.type, enabled=False):
        if max(len(image) * len(all_text), len(all_image) * len(text)) <= FEW_PAIRS:
            i2t = scale * (wide(image) @ wide(all_text).T)
            t2i = i2t.T if alone else scale * (wide(text) @ wide(all_image).T)
            return (
                info_nce(i2t, pairs.positives(pairs.image_rows, everyone)),
                info_nce(t2i, pairs.positives(everyone, pairs.text_rows).T),
            )
        return _in_tiles(pairs, scale, others=False)


def tiled_others(pairs: Pairs, scale: Tensor) -> tuple[Tensor, Tensor]:
    """log Σ_j (1 − w_ij) exp(scale · cosine_ij) of each row, w_ij = `Pairs.positives`: over all that is not true.

    Rows, memory, precision and errors as in `tiled_info_nce`. A row to which nothing else is there gives about −1e30.

    Args:
        pairs: unit vectors (N,E), (M,E) in `pooled`; ids decide what is true.
        scale: (), it gets a gradient, too.

    Returns:
        (N,) and (M,), fp32 or wider.
    """
    checked(pairs.image.pooled, pairs.all_text.pooled, scale)
    with torch.autocast(scale.device.type, enabled=False):
        return _in_tiles(pairs, scale, others=True)


def _in_tiles(pairs: Pairs, scale: Tensor, *, others: bool) -> tuple[Tensor, Tensor]:
    image, text, everyone = pairs.image.pooled, pairs.text.pooled, slice(None)
    all_image, all_text = pairs.all_image.pooled, pairs.all_text.pooled
    if all_image is image and all_text is text:
        return _InfoNCE.apply(image, text, scale, Truth.of(pairs, everyone, everyone), ("i2t", "t2i"), others)
    (i2t,) = _InfoNCE.apply(image, all_text, scale, Truth.of(pairs, pairs.image_rows, everyone), ("i2t",), others)
    (t2i,) = _InfoNCE.apply(all_image, text, scale, Truth.of(pairs, everyone, pairs.text_rows), ("t2i",), others)
    return i2t, t2i


class _Softmax:
    """The softmax of each image over texts that come tile by tile, or (`flipped`) of each text over images.

    Of each row: the greatest score so far, the sum of exp(score − greatest), the sum of true scores, and of their
    weights. Greatest and sum stay apart: a single logarithm would cost a sure row's small loss its digits.
    """

    def __init__(self, image: Tensor, text: Tensor, *, flipped: bool) -> None:
        self.flipped = flipped
        count = len(text) if flipped else len(image)
        self.greatest = image.new_full((count,), -torch.inf)
        self.total, self.true, self.weight = image.new_zeros(3, count)

    def add(self, tile: Tile, spare: Tensor) -> None:
        """One more tile (R,C); `spare` (R,C) is overwritten."""
        scores, at, place = tile.scores, tile.rows, tile.true.row
        true = scores[tile.true.row, tile.true.column] * tile.true.weight
        if self.flipped:
            scores, spare, at, place = scores.T, spare.T, tile.columns, tile.true.column
        before = self.greatest[at]
        greatest = torch.maximum(before, scores.amax(1))
        total = torch.sub(scores, greatest[:, None], out=spare).exp_().sum(1)
        self.total[at] = torch.addcmul(total, self.total[at], (before - greatest).exp())
        self.greatest[at] = greatest
        self.true[at].index_add_(0, place, true)
        self.weight[at].index_add_(0, place, tile.true.weight)

    def loss(self) -> Tensor:
        """Of each row, once all tiles were there."""
        return self.greatest - self.true / self.weight + self.total.log()

    def log_sum(self) -> Tensor:
        """Of each row's exponentials, once all tiles were there."""
        return self.greatest + self.total.log()

    def gradient(self, tile: Tile, upstream: Tensor, out: Tensor) -> Tensor:
        """Of upstream · loss by a tile's scores: (R,C), in `out`, which may be these scores."""
        at, place = (tile.columns, tile.true.column) if self.flipped else (tile.rows, tile.true.row)
        shift, factor = self.greatest[at], upstream[at] / self.total[at]
        if not self.flipped:
            shift, factor = shift[:, None], factor[:, None]
        torch.sub(tile.scores, shift, out=out).exp_().mul_(factor)
        pull = tile.true.weight * (upstream[at] / self.weight[at])[place]
        return out.index_put_((tile.true.row, tile.true.column), -pull, accumulate=True)


class _InfoNCE(Function):
    """Images (N,E), texts (M,E), scale → (N,) for "i2t" and (M,) for "t2i" in `ways`: losses, or `tiled_others`."""

    @staticmethod
    def forward(  # noqa: PLR0917 - torch calls it so
        ctx: Any, image: Tensor, text: Tensor, scale: Tensor, truth: Truth, ways: tuple[str, ...], others: bool
    ) -> tuple[Tensor, ...]:
        left, right = wide(image), wide(text)
        ctx.truth, ctx.tiling, ctx.others = truth, tiling(left, right), others
        ctx.sides = [_Softmax(left, right, flipped=way == "t2i") for way in ways]
        ctx.last = None
        ctx.save_for_backward(image, text, scale)
        for rows in ctx.tiling[0]:
            query = left[rows] * scale
            for columns in ctx.tiling[1]:
                ctx.last = _tile(query @ right[columns].T, rows, columns, truth, others=others)
                spare = torch.empty_like(ctx.last.scores)
                for side in ctx.sides:
                    side.add(ctx.last, spare)
        return tuple(side.log_sum() if others else side.loss() for side in ctx.sides)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *upstream: Tensor) -> tuple[Tensor | None, ...]:
        image, text, scale = ctx.saved_tensors
        left, right = wide(image), wide(text)
        to_left, to_right, to_scale = (torch.zeros_like(part) for part in (left, right, scale))
        with torch.autocast(image.device.type, enabled=False):
            for rows in reversed(ctx.tiling[0]):
                query = left[rows] * scale
                for columns in reversed(ctx.tiling[1]):
                    tile, ctx.last = ctx.last, None  # the forward pass's last: a small batch is made only once
                    if tile is None:
                        tile = _tile(query @ right[columns].T, rows, columns, ctx.truth, others=ctx.others)
                    gradient = _gradient(ctx.sides, tile, upstream)
                    to_left[rows].addmm_(gradient, right[columns])
                    to_right[columns].addmm_(gradient.T, query)
                to_scale += (to_left[rows] * left[rows]).sum()
        return to_left.mul_(scale).to(image.dtype), to_right.to(text.dtype), to_scale, None, None, None


def _tile(scores: Tensor, rows: slice, columns: slice, truth: Truth, *, others: bool) -> Tile:
    """With what is true in it; or without, a true pair's weight taken off its exponential."""
    true = truth.within(rows, columns, like=scores)
    if not others:
        return Tile(scores, rows, columns, true)
    # not −inf, from which a row's greatest score could not be taken
    scores.index_put_((true.row, true.column), (-true.weight).log1p().clamp_min(NOTHING), accumulate=True)
    return Tile(scores, rows, columns, TrueEntries(*(part[:0] for part in true)))


def _gradient(sides: list[_Softmax], tile: Tile, upstream: tuple[Tensor, ...]) -> Tensor:
    """Of the sum of upstream · loss by a tile's scores, which are overwritten: (R,C)."""
    gradient = sides[0].gradient(tile, upstream[0], torch.empty_like(tile.scores))
    for side, value in zip(sides[1:], upstream[1:], strict=True):
        gradient += side.gradient(tile, value, tile.scores)
    return gradient
