"""CLIP's activation in half the passes over memory."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

_SLOPE = 1.702


class QuickGelu(nn.Module):
    """x · σ(1.702 x) as silu(1.702 x) / 1.702, whose derivative is silu's: two passes less forward, four backward.

    Source: Hendrycks, Gimpel 2016, "Gaussian error linear units", Sec. 2, arXiv 1606.08415.
    """

    def forward(self, x: Tensor) -> Tensor:
        """(…) → (…)."""
        return _QuickGelu.apply(x)


class _QuickGelu(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        steep = x * _SLOPE
        ctx.save_for_backward(steep)
        return F.silu(steep).mul_(1 / _SLOPE)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        (steep,) = ctx.saved_tensors
        return torch.ops.aten.silu_backward(gradient, steep)


def quicken(tower: nn.Module) -> None:
    """Exchanges the library's module for that activation, which has no weights, wherever `tower` has it."""
    for module in list(tower.modules()):
        for name, part in list(module.named_children()):
            if type(part).__name__ == "QuickGELUActivation":
                setattr(module, name, QuickGelu())
