"""Text-conditioned pooling: pair by pair, head by head, in plain loops."""

import math

import pytest
import torch
import torch.nn.functional as F
from contract.alignment_inputs import IMAGE, TEXT, Input, batch_of, padded, pairs_of
from torch import Tensor

from mmlit.alignments.text_conditioned import TextConditioned
from mmlit.contracts import Encoded
from mmlit.layers.heads import HeadKind

HEADS, DIM = 3, 12


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """All scores of this file come in several blocks, the last ones smaller."""
    monkeypatch.setattr("mmlit.alignments.text_conditioned.SIDE", 3)


def text_conditioned(
    *,
    dim: int | None = DIM,
    image_head: HeadKind = "linear",
    text_head: HeadKind = "linear",
    num_heads: int = HEADS,
    dropout: float = 0.0,
    temperature: float = 0.2,
    learn_temperature: bool = True,
) -> TextConditioned:
    torch.manual_seed(0)
    return TextConditioned(
        image=IMAGE,
        text=TEXT,
        dim=dim,
        image_head=image_head,
        text_head=text_head,
        num_heads=num_heads,
        dropout=dropout,
        temperature=temperature,
        learn_temperature=learn_temperature,
    )


def wide(encoded: Encoded) -> Encoded:
    """In fp64."""
    return Encoded(encoded.tokens.double(), encoded.pooled.double(), encoded.mask)


def batch() -> Input:
    """An image that comes twice, texts of different lengths, padding on both sides."""
    given = batch_of([3, 1, 4, 1, 7], [1, 4, 3, 1, 1, 7, 3])
    return given._replace(image=wide(padded(given.image, 2)), text=wide(padded(given.text, 1)))


def unit_texts(alignment: TextConditioned, text: Encoded) -> Tensor:
    """Not by way of `embed_text`, which is fp32."""
    vectors = alignment.space.text(text.pooled)
    return vectors / vectors.norm(dim=1, keepdim=True)


def weights_of(alignment: TextConditioned, image: Encoded, n: int, text: Tensor, head: int) -> tuple[Tensor, Tensor]:
    """One text over the kept patches of image n: softmax with an empty token (its weight first), and the values."""
    width, at = DIM // HEADS, slice(head * DIM // HEADS, (head + 1) * DIM // HEADS)
    key_weight, value_weight = alignment.key_value.weight.chunk(2)
    key_bias, value_bias = alignment.key_value.bias.chunk(2)
    query = (alignment.query.weight @ (math.sqrt(DIM) * text) + alignment.query.bias)[at]
    logits, values = [torch.zeros((), dtype=torch.double)], [torch.zeros(width, dtype=torch.double)]
    for token in image.tokens[n, image.mask[n]]:
        normed = alignment.norm(token)
        logits.append(query @ (key_weight @ normed + key_bias)[at] / math.sqrt(width))
        values.append((value_weight @ normed + value_bias)[at])
    return torch.stack(logits).softmax(0), torch.stack(values)


def slow(alignment: TextConditioned, given: Input) -> Tensor:
    """FLAIR, Sec. 3.2: cosine of the text with what it pools from the image."""
    rows, texts = [], unit_texts(alignment, given.text)
    for n in range(len(given.image.pooled)):
        row = []
        for text in texts:
            heads = [weights_of(alignment, given.image, n, text, head) for head in range(HEADS)]
            pooled = torch.cat([weights @ values for weights, values in heads])
            row.append(pooled @ text / pooled.norm())
        rows.append(torch.stack(row))
    return torch.stack(rows)


@pytest.mark.parametrize("training", [True, False])
def test_scores_equal_the_loops(training: bool) -> None:
    """Trap 18."""
    alignment, given = text_conditioned().double().train(training), batch()
    with torch.set_grad_enabled(training):
        image, text = alignment.embed_image(given.image), alignment.embed_text(given.text)
        exact = text._replace(pooled=unit_texts(alignment, given.text))
        torch.testing.assert_close(alignment.score(image, exact), slow(alignment, given))
        scores = alignment.score(image, text._replace(pooled=text.pooled.double()))
    torch.testing.assert_close(scores, slow(alignment, given), rtol=1e-5, atol=1e-6)


