"""Cross-attention: the attended vectors are formed explicitly here, which the module never does."""

import math
from typing import NamedTuple

import pytest
import torch
import torch.nn.functional as F
from contract.alignment_inputs import IMAGE, TEXT, Input, batch_of, padded, pairs_of
from torch import Tensor

from mmlit.alignments.cross_attention import CHUNK, MAX_SHARPNESS, CrossAttention
from mmlit.contracts import Encoded
from mmlit.layers.heads import HeadKind

HEADS = 3
DIM = 12


def cross_attention(
    *,
    dim: int | None = 5,
    image_head: HeadKind = "linear",
    text_head: HeadKind = "linear",
    token_dim: int = DIM,
    num_heads: int = HEADS,
    dropout: float = 0.0,
    sharpness: float = 5.0,
    temperature: float = 0.2,
    learn_temperature: bool = True,
) -> CrossAttention:
    torch.manual_seed(0)
    alignment = CrossAttention(
        image=IMAGE,
        text=TEXT,
        dim=dim,
        image_head=image_head,
        text_head=text_head,
        token_dim=token_dim,
        num_heads=num_heads,
        dropout=dropout,
        sharpness=sharpness,
        temperature=temperature,
        learn_temperature=learn_temperature,
    )
    # each head and direction its own, so that no two can be confused
    offsets = torch.arange(2.0 * num_heads) / 10
    alignment.log_sharpness.data.sub_(offsets)
    return alignment


class Projected(NamedTuple):
    """Queries, keys and values (B,T,heads,E/heads), unit pooled vectors, mask (B,T)."""

    query: Tensor
    key: Tensor
    value: Tensor
    pooled: Tensor
    mask: Tensor


