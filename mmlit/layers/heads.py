"""Heads that carry two encoders' vectors into one space."""

from typing import Literal

import torch.nn.functional as F
from torch import Tensor, nn

from mmlit.contracts import ImageSpec, TextSpec

HeadKind = Literal["identity", "linear", "mlp", "gated"]


class GatedUnit(nn.Module):
    """z = W x + b, then z ∘ σ(V z + c).

    Source: Miech, Laptev, Sivic 2018, "Learning a text-video embedding from incomplete and heterogeneous data",
    Sec. 3.2 (gated embedding unit), arXiv 1804.02516.
    """

    def __init__(self, *, dim_in: int, dim_out: int) -> None:
        super().__init__()
        self.linear = nn.Linear(dim_in, dim_out)
        self.gate = nn.Linear(dim_out, dim_out)

    def forward(self, x: Tensor) -> Tensor:
        """(…,dim_in) → (…,dim_out)."""
        z = self.linear(x)
        return z * self.gate(z).sigmoid()


def head(kind: HeadKind, *, dim_in: int, dim_out: int, dropout: float) -> nn.Module:
    """One side's head (…,dim_in) → (…,dim_out).

    Raises:
        ValueError: if `kind` is not one of the four, or is `identity` with `dim_in` ≠ `dim_out`.
    """
    if kind == "linear":
        return nn.Linear(dim_in, dim_out)
    if kind == "mlp":
        hidden = max(dim_in, dim_out)
        return nn.Sequential(
            nn.LayerNorm(dim_in),
            nn.Linear(dim_in, hidden),
            nn.GELU(),
            nn.Dropout(dropout),
            nn.Linear(hidden, dim_out),
        )
    if kind == "gated":
        return GatedUnit(dim_in=dim_in, dim_out=dim_out)
    if kind != "identity":
        raise ValueError(f"a head must be identity, linear, mlp or gated, got {kind!r}")
    if dim_in != dim_out:
        raise ValueError(
            f"an identity head keeps the encoder's width {dim_in}, but the shared space has dim {dim_out}: "
            f"set alignment.dim={dim_in} (or null)"
        )
    return nn.Identity()


class SharedSpace(nn.Module):
    """The pair of heads: pooled vectors of both encoders → unit vectors of one space.

    Args:
        image: the image encoder's spec.
        text: the text encoder's spec.
        dim: E, the width of the shared space; None = the width of the side whose head is `identity`.
        image_head: kind of the image side's head; `identity` maps the texts into the image encoder's own space.
        text_head: kind of the text side's head.
        dropout: in [0, 1), on the encoders' vectors, and inside `mlp` heads.
        of_one_width: whether both sides must be E wide; if not, and both heads are `identity`, E = None leaves either
            side as wide as its encoder: unit vectors of `widths`, which are not compared with each other.

    Raises:
        ValueError: if `dim` is None and no head is `identity`, the widths do not fit, or `dropout` is out of range.
    """

    def __init__(
        self,
        *,
        image: ImageSpec,
        text: TextSpec,
        dim: int | None,
        image_head: HeadKind,
        text_head: HeadKind,
        dropout: float,
        of_one_width: bool = True,
    ) -> None:
        super().__init__()
        if not 0 <= dropout < 1:
            raise ValueError(f"dropout must lie in [0, 1), got {dropout}")
        self.widths = (image.dim, text.dim)
        if of_one_width or dim is not None or (image_head, text_head) != ("identity", "identity"):
            self.widths = (_width(dim, image=image, text=text, image_head=image_head, text_head=text_head),) * 2
        self.dropout = nn.Dropout(dropout)
        self.image = head(image_head, dim_in=image.dim, dim_out=self.widths[0], dropout=dropout)
        self.text = head(text_head, dim_in=text.dim, dim_out=self.widths[1], dropout=dropout)

    @property
    def dim(self) -> int:
        """E, where both sides are that wide."""
        return self.widths[0]

    def embed_image(self, pooled: Tensor) -> Tensor:
        """(N,D) → unit vectors (N,E), fp32."""
        return F.normalize(self.image(self.dropout(pooled)).float(), dim=-1)

    def embed_text(self, pooled: Tensor) -> Tensor:
        """(M,D) → unit vectors (M,E), fp32."""
        return F.normalize(self.text(self.dropout(pooled)).float(), dim=-1)


def _width(dim: int | None, *, image: ImageSpec, text: TextSpec, image_head: HeadKind, text_head: HeadKind) -> int:
    """E of a space that both sides share; arguments as `SharedSpace` has them."""
    if dim is None:
        if "identity" not in (image_head, text_head):
            raise ValueError("alignment.dim may be null only where one head is identity")
        dim = image.dim if image_head == "identity" else text.dim
    if dim < 1:
        raise ValueError(f"dim must be >= 1, got {dim}")
    return dim
