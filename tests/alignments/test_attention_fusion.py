"""Attention fusion: here every pair is a sequence of two tokens that goes through torch's own attention."""

import math

import pytest
import torch
from contract.alignment_inputs import IMAGE, TEXT, Input, batch_of, fit, pairs_of, scores_of, usual_batch
from torch import Tensor, nn

from mmlit.alignments.attention_fusion import AttentionFusion
from mmlit.contracts import Encoded
from mmlit.layers.heads import HeadKind

HEADS = 3
DIM = 12


def attention_fusion(
    *,
    dim: int | None = DIM,
    image_head: HeadKind = "linear",
    text_head: HeadKind = "linear",
    num_heads: int = HEADS,
    dropout: float = 0.0,
) -> AttentionFusion:
    torch.manual_seed(0)
    alignment = AttentionFusion(
        image=IMAGE,
        text=TEXT,
        dim=dim,
        image_head=image_head,
        text_head=text_head,
        num_heads=num_heads,
        dropout=dropout,
    )
    # weights that differ much from one half, so that attention counts
    nn.init.normal_(alignment.query_key_value.weight, std=0.5)
    return alignment


def torchs_attention(alignment: AttentionFusion) -> nn.MultiheadAttention:
    """With this alignment's weights."""
    attention = nn.MultiheadAttention(DIM, HEADS, bias=False, batch_first=True)
    del attention.in_proj_weight, attention.out_proj.weight
    # the parameters themselves, so that gradients reach them
    attention.in_proj_weight = alignment.query_key_value.weight
    attention.out_proj.weight = alignment.output.weight
    return attention


def slow(alignment: AttentionFusion, given: Input) -> Tensor:
    """All scores, pair by pair: stack, attend, add, normalize, mean, match."""
    image = math.sqrt(DIM) * alignment.space.embed_image(given.image.pooled)
    text = math.sqrt(DIM) * alignment.space.embed_text(given.text.pooled)
    attention, norm = torchs_attention(alignment), nn.LayerNorm(DIM, elementwise_affine=False)
    rows = []
    for a in image:
        pairs = [torch.stack([a, b])[None] for b in text]
        fused = [norm(pair + attention(pair, pair, pair)[0]).mean(1)[0] for pair in pairs]
        rows.append(torch.cat([alignment.match(f) for f in fused]))
    return torch.stack(rows)


def embedded(alignment: AttentionFusion, given: Input) -> tuple[Encoded, Encoded]:
    return alignment.embed_image(given.image), alignment.embed_text(given.text)


def test_a_case_by_hand() -> None:
    """One head, width 4, all projections the identity, w = e₁, images and texts 2 e₁ and 2 e₂.

    e₁ with e₁: both stay, 2 e₁ + 2 e₁, normalized (3, −1, −1, −1) / √3, of which w sees √3; of e₂ with e₂ −1/√3.
    e₁ with e₂: the logits of e₁ are 4/√4 with itself and 0 with e₂, so that it keeps p = σ(2) of itself:
    2 (1 + p, 1 − p, 0, 0), normalized (1 + 2p, 1 − 2p, −1, −1) / √(1 + 2p²). Of e₂ likewise 1 − 2p: in the mean 1.
    """
    alignment = attention_fusion(dim=4, num_heads=1)
    with torch.no_grad():
        for head in (alignment.space.image, alignment.space.text):
            head.weight.zero_()[:, :4] = torch.eye(4)  # type: ignore[union-attr,operator,index]
            head.bias.zero_()  # type: ignore[union-attr,operator]
        alignment.query_key_value.weight.copy_(torch.eye(4).repeat(3, 1))
        alignment.output.weight.copy_(torch.eye(4))
        alignment.match.weight.copy_(torch.eye(1, 4))
    none = torch.ones(2, 0, dtype=torch.bool)
    image = Encoded(torch.zeros(2, 0, IMAGE.dim), torch.eye(2, IMAGE.dim), none)
    text = Encoded(torch.zeros(2, 0, TEXT.dim), torch.eye(2, TEXT.dim), none)
    scores = alignment.score(alignment.embed_image(image), alignment.embed_text(text))
    mixed = 1 / math.sqrt(1 + 2 / (1 + math.exp(-2)) ** 2)
    expected = torch.tensor([[math.sqrt(3), mixed], [mixed, -1 / math.sqrt(3)]])
    torch.testing.assert_close(scores, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("side", [1, 3, 100])
def test_scores_equal_torchs_attention(monkeypatch: pytest.MonkeyPatch, side: int, training: bool) -> None:
    """Trap 21: two tokens of one pair attend to each other, not to the batch; exact, whatever the blocks."""
    monkeypatch.setattr("mmlit.alignments.attention_fusion.SIDE", side)
    alignment, given = attention_fusion().train(training), usual_batch()
    with torch.set_grad_enabled(training):
        torch.testing.assert_close(
            alignment.score(*embedded(alignment, given)), slow(alignment, given), rtol=1e-5, atol=1e-5
        )


@pytest.mark.parametrize("side", [3, 100])
def test_gradients_equal_those_of_torchs_attention(monkeypatch: pytest.MonkeyPatch, side: int) -> None:
    """Of random weights on all scores, for every parameter: the recomputed blocks lose nothing."""
    monkeypatch.setattr("mmlit.alignments.attention_fusion.SIDE", side)
    alignment, given = attention_fusion(), usual_batch()
    cotangent = torch.randn(5, 7, generator=torch.Generator().manual_seed(1))
    parameters = dict(alignment.named_parameters())
    fast, explicit = (
        torch.autograd.grad((cotangent * scores).sum(), list(parameters.values()))
        for scores in (alignment.score(*embedded(alignment, given)), slow(alignment, given))
    )
    for name, one, other in zip(parameters, fast, explicit, strict=True):
        assert other.abs().max() > 1e-3, f"{name} must have a gradient that can be compared"
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5, msg=lambda text, n=name: f"{n}: {text}")


