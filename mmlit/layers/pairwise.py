"""Scores of all pairs, block by block, from what is made once per item."""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from mmlit.contracts import Encoded, Pairs

#: how many times longer a block's sides are where a small one is not worth the start of its kernels
GPU_FACTOR = 8


def all_pairs(score: Callable[[Tensor, Tensor], Tensor], image: Tensor, text: Tensor, *, side: int) -> Tensor:
    """`score`, a function (n,·), (m,·) → (n,m), on blocks of the images (N,·) and the texts (M,·) → (N,M).

    A block has at most `side` × `side` pairs, so that what is made of it stays in a core's cache. Where gradients are
    wanted it is made again in the backward pass, and nothing of N × M pairs but their scores is kept. `score` draws no
    random numbers.
    """
    side = side if image.device.type == "cpu" else GPU_FACTOR * side
    rows = [torch.cat([_block(score, part, other) for other in text.split(side)], dim=1) for part in image.split(side)]
    return torch.cat(rows)


def _block(score: Callable[[Tensor, Tensor], Tensor], image: Tensor, text: Tensor) -> Tensor:
    if torch.is_grad_enabled():
        return checkpoint(score, image, text, use_reentrant=False, preserve_rng_state=False)
    return score(image, text)


def both_ways(score: Callable[[Encoded, Encoded], Tensor], pairs: Pairs) -> tuple[Tensor, Tensor]:
    """This device's images against all texts, and its texts against all images; scored once where it is alone."""
    i2t = score(pairs.image, pairs.all_text)
    alone = pairs.all_image is pairs.image and pairs.all_text is pairs.text
    return i2t, i2t.T if alone else score(pairs.all_image, pairs.text).T
