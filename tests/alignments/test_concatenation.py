"""Concatenation: here every pair is concatenated and goes through the perceptron by itself."""

import math

import pytest
import torch
import torch.nn.functional as F
from contract.alignment_inputs import IMAGE, TEXT, Input, batch_of, fit, pairs_of, scores_of, usual_batch
from torch import Tensor, nn

from mmlit.alignments.concatenation import Concatenation
from mmlit.contracts import Encoded
from mmlit.layers.heads import HeadKind


def concatenation(
    *,
    dim: int | None = 5,
    image_head: HeadKind = "linear",
    text_head: HeadKind = "linear",
    hidden_dim: int = 9,
    dropout: float = 0.0,
) -> Concatenation:
    torch.manual_seed(0)
    return Concatenation(
        image=IMAGE,
        text=TEXT,
        dim=dim,
        image_head=image_head,
        text_head=text_head,
        hidden_dim=hidden_dim,
        dropout=dropout,
    )


def slow(alignment: Concatenation, given: Input) -> Tensor:
    """All scores, pair by pair, through torch's own perceptron on the concatenated vectors."""
    widths = alignment.space.widths
    image = math.sqrt(widths[0]) * alignment.space.embed_image(given.image.pooled)
    text = math.sqrt(widths[1]) * alignment.space.embed_text(given.text.pooled)
    perceptron = nn.Sequential(alignment.hidden, nn.GELU(), alignment.match)
    return torch.stack([torch.cat([perceptron(torch.cat([a, b])) for b in text]) for a in image])


def embedded(alignment: Concatenation, given: Input) -> tuple[Encoded, Encoded]:
    return alignment.embed_image(given.image), alignment.embed_text(given.text)


def test_a_case_by_hand() -> None:
    """Units that see a − b and b − a, with identity heads on unit circles: −(|a₁ − b₁| + …) but for gelu's rounding."""
    alignment = concatenation(dim=2, hidden_dim=4)
    eye = torch.eye(2)
    with torch.no_grad():
        for head in (alignment.space.image, alignment.space.text):
            head.weight.zero_()[:, :2] = eye  # type: ignore[union-attr,operator,index]
            head.bias.zero_()  # type: ignore[union-attr,operator]
        alignment.hidden.weight.copy_(torch.cat([torch.cat([eye, -eye], 1), torch.cat([-eye, eye], 1)]) * 100)
        alignment.hidden.bias.zero_()
        alignment.match.weight.fill_(-0.01)
    angles = torch.tensor([0.3, 1.2, 2.5])
    points = torch.stack([angles.cos(), angles.sin()], 1)
    none = torch.ones(3, 0, dtype=torch.bool)
    image = Encoded(torch.zeros(3, 0, IMAGE.dim), F.pad(7 * points, (0, IMAGE.dim - 2)), none)
    text = Encoded(torch.zeros(3, 0, TEXT.dim), F.pad(0.1 * points.flip(0), (0, TEXT.dim - 2)), none)
    scores = alignment.score(alignment.embed_image(image), alignment.embed_text(text))
    expected = -math.sqrt(2) * torch.cdist(points, points.flip(0), p=1)
    torch.testing.assert_close(scores, expected, rtol=1e-4, atol=1e-4)


def test_identity_heads_leave_both_vectors_as_wide_as_they_are() -> None:
    """CLIP B/32's 768 and 512 make 1,280: neither twice the one nor twice the other."""
    alignment, given = concatenation(dim=None, image_head="identity", text_head="identity").eval(), usual_batch()
    assert IMAGE.dim != TEXT.dim
    assert alignment.hidden.in_features == IMAGE.dim + TEXT.dim
    torch.testing.assert_close(alignment.space.embed_text(given.text.pooled), F.normalize(given.text.pooled, dim=-1))
    torch.testing.assert_close(
        alignment.score(*embedded(alignment, given)), slow(alignment, given), rtol=1e-5, atol=1e-6
    )


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("side", [1, 3, 100])
def test_scores_equal_the_concatenated_vectors_ones(monkeypatch: pytest.MonkeyPatch, side: int, training: bool) -> None:
    """The separated first layer is exact, whatever the blocks, with and without gradients."""
    monkeypatch.setattr("mmlit.alignments.concatenation.SIDE", side)
    alignment, given = concatenation().train(training), usual_batch()
    with torch.set_grad_enabled(training):
        torch.testing.assert_close(
            alignment.score(*embedded(alignment, given)), slow(alignment, given), rtol=1e-5, atol=1e-6
        )