def projected(alignment: CrossAttention, side: str, encoded: Encoded) -> Projected:
    """From the encoder's output by the text of the docstring: width E, normalized, residual q, k, v, heads."""
    weights = alignment.image_tokens if side == "image" else alignment.text_tokens
    tokens = F.normalize(F.linear(encoded.tokens, weights.token.weight, weights.token.bias), dim=-1)
    layer = weights.query_key_value
    parts = [
        tokens + F.linear(tokens, weight, bias)
        for weight, bias in zip(layer.weight.chunk(3), layer.bias.chunk(3), strict=True)
    ]
    query, key, value = (part.view(*part.shape[:2], HEADS, DIM // HEADS) for part in parts)
    head = alignment.space.image if side == "image" else alignment.space.text
    pooled = F.linear(encoded.pooled, head.weight, head.bias)  # type: ignore[arg-type]
    return Projected(
        query / query.norm(dim=-1, keepdim=True),
        key / key.norm(dim=-1, keepdim=True),
        value,
        pooled / pooled.norm(dim=-1, keepdim=True),
        encoded.mask,
    )


def weights_of(asking: Projected, a: int, asked: Projected, b: int, head: int, sharpness: Tensor) -> Tensor:
    """softmax over the tokens that count of sharpness · cosine(query, key): (T of asking a, kept tokens of asked b)."""
    query, key = asking.query[a, asking.mask[a], head], asked.key[b, asked.mask[b], head]
    return (sharpness * query @ key.T).softmax(-1)


def local_score(asking: Projected, a: int, asked: Projected, b: int, log_sharpness: Tensor) -> Tensor:
    """Mean over heads and tokens of the cosine between a token's query and the vector that it attends to."""
    cosines = []
    for head in range(HEADS):
        weights = weights_of(asking, a, asked, b, head, log_sharpness[head].exp())
        attended = weights @ asked.value[b, asked.mask[b], head]
        cosines.append(F.cosine_similarity(asking.query[a, asking.mask[a], head], attended, dim=-1))
    return torch.stack(cosines).mean()


def slow(alignment: CrossAttention, given: Input) -> Tensor:
    """All scores, pair by pair."""
    image, text = projected(alignment, "image", given.image), projected(alignment, "text", given.text)
    rows = []
    for n in range(len(image.pooled)):
        row = []
        for m in range(len(text.pooled)):
            words = local_score(text, m, image, n, alignment.log_sharpness[:HEADS])
            patches = local_score(image, n, text, m, alignment.log_sharpness[HEADS:])
            row.append(0.5 * (image.pooled[n] @ text.pooled[m] + 0.5 * (words + patches)))
        rows.append(torch.stack(row))
    return torch.stack(rows)


def batch() -> Input:
    """More items than one chunk on both sides, texts of different lengths, images with padding too."""
    ids = list(range(CHUNK + 1))
    given = batch_of(ids, [*ids, 3])
    return given._replace(image=padded(given.image, 2), text=padded(given.text, 1))


@pytest.mark.parametrize("training", [True, False])
def test_scores_equal_the_explicit_attention(training: bool) -> None:
    alignment, given = cross_attention().train(training), batch()
    image, text = alignment.embed_image(given.image), alignment.embed_text(given.text)
    with torch.set_grad_enabled(training):
        scores = alignment.score(image, text)
    torch.testing.assert_close(scores, slow(alignment, given), rtol=1e-5, atol=1e-5)


def test_gradients_equal_those_of_the_explicit_attention() -> None:
    """Of random weights on all scores, for every parameter: the recomputed chunks lose nothing."""
    alignment, given = cross_attention(), batch()
    cotangent = torch.randn(CHUNK + 1, CHUNK + 2, generator=torch.Generator().manual_seed(1))
    parameters = {name: p for name, p in alignment.named_parameters() if "temperature" not in name}
    scores = alignment.score(alignment.embed_image(given.image), alignment.embed_text(given.text))
    fast, explicit = (
        torch.autograd.grad((cotangent * values).sum(), list(parameters.values()))
        for values in (scores, slow(alignment, given))
    )
    for name, one, other in zip(parameters, fast, explicit, strict=True):
        assert other.abs().max() > 1e-3, f"{name} must have a gradient that can be compared"
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-5, msg=lambda text, n=name: f"{n}: {text}")


def test_losses_are_both_directions_of_the_score() -> None:
    """Traps 8 and 17: scores over 0.2; an image that is twice in the batch has all of its captions as positives."""
    alignment, given = cross_attention(), batch_of([3, 1, 4, 1], [1, 4, 3, 1, 1])
    scores = slow(alignment, given) / 0.2
    true = given.image_id[:, None] == given.text_image_id
    terms = alignment.losses(pairs_of(alignment, given))
    assert list(terms) == ["i2t", "t2i"]
    for name, logits, own in (("i2t", scores, true), ("t2i", scores.T, true.T)):
        expected = [-0.5 * row.log_softmax(0)[kept].mean() for row, kept in zip(logits, own, strict=True)]
        torch.testing.assert_close(terms[name], torch.stack(expected), rtol=1e-4, atol=1e-5)


def test_the_attention_map_is_of_the_weights_that_are_used() -> None:
    """The words' softmax over patches, averaged over heads; nothing on padding."""
    alignment, given = cross_attention(), batch()
    image, text = projected(alignment, "image", given.image), projected(alignment, "text", given.text)
    own = given.text.take(slice(0, CHUNK + 1))
    maps = alignment.attention_map(alignment.embed_image(given.image), alignment.embed_text(own))
    assert maps.shape == (CHUNK + 1, given.text.tokens.shape[1], 6)
    for b in range(CHUNK + 1):
        heads = [weights_of(text, b, image, b, head, alignment.log_sharpness[head].exp()) for head in range(HEADS)]
        words, patches = text.mask[b], image.mask[b]
        torch.testing.assert_close(maps[b][words][:, patches], torch.stack(heads).mean(0), rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(maps[b][words].sum(-1), torch.ones(int(words.sum())))
        assert torch.equal(maps[b][:, ~patches], torch.zeros(len(words), int((~patches).sum())))


def test_a_copied_patch_is_found() -> None:
    """A closed form: one word, one patch. Whatever the sharpness, the attended vector is the patch's value."""
    alignment, given = cross_attention(sharpness=MAX_SHARPNESS), batch_of([1], [1])
    one = given._replace(
        image=Encoded(given.image.tokens[:, :1], given.image.pooled, given.image.mask[:, :1]),
        text=Encoded(given.text.tokens[:, :1], given.text.pooled, given.text.mask[:, :1]),
    )
    image, text = projected(alignment, "image", one.image), projected(alignment, "text", one.text)
    word = F.cosine_similarity(text.query[0, 0], image.value[0, 0], dim=-1).mean()
    patch = F.cosine_similarity(image.query[0, 0], text.value[0, 0], dim=-1).mean()
    expected = 0.5 * (image.pooled[0] @ text.pooled[0] + 0.5 * (word + patch))
    score = alignment.score(alignment.embed_image(one.image), alignment.embed_text(one.text))
    torch.testing.assert_close(score, expected.view(1, 1))


def test_the_sharpest_attention_is_finite_and_still_exact() -> None:
    """At the upper bound the weights span e^±30, without a softmax's shift: no overflow, no lost weight."""
    alignment, given = cross_attention(), batch()
    alignment.log_sharpness.data.fill_(math.log(MAX_SHARPNESS))
    scores = alignment.score(alignment.embed_image(given.image), alignment.embed_text(given.text))
    torch.testing.assert_close(scores, slow(alignment, given), rtol=1e-5, atol=2e-5)


def test_nothing_per_pair_and_token_is_kept_for_the_backward_pass() -> None:
    """Memory: what autograd keeps of 64 × 64 pairs is a small part of one attended vector per pair and token."""
    alignment, ids = cross_attention(), list(range(64))
    given = batch_of(ids, ids)
    image, text = alignment.embed_image(given.image), alignment.embed_text(given.text)
    kept: list[Tensor] = []

    def note(tensor: Tensor) -> Tensor:
        kept.append(tensor)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        scores = alignment.score(image, text)
    size = sum({t.untyped_storage().data_ptr(): t.untyped_storage().nbytes() for t in kept}.values())
    attended = scores.numel() * (text.tokens.shape[1] + image.tokens.shape[1]) * DIM * 4
    assert 0 < size < attended / 4


def test_after_a_step_sharpness_and_temperature_are_in_bounds() -> None:
    """Trap 16."""
    alignment, given = cross_attention(), batch_of([1, 2], [1, 2])
    pairs = pairs_of(alignment, given)
    alignment.log_sharpness.data.fill_(9.0)
    alignment.temperature.log_scale.data.fill_(-1.0)
    alignment.after_step(pairs)
    torch.testing.assert_close(alignment.log_sharpness.detach().exp(), torch.full((2 * HEADS,), MAX_SHARPNESS))
    assert alignment.temperature.log_scale.item() == 0


def test_an_identity_head_is_for_the_pooled_vectors_only() -> None:
    """The tokens attend in their own width, whatever the shared space."""
    alignment, given = cross_attention(dim=None, image_head="identity"), batch()
    image, text = alignment.embed_image(given.image), alignment.embed_text(given.text)
    assert image.pooled.shape[1] == text.pooled.shape[1] == IMAGE.dim
    assert image.tokens.shape[2] == text.tokens.shape[2] == 3 * DIM
    torch.testing.assert_close(image.pooled, F.normalize(given.image.pooled, dim=-1))


def test_a_fixed_temperature_has_no_parameter() -> None:
    alignment = cross_attention(learn_temperature=False, temperature=3.0)
    assert not [name for name, _ in alignment.named_parameters() if "temperature" in name]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"token_dim": 10}, "token_dim must be a multiple of num_heads, got token_dim=10, num_heads=3"),
        ({"num_heads": 0}, "token_dim must be a multiple of num_heads, got token_dim=12, num_heads=0"),
        ({"token_dim": 0}, "token_dim must be a multiple of num_heads, got token_dim=0, num_heads=3"),
        ({"dropout": 1.0}, r"dropout must lie in \[0, 1\), got 1.0"),
        ({"dropout": -0.1}, r"dropout must lie in \[0, 1\), got -0.1"),
        ({"sharpness": 0.0}, r"sharpness must lie in \(0, 30.0\], got 0.0"),
        ({"sharpness": 31.0}, r"sharpness must lie in \(0, 30.0\], got 31.0"),
        ({"temperature": 0.001}, r"a learned temperature must start in \[0.01, 1\], got 0.001"),
        ({"temperature": -1.0, "learn_temperature": False}, "temperature must be > 0, got -1.0"),
        ({"dim": 0}, "dim must be >= 1, got 0"),
        ({"dim": None}, r"alignment\.dim may be null only where one head is identity"),
        ({"image_head": "identity"}, r"keeps the encoder's width 32, .* dim 5: set alignment\.dim=32 \(or null\)"),
    ],
)
def test_wrong_options_are_refused_by_name(options: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        cross_attention(**options)  # type: ignore[arg-type]
