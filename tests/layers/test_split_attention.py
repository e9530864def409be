"""Torch's attention taken apart: the same numbers from layers that are called."""

import pytest
import torch
from torch import nn

from mmlit.layers.split_attention import SplitAttention, split_attentions

PADDING = torch.tensor([[False] * 5, [False] * 3 + [True] * 2])
CAUSAL = torch.triu(torch.ones(5, 5, dtype=torch.bool), 1)


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize(
    ("padding", "mask"),
    [(None, None), (PADDING, None), (None, CAUSAL), (PADDING, CAUSAL), (None, CAUSAL.expand(8, 5, 5))],
)
def test_equals_torch(bias, padding, mask):
    torch.manual_seed(0)
    attention = nn.MultiheadAttention(32, 4, bias=bias, batch_first=True)
    nn.init.normal_(attention.in_proj_weight, std=0.5)
    query, other = torch.randn(2, 5, 32), torch.randn(2, 5, 32)
    told = {"key_padding_mask": padding, "attn_mask": mask}
    expected, _ = attention(query, other, other + 1, need_weights=False, **told)
    found, _ = SplitAttention(attention)(query, other, other + 1, **told)
    torch.testing.assert_close(found, expected)


@torch.no_grad()
@pytest.mark.parametrize("norm_first", [True, False])
def test_every_layer_of_a_transformer_is_called(norm_first):
    """Also without gradients, where torch's own layers read the weights of theirs and call nothing."""
    torch.manual_seed(0)
    layer = nn.TransformerEncoderLayer(32, 4, 64, 0.0, "gelu", batch_first=True, norm_first=norm_first)
    tower = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False).eval()
    tokens = torch.randn(2, 5, 32)
    before = tower(tokens, src_key_padding_mask=PADDING)
    split_attentions(tower)
    after = tower(tokens, src_key_padding_mask=PADDING)
    torch.testing.assert_close(after[~PADDING], before[~PADDING])
    called = []
    linear = [part for part in tower.modules() if isinstance(part, nn.Linear)]
    for part in linear:
        # instead of a hook, which would itself keep torch from its fused path
        part.forward = lambda x, part=part: called.append(part) or nn.functional.linear(x, part.weight, part.bias)
    tower(tokens, src_key_padding_mask=PADDING)
    assert len(linear) == 12
    assert set(called) == set(linear)


def test_the_mode_stays_and_other_kinds_are_left():
    plain, other = nn.MultiheadAttention(32, 4, batch_first=True).eval(), nn.MultiheadAttention(32, 4)
    tower = nn.ModuleDict({"plain": plain, "other": other})
    split_attentions(tower)
    assert isinstance(tower["plain"], SplitAttention)
    assert not tower["plain"].training
    assert tower["other"] is other