@pytest.mark.parametrize("side", [3, 100])
def test_gradients_equal_those_of_the_concatenated_vectors(monkeypatch: pytest.MonkeyPatch, side: int) -> None:
    """Of random weights on all scores, for every parameter: the recomputed blocks lose nothing."""
    monkeypatch.setattr("mmlit.alignments.concatenation.SIDE", side)
    alignment, given = concatenation(), usual_batch()
    cotangent = torch.randn(5, 7, generator=torch.Generator().manual_seed(1))
    parameters = dict(alignment.named_parameters())
    fast, explicit = (
        torch.autograd.grad((cotangent * scores).sum(), list(parameters.values()))
        for scores in (alignment.score(*embedded(alignment, given)), slow(alignment, given))
    )
    for name, one, other in zip(parameters, fast, explicit, strict=True):
        assert other.abs().max() > 1e-3, f"{name} must have a gradient that can be compared"
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5, msg=lambda text, n=name: f"{n}: {text}")


def test_losses_are_both_directions_of_the_score() -> None:
    """Trap 8: an image that is twice in the batch has all of its captions as positives."""
    alignment, given = concatenation(), batch_of([3, 1, 4, 1], [1, 4, 3, 1, 1])
    scores = slow(alignment, given)
    true = given.image_id[:, None] == given.text_image_id
    terms = alignment.losses(pairs_of(alignment, given))
    assert list(terms) == ["i2t", "t2i"]
    for name, logits, own in (("i2t", scores, true), ("t2i", scores.T, true.T)):
        expected = [-0.5 * row.log_softmax(0)[kept].mean() for row, kept in zip(logits, own, strict=True)]
        torch.testing.assert_close(terms[name], torch.stack(expected), rtol=1e-5, atol=1e-6)


def test_only_the_halves_of_the_first_layer_are_kept_of_an_item() -> None:
    """A pair's work does not depend on the widths before: `score` reads (N,hidden_dim) and (M,hidden_dim)."""
    alignment, given = concatenation(), usual_batch()
    image, text = embedded(alignment, given)
    assert image.pooled.shape == (5, 9)
    assert text.pooled.shape == (7, 9)
    expected = F.gelu(image.pooled[2] + text.pooled[4]) @ alignment.match.weight[0]
    torch.testing.assert_close(alignment.score(image, text)[2, 4], expected)


def test_scores_and_halves_are_fp32_under_autocast() -> None:
    """Trap 3: what is made per pair is not rounded to bf16."""
    alignment, given = concatenation().eval(), usual_batch()
    with torch.autocast("cpu", torch.bfloat16), torch.no_grad():
        image, text = embedded(alignment, given)
        scores = alignment.score(image, text)
    assert image.pooled.dtype == text.pooled.dtype == scores.dtype == torch.float32
    with torch.no_grad():
        torch.testing.assert_close(scores, alignment.score(image, text), rtol=1e-6, atol=1e-7)


def test_untrained_scores_are_not_nearly_additive() -> None:
    """A sum of a score of the image and one of the text would rank all queries alike; training must not start there."""
    alignment = concatenation(dim=128, hidden_dim=512)
    scores = scores_of(alignment, usual_batch())
    additive = scores.mean(0) + scores.mean(1, keepdim=True) - scores.mean()
    assert (scores - additive).std() > 0.4 * scores.std()


def test_training_lowers_the_loss() -> None:
    alignment, given = concatenation(dim=8, hidden_dim=32), usual_batch()
    losses = []
    for _ in range(3):
        losses.append(sum(term.mean().item() for term in alignment.losses(pairs_of(alignment, given)).values()))
        fit(alignment, given, steps=20)
    assert losses[0] > losses[1] > losses[2]


def test_dropout_is_of_training_only() -> None:
    alignment, given = concatenation(dropout=0.5), usual_batch()
    assert torch.equal(scores_of(alignment, given), scores_of(alignment, given))
    alignment.train()
    one, other = (alignment.score(*embedded(alignment, given)) for _ in range(2))
    assert not torch.equal(one, other)


def test_an_identity_head_keeps_the_encoders_width() -> None:
    alignment = concatenation(dim=None, image_head="identity")
    assert alignment.hidden.in_features == 2 * IMAGE.dim
    assert scores_of(alignment, usual_batch()).shape == (5, 7)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"hidden_dim": 0}, "hidden_dim must be >= 1, got 0"),
        ({"dropout": 1.0}, r"dropout must lie in \[0, 1\), got 1.0"),
        ({"dim": 0}, "dim must be >= 1, got 0"),
        ({"dim": None}, r"alignment\.dim may be null only where one head is identity"),
        ({"image_head": "identity"}, r"keeps the encoder's width 32, .* dim 5: set alignment\.dim=32 \(or null\)"),
        ({"text_head": "conv"}, "a head must be identity, linear, mlp or gated, got 'conv'"),
    ],
)
def test_wrong_options_are_refused_by_name(options: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        concatenation(**options)  # type: ignore[arg-type]