def test_gradients_equal_those_of_the_loops() -> None:
    """Of random weights on all scores: blocks made again in the backward pass lose nothing."""
    alignment, given = text_conditioned().double(), batch()
    layers = [alignment.key_value, alignment.query, alignment.norm, alignment.space.text]
    parameters = [parameter for layer in layers for parameter in layer.parameters()]
    text = Encoded(given.text.tokens[..., :0], unit_texts(alignment, given.text), given.text.mask)
    expected = slow(alignment, given)
    cotangent = torch.randn(expected.shape, generator=torch.Generator().manual_seed(1)).double()
    scores = alignment.score(alignment.embed_image(given.image), text)
    fast, explicit = (
        torch.autograd.grad((cotangent * values).sum(), parameters, retain_graph=True) for values in (scores, expected)
    )
    for one, other in zip(fast, explicit, strict=True):
        assert other.abs().max() > 1e-3
        torch.testing.assert_close(one, other)


def test_losses_are_both_directions_of_both_scores() -> None:
    """Traps 8 and 17: cosines over 0.2; an image that is twice in the batch has all of its captions as positives."""
    alignment, given = text_conditioned().double(), batch()
    image, text = (wide(side) for side in (alignment.embed_image(given.image), alignment.embed_text(given.text)))
    pairs = pairs_of(text_conditioned(), batch_of(given.image_id.tolist(), given.text_image_id.tolist()))
    pairs = pairs._replace(image=image, text=text, all_image=image, all_text=text)
    conditioned = slow(alignment, given) / 0.2
    pooled = F.normalize(alignment.space.image(given.image.pooled), dim=1) @ unit_texts(alignment, given.text).T
    true = given.image_id[:, None] == given.text_image_id
    expected = {"i2t": (conditioned, true), "t2i": (conditioned.T, true.T)}
    expected |= {"global_i2t": (pooled / 0.2, true), "global_t2i": (pooled.T / 0.2, true.T)}
    terms = alignment.losses(pairs)
    assert list(terms) == list(expected)
    for name, (logits, own) in expected.items():
        rows = [-0.5 * row.log_softmax(0)[kept].mean() for row, kept in zip(logits, own, strict=True)]
        torch.testing.assert_close(terms[name].double(), torch.stack(rows), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(alignment.coarse(pairs.image, pairs.text).double(), pooled, rtol=1e-5, atol=1e-6)


def test_one_patch_is_what_every_text_finds() -> None:
    """A closed form with one head: the empty token only shortens what is pooled, and the cosine does not see it."""
    alignment, given = text_conditioned(num_heads=1), batch_of([1], [1, 1])
    image = Encoded(given.image.tokens[:, :1], given.image.pooled, given.image.mask[:, :1])
    value = alignment.key_value(alignment.norm(image.tokens[0, 0]))[DIM:]
    text = alignment.embed_text(given.text)
    score = alignment.score(alignment.embed_image(image), text)
    torch.testing.assert_close(score[0], F.cosine_similarity(value[None], text.pooled))


def test_the_attention_map_is_of_the_weights_that_are_used() -> None:
    """Of each head's softmax what lies on patches, averaged over heads; the same for all words, nothing on padding."""
    alignment, given = text_conditioned().double(), batch()
    own = given.text.take(slice(0, 5))
    embedded = alignment.embed_text(own)._replace(pooled=unit_texts(alignment, own))
    maps = alignment.attention_map(alignment.embed_image(given.image), embedded)
    assert maps.shape == (5, own.tokens.shape[1], 6)
    for b in range(5):
        heads = [weights_of(alignment, given.image, b, embedded.pooled[b], head)[0][1:] for head in range(HEADS)]
        expected = torch.stack([weights / weights.sum() for weights in heads]).mean(0)
        kept = given.image.mask[b]
        for word in maps[b]:
            torch.testing.assert_close(word[kept], expected)
            assert (word[~kept] == 0).all()


def test_the_temperature_is_clamped_or_fixed() -> None:
    """Trap 16."""
    learned, fixed = text_conditioned(), text_conditioned(learn_temperature=False, temperature=3.0)
    learned.temperature.log_scale.data.fill_(-1.0)
    learned.after_step(pairs_of(learned, batch_of([1, 2], [1, 2])))
    assert learned.temperature.log_scale.item() == 0
    assert not [name for name, _ in fixed.named_parameters() if "temperature" in name]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_heads": 5}, "dim must be a multiple of num_heads, got dim=12, num_heads=5"),
        ({"num_heads": 0}, "dim must be a multiple of num_heads, got dim=12, num_heads=0"),
        ({"dim": None, "image_head": "identity"}, "dim must be a multiple of num_heads, got dim=32, num_heads=3"),
        ({"dropout": -0.1}, r"dropout must lie in \[0, 1\), got -0.1"),
        ({"temperature": 0.001}, r"a learned temperature must start in \[0.01, 1\], got 0.001"),
        ({"dim": None}, r"alignment\.dim may be null only where one head is identity"),
    ],
)
def test_wrong_options_are_refused_by_name(options: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        text_conditioned(**options)  # type: ignore[arg-type]
