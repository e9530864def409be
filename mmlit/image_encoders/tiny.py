"""A small image encoder that learns rendered scenes from scratch in about a minute on one core."""

from itertools import pairwise

import torch
from torch import Tensor, nn

from mmlit.contracts import Encoded, ImageEncoder, ImageSpec


class TinyImageEncoder(ImageEncoder):
    """Convolutions down to a grid of size/8 × size/8 tokens, then transformer layers; pooled by the mean.

    Args:
        size: picture side in px, a multiple of 8.
        dim: D, a multiple of 32.
        num_layers: transformer layers, ≥ 0.
        freeze: whether nothing moves.

    Raises:
        ValueError: if `size` or `dim` does not fit.

    Source: convolutional stem before a transformer as in Xiao et al. 2021, "Early convolutions help transformers see
    better", arXiv 2106.14881.
    """

    def __init__(self, *, size: int, dim: int, num_layers: int, freeze: bool) -> None:
        super().__init__()
        if size < 8 or size % 8:
            raise ValueError(f"size must be a multiple of 8, got {size}")
        if dim < 32 or dim % 32:
            raise ValueError(f"dim must be a multiple of 32, got {dim}")
        if num_layers < 0:
            raise ValueError(f"num_layers must be >= 0, got {num_layers}")
        self.spec = ImageSpec(dim=dim, size=size, resize="squash", interpolation="bilinear")
        widths = (3, dim // 4, dim // 2, dim)
        stem: list[nn.Module] = []
        for width_in, width_out in pairwise(widths):
            stem += [nn.Conv2d(width_in, width_out, 3, 2, 1), nn.GroupNorm(4, width_out), nn.GELU()]
        self.stem = nn.Sequential(*stem)
        self.position = nn.Parameter(0.02 * torch.randn((size // 8) ** 2, dim))
        layers = (
            nn.TransformerEncoderLayer(dim, dim // 32, 2 * dim, 0.0, "gelu", batch_first=True, norm_first=True)
            for _ in range(num_layers)
        )
        self.layers = nn.Sequential(*layers)
        self.norm = nn.LayerNorm(dim)
        if freeze:
            self.freeze()

    def forward(self, pixels: Tensor) -> Encoded:
        """(N,3,H,W) in 0…255 → tokens (N,P,D) row by row from the top left, pooled (N,D), mask all True."""
        grid = self.stem(pixels.float() / 127.5 - 1)
        tokens = self.norm(self.layers(grid.flatten(2).transpose(1, 2) + self.position))
        return Encoded(tokens, tokens.mean(1), tokens.new_ones(tokens.shape[:2], dtype=torch.bool))
