"""Torch's attention as four linear layers that are called one by one."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class SplitAttention(nn.Module):
    """What an `nn.MultiheadAttention` computes, with layers that something can be added to.

    The original keeps the weights of queries, keys and values in one matrix and never calls the layer of its output,
    so an adapter there would do nothing. The same holds for the fused path of `nn.TransformerEncoderLayer`.

    Args:
        attention: `batch_first`, with queries, keys and values of one width; its weights are copied.

    Differs: attention weights are not returned.
    """

    #: read by torch's transformer layers, which take no fused path where there is none
    in_proj_bias: None = None
    batch_first = True

    def __init__(self, attention: nn.MultiheadAttention) -> None:
        super().__init__()
        self.num_heads, self.dropout = attention.num_heads, attention.dropout
        biases = [None] * 3 if attention.in_proj_bias is None else attention.in_proj_bias.chunk(3)
        self.q_proj, self.k_proj, self.v_proj = map(_linear, attention.in_proj_weight.chunk(3), biases)
        self.out_proj = _linear(attention.out_proj.weight, attention.out_proj.bias)

    def forward(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        *,
        key_padding_mask: Tensor | None = None,
        attn_mask: Tensor | None = None,
        need_weights: bool = False,
        is_causal: bool = False,
    ) -> tuple[Tensor, None]:
        """(B,T,D), (B,S,D), (B,S,D) → (B,T,D) and None; masks as torch's: True, or −∞, is not attended to.

        `is_causal` says of torch's `attn_mask` what that says itself.
        """
        heads = (self.num_heads, -1)
        queries, keys, values = (
            layer(tokens).unflatten(-1, heads).transpose(1, 2)
            for layer, tokens in ((self.q_proj, query), (self.k_proj, key), (self.v_proj, value))
        )
        masks = [_additive(mask, query.dtype) for mask in (key_padding_mask, attn_mask) if mask is not None]
        if key_padding_mask is not None:
            masks[0] = masks[0][:, None, None]
        if attn_mask is not None and attn_mask.ndim == 3:
            masks[-1] = masks[-1].unflatten(0, (-1, self.num_heads))
        read = F.scaled_dot_product_attention(
            queries,
            keys,
            values,
            attn_mask=sum(masks[1:], masks[0]) if masks else None,
            dropout_p=self.dropout if self.training else 0.0,
        )
        return self.out_proj(read.transpose(1, 2).flatten(2)), None


def split_attentions(module: nn.Module) -> None:
    """Exchanges torch's attentions for these wherever `module` has them, but for kinds that no tower here has."""
    for part in list(module.modules()):
        for name, child in list(part.named_children()):
            if isinstance(child, nn.MultiheadAttention) and _is_plain(child):
                setattr(part, name, SplitAttention(child).train(child.training))


def _is_plain(attention: nn.MultiheadAttention) -> bool:
    same = attention.in_proj_weight is not None
    return attention.batch_first and same and attention.bias_k is None and not attention.add_zero_attn


def _linear(weight: Tensor, bias: Tensor | None) -> nn.Linear:
    made = nn.Linear(weight.shape[1], weight.shape[0], bias=bias is not None, device="meta").to_empty(device="cpu")
    with torch.no_grad():
        made.weight.copy_(weight)
        if bias is not None:
            made.bias.copy_(bias)
    return made


def _additive(mask: Tensor, dtype: torch.dtype) -> Tensor:
    return torch.zeros_like(mask, dtype=dtype).masked_fill(mask, -torch.inf) if mask.dtype == torch.bool else mask
