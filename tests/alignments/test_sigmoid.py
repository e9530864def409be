"""Sigmoid alignment: heads, temperature, bias, the pairwise sigmoid loss."""

import math

import pytest
import torch
from contract.alignment_inputs import IMAGE, TEXT, batch_of, fit, pairs_of, usual_batch

from mmlit.alignments.sigmoid import Sigmoid
from mmlit.layers.heads import HeadKind
from mmlit.training.parameter_groups import parameter_groups


def sigmoid(
    *,
    dim: int | None = 5,
    image_head: HeadKind = "linear",
    text_head: HeadKind = "linear",
    dropout: float = 0.0,
    temperature: float = 0.1,
    learn_temperature: bool = True,
    bias: float = -10.0,
) -> Sigmoid:
    torch.manual_seed(0)
    return Sigmoid(
        image=IMAGE,
        text=TEXT,
        dim=dim,
        image_head=image_head,
        text_head=text_head,
        dropout=dropout,
        temperature=temperature,
        learn_temperature=learn_temperature,
        bias=bias,
    )


@pytest.mark.parametrize("learn_temperature", [True, False])
def test_losses_equal_the_loops(learn_temperature: bool) -> None:
    """Traps 8, 17 and 18: logits 10 · cosine − 10 at the start; all captions of an image that comes twice are true."""
    alignment, given = sigmoid(learn_temperature=learn_temperature), batch_of([3, 1, 4, 1], [1, 4, 3, 1, 1, 4])
    pairs = pairs_of(alignment, given)
    terms = alignment.losses(pairs)
    assert list(terms) == ["sigmoid"]
    expected = []
    for own, row in zip(given.image_id.tolist(), alignment.score(pairs.image, pairs.text).tolist(), strict=True):
        signs = [1 if own == owner else -1 for owner in given.text_image_id.tolist()]
        logits = [cosine / 0.1 - 10 for cosine in row]
        expected.append(sum(math.log1p(math.exp(-z * logit)) for z, logit in zip(signs, logits, strict=True)))
    torch.testing.assert_close(terms["sigmoid"], torch.tensor(expected))


def test_the_mean_is_the_published_loss() -> None:
    """One caption per image: −1/B Σ log σ(z · logit)."""
    alignment, given = sigmoid(bias=-1.0), batch_of([1, 2, 3, 4], [1, 2, 3, 4])
    pairs = pairs_of(alignment, given)
    logits = pairs.image.pooled @ pairs.text.pooled.T / 0.1 - 1
    expected = -torch.nn.functional.logsigmoid((2 * torch.eye(4) - 1) * logits).sum() / 4
    torch.testing.assert_close(alignment.losses(pairs)["sigmoid"].mean(), expected)


def test_temperature_and_bias_are_learned_without_decay() -> None:
    """Trap 16: both move, neither decays; a fixed temperature has no parameter."""
    alignment = sigmoid()
    free = [group for group in parameter_groups(alignment) if group.get("weight_decay") == 0.0]
    assert any(p is alignment.temperature.log_scale for group in free for p in group["params"])
    assert any(p is alignment.bias for group in free for p in group["params"])
    before = alignment.temperature.log_scale.item(), alignment.bias.item()
    fit(alignment, usual_batch(), steps=3)
    assert alignment.temperature.log_scale.item() != before[0]
    assert alignment.bias.item() != before[1]
    names = [name for name, _ in sigmoid(learn_temperature=False).named_parameters()]
    assert "bias" in names
    assert not [name for name in names if "temperature" in name]


def test_after_a_step_the_learned_temperature_is_in_bounds() -> None:
    """Trap 16: 0 and ln 100; the bias is free."""
    alignment = sigmoid()
    pairs = pairs_of(alignment, usual_batch())
    alignment.bias.data.fill_(-1e4)
    for pushed, kept in ((-3.0, 0.0), (7.0, math.log(100))):
        alignment.temperature.log_scale.data.fill_(pushed)
        alignment.after_step(pairs)
        assert alignment.temperature.log_scale.item() == pytest.approx(kept)
    assert alignment.bias.item() == -1e4


def test_the_score_is_a_cosine() -> None:
    """Trap 18: it sees neither temperature nor bias."""
    scores = []
    for temperature, bias in ((0.05, -3.0), (0.9, 5.0)):
        pairs = pairs_of(alignment := sigmoid(temperature=temperature, bias=bias), usual_batch())
        scores.append(alignment.score(pairs.image, pairs.text))
    assert torch.equal(scores[0], scores[1])
    assert scores[0].abs().max() <= 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"temperature": 0.001}, r"a learned temperature must start in \[0.01, 1\], got 0.001"),
        ({"temperature": 0.0, "learn_temperature": False}, "temperature must be > 0, got 0.0"),
        ({"bias": math.nan}, "bias must be finite, got nan"),
        ({"bias": -math.inf}, "bias must be finite, got -inf"),
        ({"dropout": 1.0}, r"dropout must lie in \[0, 1\), got 1.0"),
        ({"text_head": "identity"}, r"keeps the encoder's width 64, .* dim 5: set alignment\.dim=64 \(or null\)"),
    ],
)
def test_wrong_options_are_refused_by_name(options: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        sigmoid(**options)  # type: ignore[arg-type]
