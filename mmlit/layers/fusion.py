"""A deep fusion encoder: the words of a text read the patches of an image."""

import torch
from torch import Tensor, nn

from mmlit.contracts import Encoded

#: pairs that are fused at least at a time, and parts that a batch is split into at most
_LEAST, _MOST = 32, 4


class FusionEncoder(nn.Module):
    """Transformer layers over the text's tokens, each with cross-attention to the image's; pooled by their mean.

    Args:
        dim: width of both sides' tokens, a multiple of `num_heads`.
        num_layers: layers, ≥ 1.
        num_heads: attention heads.
        dropout: in [0, 1).

    Raises:
        ValueError: if a number is out of range.

    Source: Li et al. 2021 (ALBEF), Sec. 3.1, arXiv 2107.07651.
    Differs: the text's tokens are pooled by their mean, since not every text encoder has a [CLS] token.
    """

    def __init__(self, *, dim: int, num_layers: int, num_heads: int, dropout: float) -> None:
        super().__init__()
        if num_layers < 1:
            raise ValueError(f"num_layers must be >= 1, got {num_layers}")
        if num_heads < 1 or dim < num_heads or dim % num_heads:
            raise ValueError(f"token_dim must be a multiple of num_heads, got token_dim={dim}, num_heads={num_heads}")
        if not 0 <= dropout < 1:
            raise ValueError(f"dropout must lie in [0, 1), got {dropout}")
        layer = nn.TransformerDecoderLayer(dim, num_heads, 4 * dim, dropout, "gelu", batch_first=True, norm_first=True)
        # BERT's layers, which ALBEF's are, have no dropout on the widened vectors, whose draws would cost a CPU most.
        layer.dropout.p = 0.0
        self.layers = nn.TransformerDecoder(layer, num_layers, nn.LayerNorm(dim))

    def forward(self, image: Encoded, text: Encoded) -> Tensor:
        """Image b with text b, b = 1…B → fused vector (B,E).

        Texts of like length are fused together: captions differ so much that half of a batch would be padding.
        """
        order = text.ends().argsort(stable=True)
        parts = order.chunk(max(1, min(_MOST, len(order) // _LEAST)))
        fused = [self._fuse(image.take(part), text.take(part).trimmed()) for part in parts]
        return torch.cat(fused)[order.argsort()]

    def words(self, image: Encoded, text: Encoded) -> Tensor:
        """Image b with text b, b = 1…B → fused words (B,L,E), not pooled."""
        fused: Tensor = self.layers(
            text.tokens, image.tokens, tgt_key_padding_mask=~text.mask, memory_key_padding_mask=~image.mask
        )
        return fused

    def _fuse(self, image: Encoded, text: Encoded) -> Tensor:
        fused = self.words(image, text)
        weight = text.mask.to(fused.dtype)[..., None]
        return (fused * weight).sum(1) / weight.sum(1).clamp_min(1)


def in_chunks(image: Encoded, text: Encoded, size: int) -> "list[tuple[Encoded, Encoded]]":
    """All N × M pairs, image-major, as aligned batches of at most `size` pairs."""
    num_texts = len(text.pooled)
    pairs = torch.arange(len(image.pooled) * num_texts, device=image.pooled.device)
    return [(image.take(part // num_texts), text.take(part % num_texts)) for part in pairs.split(size)]
