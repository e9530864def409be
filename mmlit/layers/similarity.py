"""Cosines and their temperature, always in fp32."""

import math

import torch
from torch import Tensor, nn

from mmlit.contracts import Encoded

#: e^MAX_LOG_SCALE = 100, the bound of Radford et al. 2021, Sec. 2.5, arXiv 2103.00020
MAX_LOG_SCALE = math.log(100)


def pooled_only(pooled: Tensor) -> Encoded:
    """What a dual encoder returns: (B,E) with tokens of length 0, so that nothing carries what nothing reads."""
    return Encoded(pooled.new_zeros(len(pooled), 0, pooled.shape[1]), pooled, pooled.new_zeros(len(pooled), 0).bool())


def cosine(image: Tensor, text: Tensor) -> Tensor:
    """Unit vectors (N,E) and (M,E) → (N,M) in fp32 even under autocast: low-precision products move ranks."""
    with torch.autocast(image.device.type, enabled=False):
        return image.float() @ text.float().T


class Temperature(nn.Module):
    """Divides cosines by a temperature, fixed or learned as the logarithm of its inverse.

    Args:
        initial: the temperature at the start; scores are *divided* by it.
        learn: whether `log_scale` = ln(1 / temperature) is a parameter.

    Raises:
        ValueError: if `initial` is not in [0.01, 1] for a learned temperature, or not > 0 for a fixed one.
    """

    def __init__(self, *, initial: float, learn: bool) -> None:
        super().__init__()
        if not initial > 0:
            raise ValueError(f"temperature must be > 0, got {initial}")
        log_scale = torch.tensor(-math.log(initial))
        if learn and not -1e-6 <= log_scale <= MAX_LOG_SCALE + 1e-6:
            raise ValueError(f"a learned temperature must start in [0.01, 1], got {initial}")
        if learn:
            self.log_scale = nn.Parameter(log_scale)
        else:
            self.register_buffer("log_scale", log_scale)

    def forward(self, cosines: Tensor) -> Tensor:
        """(…) cosines → (…) scores, fp32."""
        return cosines.float() * self.scale()

    def scale(self) -> Tensor:
        """(), 1 / temperature, fp32."""
        return self.log_scale.float().exp()

    @torch.no_grad()
    def clamp(self) -> None:
        """Keeps a learned `log_scale` in [0, ln 100]; after a step, so that its gradient never dies at a bound."""
        if isinstance(self.log_scale, nn.Parameter):
            self.log_scale.clamp_(0, MAX_LOG_SCALE)
