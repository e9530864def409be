"""Single stream: contrast, and matching by one transformer over both sides' tokens, pair by pair without padding."""

import pytest
import torch
import torch.nn.functional as F
from contract.alignment_inputs import IMAGE, TEXT, Input, batch_of, padded, pairs_of, usual_batch
from torch import Tensor

from mmlit.alignments.single_stream import SingleStream, hard_negatives
from mmlit.contracts import Encoded, Pairs, uniform
from mmlit.layers.heads import HeadKind
from mmlit.losses.info_nce import info_nce


def single_stream(
    *,
    dim: int | None = 5,
    image_head: HeadKind = "linear",
    text_head: HeadKind = "linear",
    token_dim: int = 8,
    num_layers: int = 2,
    num_heads: int = 2,
    dropout: float = 0.0,
    temperature: float = 0.2,
    learn_temperature: bool = True,
    num_negatives: int = 2,
) -> SingleStream:
    torch.manual_seed(0)
    alignment = SingleStream(
        image=IMAGE,
        text=TEXT,
        dim=dim,
        image_head=image_head,
        text_head=text_head,
        token_dim=token_dim,
        num_layers=num_layers,
        num_heads=num_heads,
        dropout=dropout,
        temperature=temperature,
        learn_temperature=learn_temperature,
        num_negatives=num_negatives,
    )
    torch.nn.init.normal_(alignment.match.weight)  # logits that tell pairs apart before any training
    for module in alignment.layers.modules():
        if isinstance(module, torch.nn.LayerNorm):  # no gain of 1 and shift of 0 that a reference could forget
            torch.nn.init.normal_(module.weight)
            torch.nn.init.normal_(module.bias)
    return alignment


def attended(layer: torch.nn.TransformerEncoderLayer, x: Tensor) -> Tensor:
    """Multi-head self-attention over a sequence (T,E), head by head."""
    weights, biases = layer.self_attn.in_proj_weight.chunk(3), layer.self_attn.in_proj_bias.chunk(3)
    query, key, value = (x @ weight.T + bias for weight, bias in zip(weights, biases, strict=True))
    width = x.shape[1] // layer.self_attn.num_heads
    heads = []
    for start in range(0, x.shape[1], width):
        at = slice(start, start + width)
        heads.append((query[:, at] @ key[:, at].T / width**0.5).softmax(1) @ value[:, at])
    return layer.self_attn.out_proj(torch.cat(heads, dim=1))


def logit(alignment: SingleStream, image: Encoded, n: int, text: Encoded, m: int) -> Tensor:
    """ViLT, Eq. 2–5 and the matching head: [class; patches; words] of one pair of embedded items, without padding."""
    x = torch.cat([alignment.class_token[None], image.tokens[n, image.mask[n]], text.tokens[m, text.mask[m]]])
    for layer in alignment.layers.layers:
        x = x + attended(layer, layer.norm1(x))
        x = x + layer.linear2(F.gelu(layer.linear1(layer.norm2(x))))
    return F.linear(alignment.layers.norm(x)[0], alignment.match.weight, alignment.match.bias)[0]


def drawn(pairs: Pairs, scores: Tensor, *, texts_ask: bool, count: int) -> list[tuple[int, int]]:
    """(image, text): each row's `count` wrong columns of the highest score + Gumbel noise, by loops, row by row."""
    image_id, owner = pairs.all_image_id.tolist(), pairs.all_text_image_id.tolist()
    draws, found = pairs.draws(slice(None), slice(None)), []
    for row in range(len(scores)):
        values = []
        for column in range(scores.shape[1]):
            n, m = (column, row) if texts_ask else (row, column)
            if image_id[n] != owner[m]:
                values.append((scores[row, column].item() - (-draws[n, m].log()).log().item(), (n, m)))
        found += sorted(pair for _, pair in sorted(values, reverse=True)[:count])
    return found


def batch() -> Input:
    """Padding on both sides."""
    given = batch_of([3, 1, 4, 1], [1, 4, 3, 1, 1])
    return given._replace(image=padded(given.image, 2), text=padded(given.text, 1))


@pytest.mark.parametrize(
    "given",
    [usual_batch(), batch(), batch_of([2, 2], [2, 2, 2]), batch_of([6], [6])],
    ids=["usual", "an image twice, padding", "one image twice alone", "one pair"],
)
@pytest.mark.parametrize("num_negatives", [1, 2, 50])
def test_losses_equal_the_loops(given: Input, num_negatives: int) -> None:
    """Traps 8, 17 and 19."""
    alignment = single_stream(num_negatives=num_negatives)
    pairs = pairs_of(alignment, given)
    terms = alignment.losses(pairs)
    assert list(terms) == ["i2t", "t2i", "match"]
    scores, true = pairs.image.pooled @ pairs.text.pooled.T / 0.2, pairs.positives(slice(None), slice(None))
    torch.testing.assert_close(terms["i2t"], 0.5 * info_nce(scores, true))
    torch.testing.assert_close(terms["t2i"], 0.5 * info_nce(scores.T, true.T))
    positive = [(n, m) for m in range(true.shape[1]) for n in range(true.shape[0]) if true[n, m]]
    negative = drawn(pairs, scores.T, texts_ask=True, count=num_negatives)
    negative += drawn(pairs, scores, texts_ask=False, count=num_negatives)
    expected = [-F.logsigmoid(logit(alignment, pairs.image, n, pairs.text, m)) for n, m in positive]
    expected += [-F.logsigmoid(-logit(alignment, pairs.image, n, pairs.text, m)) for n, m in negative]
    torch.testing.assert_close(terms["match"], torch.stack(expected), rtol=1e-4, atol=1e-4)


