"""The deep fusion encoder."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmlit.contracts import Encoded
from mmlit.layers.fusion import FusionEncoder, in_chunks

DIM = 8


def items(count: int, length: int, seed: int) -> Encoded:
    """Items of 1 … `length` tokens, the rest masked garbage."""
    generator = torch.Generator().manual_seed(seed)
    mask = torch.arange(length) < torch.arange(count)[:, None] % length + 1
    tokens = torch.randn(count, length, DIM, generator=generator)
    return Encoded(tokens.masked_fill(~mask[..., None], 50.0), torch.randn(count, DIM, generator=generator), mask)


def fusion(num_layers: int = 2, dropout: float = 0.0) -> FusionEncoder:
    torch.manual_seed(0)
    encoder = FusionEncoder(dim=DIM, num_layers=num_layers, num_heads=2, dropout=dropout)
    for parameter in encoder.parameters():  # norms and biases that are not 1 and 0
        nn.init.normal_(parameter, std=0.4)
    return encoder


def attend(layer: nn.MultiheadAttention, asking: Tensor, asked: Tensor) -> Tensor:
    """softmax(q kᵀ / √d) v, head by head and token by token, without masks: (L,E), (S,E) → (L,E)."""
    weight, bias = layer.in_proj_weight.chunk(3), layer.in_proj_bias.chunk(3)
    query, key, value = (F.linear(x, w, b) for x, w, b in zip((asking, asked, asked), weight, bias, strict=True))
    width = DIM // layer.num_heads
    rows = []
    for token in range(len(asking)):
        heads = []
        for head in range(layer.num_heads):
            part = slice(head * width, (head + 1) * width)
            weights = torch.stack([query[token, part] @ k for k in key[:, part]]).div(width**0.5).softmax(0)
            heads.append(sum(w * v for w, v in zip(weights, value[:, part], strict=True)))
        rows.append(torch.cat(heads))  # type: ignore[arg-type]
    return layer.out_proj(torch.stack(rows))


def slow(encoder: FusionEncoder, image: Tensor, text: Tensor) -> Tensor:
    """One pair without padding: pre-norm self-attention, cross-attention, feed-forward, last norm, mean over words."""
    x = text
    for layer in encoder.layers.layers:
        normed = layer.norm1(x)
        x = x + attend(layer.self_attn, normed, normed)
        x = x + attend(layer.multihead_attn, layer.norm2(x), image)
        x = x + layer.linear2(F.gelu(layer.linear1(layer.norm3(x))))
    return encoder.layers.norm(x).mean(0)


@pytest.mark.parametrize("training", [True, False])
def test_equals_the_loops_over_pairs_heads_and_tokens(training: bool) -> None:
    encoder, image, text = fusion().train(training), items(5, 3, 1), items(5, 4, 2)
    expected = [
        slow(encoder, patches[kept], words[own])
        for patches, kept, words, own in zip(image.tokens, image.mask, text.tokens, text.mask, strict=True)
    ]
    torch.testing.assert_close(encoder(image, text), torch.stack(expected), rtol=1e-4, atol=1e-5)


def test_no_other_pair_of_the_batch_matters() -> None:
    """Trap 21: attention over the batch would make pair 2 depend on pairs 0, 1, 3 and 4."""
    encoder, image, text = fusion(), items(5, 3, 1), items(5, 4, 2)
    whole = encoder(image, text)
    for pair in range(5):
        alone = slice(pair, pair + 1)
        torch.testing.assert_close(encoder(image.take(alone), text.take(alone)), whole[alone], rtol=1e-4, atol=1e-5)


def test_nothing_flows_between_pairs() -> None:
    """Trap 21: the gradient of one pair's vector ends at its own tokens, and at those that count."""
    encoder, image, text = fusion(), items(5, 3, 1), items(5, 4, 2)
    for side in (image, text):
        side.tokens.requires_grad_()
    encoder(image, text)[2].pow(2).sum().backward()
    for side in (image, text):
        assert side.tokens.grad is not None
        reached = side.tokens.grad.abs().sum(-1) > 0
        expected = torch.zeros_like(side.mask)
        expected[2] = side.mask[2]
        assert torch.equal(reached, expected)


def test_the_image_is_read() -> None:
    encoder, image, text = fusion(num_layers=1), items(5, 3, 1), items(5, 4, 2)
    assert (encoder(image, text) - encoder(image.take(torch.arange(5).flip(0)), text))[[0, 1, 3, 4]].abs().min() > 1e-6


@pytest.mark.parametrize("size", [1, 4, 5, 7, 20, 100])
def test_chunks_are_all_pairs_image_major(size: int) -> None:
    image, text = items(4, 3, 1), items(5, 4, 2)
    chunks = in_chunks(image, text, size)
    assert all(len(left.pooled) == len(right.pooled) <= size for left, right in chunks)
    expected = [(n, m) for n in range(4) for m in range(5)]
    left, right = (torch.cat([pair[side].pooled for pair in chunks]) for side in (0, 1))
    assert torch.equal(left, torch.stack([image.pooled[n] for n, _ in expected]))
    assert torch.equal(right, torch.stack([text.pooled[m] for _, m in expected]))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_layers": 0}, "num_layers must be >= 1, got 0"),
        ({"num_heads": 0}, "token_dim must be a multiple of num_heads, got token_dim=8, num_heads=0"),
        ({"num_heads": 3}, "token_dim must be a multiple of num_heads, got token_dim=8, num_heads=3"),
        ({"dropout": 1.0}, r"dropout must lie in \[0, 1\), got 1.0"),
        ({"dropout": -0.5}, r"dropout must lie in \[0, 1\), got -0.5"),
    ],
)
def test_wrong_numbers_are_refused(options: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        FusionEncoder(**{"dim": DIM, "num_layers": 1, "num_heads": 2, "dropout": 0.0, **options})  # type: ignore[arg-type]


def test_texts_fused_in_groups_of_like_length_give_the_same():
    encoder, image, text = fusion(), items(130, 3, 1), items(130, 9, 2)
    alone = torch.cat([encoder(image.take(slice(i, i + 1)), text.take(slice(i, i + 1))) for i in range(130)])
    assert torch.allclose(encoder(image, text), alone, atol=1e-5)
