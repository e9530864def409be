"""What an image encoder returns and depends on, found with one black picture before anything is read."""

from typing import NamedTuple

import torch
from torch import nn

from mmlit.contracts import Encoded


class Shapes(NamedTuple):
    """Of what a tower returns for one picture: tokens (1,P,D) and pooled (1,D)."""

    tokens: torch.Size
    pooled: torch.Size


def shapes(tower: nn.Module, size: int) -> Shapes:
    """`tower` maps pixels (N,3,H,W) to `Encoded`; H = W = `size`.

    Raises:
        RuntimeError: if the tower cannot take a picture of this size.
    """
    with torch.no_grad():
        encoded = _run(tower, size)
    return Shapes(encoded.tokens.shape, encoded.pooled.shape)


def unreached(tower: nn.Module, size: int) -> frozenset[str]:
    """Names of the trained parameters that `pooled` does not depend on: a loss of it leaves them without gradient."""
    trained = {name: parameter for name, parameter in tower.named_parameters() if parameter.requires_grad}
    with torch.enable_grad():
        found = torch.autograd.grad(_run(tower, size).pooled.sum(), list(trained.values()), allow_unused=True)
    return frozenset(name for name, gradient in zip(trained, found, strict=True) if gradient is None)


def _run(tower: nn.Module, size: int) -> Encoded:
    """In evaluation mode, so that no statistic moves; afterwards every part has the mode that it had."""
    modes = {module: module.training for module in tower.modules()}
    try:
        encoded: Encoded = tower.eval()(torch.zeros(1, 3, size, size))
    finally:
        for module, mode in modes.items():
            module.training = mode
    return encoded
