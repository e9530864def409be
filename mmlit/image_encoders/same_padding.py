"""Convolutions as TensorFlow pads them, for weights that were trained there."""

import torch.nn.functional as F
from torch import Tensor, nn


def pad_same(model: nn.Module) -> None:
    """Every convolution with a stride pads as TensorFlow's `same`: the odd one more at the right and the bottom.

    Torchvision pads both ends alike, so that such weights would see every picture moved by a part of a pixel in each
    of these layers. Weights and their names stay as they are.
    """
    for layer in model.modules():
        if isinstance(layer, nn.Conv2d) and max(layer.stride) > 1:
            layer.padding = (0, 0)
            layer.register_forward_pre_hook(_pad)


def _pad(layer: nn.Module, inputs: tuple[Tensor]) -> tuple[Tensor]:
    if not isinstance(layer, nn.Conv2d):
        raise TypeError(f"{type(layer).__name__} is no convolution")
    (x,) = inputs
    ends: list[int] = []
    for size, kernel, stride, dilation in zip(
        x.shape[:-3:-1], layer.kernel_size[::-1], layer.stride[::-1], layer.dilation[::-1], strict=True
    ):
        total = max(0, (-(-size // stride) - 1) * stride + dilation * (kernel - 1) + 1 - size)
        ends += [total // 2, total - total // 2]
    return (F.pad(x, ends),)