def test_a_mixed_picture_is_matched_by_its_shares() -> None:
    alignment, given = single_stream(), batch_of([1, 2, 3], [1, 2, 3])
    mix = (torch.tensor([2, 2, 3]), torch.tensor([0.7, 1.0, 1.0]))  # image 0 shows 30 % of image 2's id
    pairs = pairs_of(alignment, given, mix=mix)
    terms = alignment.losses(pairs)["match"]
    for term, (n, m, share) in zip(terms, [(0, 0, 0.7), (0, 1, 0.3), (1, 1, 1.0), (2, 2, 1.0)], strict=False):
        value = logit(alignment, pairs.image, n, pairs.text, m)
        expected = -share * F.logsigmoid(value) - (1 - share) * F.logsigmoid(-value)
        torch.testing.assert_close(term, expected, rtol=1e-4, atol=1e-4)


def test_negatives_are_wrong_and_as_many_as_there_are() -> None:
    """Trap 8: never a caption of the same image, however high it scores."""
    generator = torch.Generator().manual_seed(0)
    for draw_key in range(100):
        positives = (
            torch.randint(4, (9, 1), generator=generator) == torch.randint(4, (11,), generator=generator)
        ).float()
        scores = 50 * positives + torch.randn(9, 11, generator=generator)
        draws = uniform(draw_key, torch.arange(9)[:, None], torch.arange(11))
        chosen = hard_negatives(scores, positives, draws, count=8)
        assert not (chosen & (positives > 0)).any()
        assert torch.equal(chosen.sum(1), (positives == 0).sum(1).clamp_max(8))


def test_the_first_negative_is_drawn_by_the_softmax_and_the_second_by_what_is_left() -> None:
    """Over 20,000 keys each set of two has its chance without replacement, within four standard errors."""
    scores, positives = torch.tensor([1.0, 3.0, 0.0, 2.0]), torch.tensor([0.0, 1.0, 0.0, 0.0])
    count = 20_000
    draws = uniform(torch.arange(count)[:, None], 17, torch.arange(4))
    chosen = hard_negatives(scores.expand(count, 4), positives.expand(count, 4), draws, count=2)
    p = scores.double().masked_fill(positives.bool(), -torch.inf).softmax(0)
    for a, b in ((0, 2), (0, 3), (2, 3)):
        expected = p[a] * p[b] / (1 - p[a]) + p[b] * p[a] / (1 - p[b])
        share = (chosen[:, a] & chosen[:, b]).double().mean()
        assert abs(share - expected) <= 4 * (expected * (1 - expected) / count) ** 0.5


def test_the_score_is_the_sum_of_both_log_odds_in_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    alignment, given = single_stream().eval(), batch()
    image, text = alignment.embed_image(given.image), alignment.embed_text(given.text)
    expected = torch.stack([torch.stack([logit(alignment, image, n, text, m) for m in range(5)]) for n in range(4)])
    expected = expected + image.pooled @ text.pooled.T / 0.2
    for size, least in ((1, 32), (7, 2), (1024, 32)):
        monkeypatch.setattr("mmlit.alignments.single_stream.PAIRS_PER_CHUNK", size)
        monkeypatch.setattr("mmlit.alignments.single_stream.LEAST", least)
        with torch.no_grad():
            torch.testing.assert_close(alignment.score(image, text), expected, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(alignment.coarse(image, text), image.pooled @ text.pooled.T)


def test_both_sides_read_each_other() -> None:
    """The unified end: with another text, patches change from the first layer on, and words with another image."""
    alignment, given = single_stream(num_layers=1).eval(), batch_of([1, 2], [1, 2])
    image, text = alignment.embed_image(given.image), alignment.embed_text(given.text)
    tokens = torch.cat([image.tokens, text.tokens], 1)
    kept = torch.cat([image.mask, text.mask], 1)
    before = alignment.layers(tokens, src_key_padding_mask=~kept)
    num_patches = image.tokens.shape[1]
    for place, read in ((num_patches, slice(0, num_patches)), (0, slice(num_patches, None))):
        moved = tokens.clone()
        moved[0, place] += torch.linspace(-2, 3, 8)  # a layer's norm would take out a constant
        change = (alignment.layers(moved, src_key_padding_mask=~kept) - before).abs().amax(-1)
        assert (change[0, read][kept[0, read]] > 1e-4).all()
        assert (change[1] == 0).all()


def test_a_fixed_temperature_has_no_parameter_and_a_learned_one_is_clamped() -> None:
    """Trap 16."""
    fixed, learned = single_stream(learn_temperature=False, temperature=3.0), single_stream()
    assert not [name for name, _ in fixed.named_parameters() if "temperature" in name]
    learned.temperature.log_scale.data.fill_(-1.0)
    learned.after_step(pairs_of(learned, usual_batch()))
    assert learned.temperature.log_scale.item() == 0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_negatives": 0}, "num_negatives must be >= 1, got 0"),
        ({"num_layers": 0}, "num_layers must be >= 1, got 0"),
        ({"num_heads": 3}, "token_dim must be a multiple of num_heads, got token_dim=8, num_heads=3"),
        ({"token_dim": 0}, "token_dim must be a multiple of num_heads, got token_dim=0, num_heads=2"),
        ({"dropout": 1.0}, r"dropout must lie in \[0, 1\), got 1.0"),
        ({"temperature": 5.0}, r"a learned temperature must start in \[0.01, 1\], got 5.0"),
        ({"dim": None}, r"alignment\.dim may be null only where one head is identity"),
    ],
)
def test_wrong_options_are_refused_by_name(options: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        single_stream(**options)  # type: ignore[arg-type]
