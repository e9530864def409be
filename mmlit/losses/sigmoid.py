"""The pairwise sigmoid contrastive loss on the cosines of a batch, without the matrix of all pairs."""

from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable

from mmlit.contracts import Pairs
from mmlit.losses.tiles import TrueEntries, Truth, checked, tiling, wide


def sigmoid(pairs: Pairs, scale: Tensor, bias: Tensor) -> Tensor:
    """Each image with each text is a question of its own: do they belong together?

    With logit l = scale · cosine + bias, image i costs Σ_j of softplus(−l) where text j is its own, softplus(l) where
    not, and the weighted sum of both for mixed pictures. Tile by tile the forward pass makes the gradient, too, for
    one weight of all rows, as means give them: so products of the two are three, and memory grows with N + M. For
    weights that differ the backward pass goes over the tiles again. It is in fp32, whatever autocast says.

    Args:
        pairs: unit vectors (N,E), (M,E) in `pooled`; ids decide what is true.
        scale: (), one divided by the temperature.
        bias: (), added to all logits; it and `scale` get gradients, too.

    Returns:
        (N,), ≥ 0, in nats, fp32 or wider: a value of each of this device's images, over all texts.

    Raises:
        ValueError: if the embeddings are not matrices of one width, or `scale` or `bias` is not a single number.

    Source: Zhai et al. 2023, "Sigmoid loss for language image pre-training", Sec. 3.2 and Alg. 1, arXiv 2303.15343.
    Differs: several positives per row.
    """
    image, text = pairs.image.pooled, pairs.all_text.pooled
    checked(image, text, scale, bias)
    with torch.autocast(image.device.type, enabled=False):
        value: Tensor = _Sigmoid.apply(image, text, scale, bias, Truth.of(pairs, pairs.image_rows, slice(None)))
    return value


class _Result(NamedTuple):
    """Values (N,); gradients (N,E), (M,E), () and () of their weighted sum, zeros where none were asked for."""

    value: Tensor
    image: Tensor
    text: Tensor
    scale: Tensor
    bias: Tensor


class _Sigmoid(Function):
    """Images (N,E), texts (M,E), scale, bias → (N,)."""

    @staticmethod
    def forward(  # noqa: PLR0917 - torch calls it so
        ctx: Any, image: Tensor, text: Tensor, scale: Tensor, bias: Tensor, truth: Truth
    ) -> Tensor:
        result = _over_tiles((image, text, scale, bias), truth, gradient=any(ctx.needs_input_grad))
        ctx.truth, ctx.gradients = truth, result[1:]
        ctx.save_for_backward(image, text, scale, bias)
        return result.value

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor | None, ...]:
        inputs, gradients = ctx.saved_tensors, ctx.gradients
        if len(upstream) and (upstream == upstream[0]).all():
            gradients = [upstream[0] * part for part in gradients]
        else:
            with torch.autocast(upstream.device.type, enabled=False):
                gradients = _over_tiles(inputs, ctx.truth, gradient=True, weight=upstream)[1:]
        return *(part.to(given.dtype) for part, given in zip(gradients, inputs, strict=True)), None


def _over_tiles(inputs: tuple[Tensor, ...], truth: Truth, *, gradient: bool, weight: Tensor | None = None) -> _Result:
    """Image, text, scale and bias → values and gradients; `weight` (N,) of the rows in these, None = 1."""
    left, right, scale, bias = (wide(part) for part in inputs)
    result = _Result(left.new_zeros(len(left)), *(torch.zeros_like(part) for part in (left, right, scale, bias)))
    all_rows, all_columns = tiling(left, right)
    for rows in all_rows:
        query = left[rows] * scale
        for columns in all_columns:
            logits = (query @ right[columns].T).add_(bias)
            true = truth.within(rows, columns, like=logits)
            result.value[rows] += _value(logits, true)
            if gradient:
                slope = _slope(logits, true)
                if weight is not None:
                    slope *= weight[rows, None]
                result.image[rows].addmm_(slope, right[columns])
                result.text[columns].addmm_(slope.T, query)
                result.bias.add_(slope.sum())
        result.scale.add_((result.image[rows] * left[rows]).sum())
    result.image.mul_(scale)
    return result


def _value(logits: Tensor, true: TrueEntries) -> Tensor:
    """Σ over a tile's columns (R,). Flips the sign of true pairs' logits, in place.

    For a true pair softplus(−l) + (1 − weight) · l, which keeps its digits where softplus(l) − weight · l would not.
    """
    own = logits[true.row, true.column]
    logits[true.row, true.column] = -own
    spare = logits.abs().neg_().exp_().log1p_()
    value = spare.sum(1) + torch.clamp_min(logits, 0, out=spare).sum(1)
    return value.index_add_(0, true.row, (1 - true.weight) * own)


def _slope(logits: Tensor, true: TrueEntries) -> Tensor:
    """Gradient of a tile's values by the logits, after `_value`; in their place."""
    slope = logits.sigmoid_()
    slope[true.row, true.column] = (1 - true.weight) - slope[true.row, true.column]
    return slope