def test_the_two_weights_of_a_pair_matter() -> None:
    """With queries of zero every pair is averaged: scores that did not change would not come from attention."""
    alignment, given = attention_fusion(), usual_batch()
    before = scores_of(alignment, given)
    alignment.query_key_value.weight.data[:DIM] = 0
    after = scores_of(alignment, given)
    assert (after - before).std() > 0.1 * before.std()
    torch.testing.assert_close(after, slow(alignment, given).detach(), rtol=1e-5, atol=1e-5)


def test_losses_are_both_directions_of_the_score() -> None:
    """Trap 8: an image that is twice in the batch has all of its captions as positives."""
    alignment, given = attention_fusion(), batch_of([3, 1, 4, 1], [1, 4, 3, 1, 1])
    scores = slow(alignment, given)
    true = given.image_id[:, None] == given.text_image_id
    terms = alignment.losses(pairs_of(alignment, given))
    assert list(terms) == ["i2t", "t2i"]
    for name, logits, own in (("i2t", scores, true), ("t2i", scores.T, true.T)):
        expected = [-0.5 * row.log_softmax(0)[kept].mean() for row, kept in zip(logits, own, strict=True)]
        torch.testing.assert_close(terms[name], torch.stack(expected), rtol=1e-5, atol=1e-5)


def test_what_is_kept_of_an_item_grows_with_the_heads_only() -> None:
    """Query, key and what an item is alone, and behind the output projection one vector per head."""
    alignment, given = attention_fusion(), usual_batch()
    image, text = embedded(alignment, given)
    assert image.pooled.shape == (5, (3 + HEADS) * DIM)
    assert text.pooled.shape == (7, (3 + HEADS) * DIM)


def test_scores_and_parts_are_fp32_under_autocast() -> None:
    """Trap 3: what is made per pair is not rounded to bf16."""
    alignment, given = attention_fusion().eval(), usual_batch()
    with torch.autocast("cpu", torch.bfloat16), torch.no_grad():
        image, text = embedded(alignment, given)
        scores = alignment.score(image, text)
    assert image.pooled.dtype == text.pooled.dtype == scores.dtype == torch.float32
    with torch.no_grad():
        torch.testing.assert_close(scores, alignment.score(image, text), rtol=1e-6, atol=1e-7)


def test_training_lowers_the_loss() -> None:
    alignment, given = attention_fusion(), usual_batch()
    losses = []
    for _ in range(3):
        losses.append(sum(term.mean().item() for term in alignment.losses(pairs_of(alignment, given)).values()))
        fit(alignment, given, steps=20)
    assert losses[0] > losses[1] > losses[2]


def test_dropout_is_of_training_only() -> None:
    alignment, given = attention_fusion(dropout=0.5), usual_batch()
    assert torch.equal(scores_of(alignment, given), scores_of(alignment, given))
    alignment.train()
    one, other = (alignment.score(*embedded(alignment, given)) for _ in range(2))
    assert not torch.equal(one, other)


def test_an_identity_head_keeps_the_encoders_width() -> None:
    """Which the heads of attention must then divide."""
    alignment = attention_fusion(dim=None, image_head="identity", num_heads=4)
    assert alignment.match.in_features == IMAGE.dim
    assert scores_of(alignment, usual_batch()).shape == (5, 7)
    with pytest.raises(ValueError, match="dim must be a multiple of num_heads, got dim=32, num_heads=3"):
        attention_fusion(dim=None, image_head="identity")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_heads": 5}, "dim must be a multiple of num_heads, got dim=12, num_heads=5"),
        ({"num_heads": 0}, "dim must be a multiple of num_heads, got dim=12, num_heads=0"),
        ({"dropout": -0.1}, r"dropout must lie in \[0, 1\), got -0.1"),
        ({"dim": 0}, "dim must be >= 1, got 0"),
        ({"dim": None}, r"alignment\.dim may be null only where one head is identity"),
        ({"text_head": "identity"}, r"keeps the encoder's width 64, .* dim 12: set alignment\.dim=64 \(or null\)"),
    ],
)
def test_wrong_options_are_refused_by_name(options: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        attention_fusion(**options)  # type: ignore[arg-type]
