"""Contrastive alignment: heads, temperature, symmetric InfoNCE with several positives."""

import math

import pytest
import torch
from contract.alignment_inputs import IMAGE, TEXT, batch_of, fit, pairs_of, scores_of, usual_batch

from mmlit.alignments.contrastive import Contrastive
from mmlit.layers.heads import HeadKind
from mmlit.losses.reweighted_info_nce import reweighted_info_nce


def contrastive(
    *,
    dim: int | None = 5,
    image_head: HeadKind = "linear",
    text_head: HeadKind = "linear",
    dropout: float = 0.0,
    temperature: float = 0.2,
    learn_temperature: bool = True,
    label_smoothing: float = 0.0,
    hardness: float = 0.0,
    decoupled: bool = False,
) -> Contrastive:
    torch.manual_seed(0)
    return Contrastive(
        image=IMAGE,
        text=TEXT,
        dim=dim,
        image_head=image_head,
        text_head=text_head,
        dropout=dropout,
        temperature=temperature,
        learn_temperature=learn_temperature,
        label_smoothing=label_smoothing,
        hardness=hardness,
        decoupled=decoupled,
    )


def unit(vector: list[float]) -> list[float]:
    length = math.sqrt(sum(x * x for x in vector))
    return [x / length for x in vector]


def slow(scores: list[list[float]], true: list[list[bool]]) -> list[float]:
    """½ · −1/|P| Σ_{p ∈ P} log( exp(s_p) / Σ_a exp(s_a) ) of each row."""
    losses = []
    for row, own in zip(scores, true, strict=True):
        denominator = sum(math.exp(score) for score in row)
        terms = [math.log(math.exp(score) / denominator) for score, is_own in zip(row, own, strict=True) if is_own]
        losses.append(-0.5 * sum(terms) / len(terms))
    return losses


@pytest.mark.parametrize("learn_temperature", [True, False])
def test_losses_and_scores_equal_the_loops(learn_temperature: bool) -> None:
    """Traps 8, 17 and 18: cosines, divided by 0.2; image 1 is twice in the batch and all of its captions are true."""
    alignment, given = contrastive(learn_temperature=learn_temperature), batch_of([3, 1, 4, 1], [1, 4, 3, 1, 1, 4])
    heads = alignment.space.image, alignment.space.text
    images, texts = (head(side.pooled).tolist() for head, side in zip(heads, (given.image, given.text), strict=True))
    cosines = [[sum(a * b for a, b in zip(unit(i), unit(t), strict=True)) for t in texts] for i in images]
    true = [[int(i) == int(owner) for owner in given.text_image_id] for i in given.image_id]
    pairs = pairs_of(alignment, given)
    torch.testing.assert_close(alignment.score(pairs.image, pairs.text), torch.tensor(cosines), rtol=1e-5, atol=1e-6)
    scaled = [[cosine / 0.2 for cosine in row] for row in cosines]
    terms = alignment.losses(pairs)
    assert list(terms) == ["i2t", "t2i"]
    torch.testing.assert_close(terms["i2t"], torch.tensor(slow(scaled, true)), rtol=1e-5, atol=1e-6)
    columns, flipped = ([list(column) for column in zip(*rows, strict=True)] for rows in (scaled, true))
    torch.testing.assert_close(terms["t2i"], torch.tensor(slow(columns, flipped)), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("options", [{"label_smoothing": 0.1}, {"hardness": 0.5}, {"decoupled": True}], ids=str)
def test_options_reweight_the_loss_and_train(options: dict[str, object]) -> None:
    """Each reaches the loss of its own file; seven pairs, an image twice among them, are still learned."""
    alignment, given = contrastive(**options), batch_of([1, 2, 3, 4, 1, 5, 6], [1, 2, 3, 4, 1, 5, 6])  # type: ignore[arg-type]
    pairs = pairs_of(alignment, given)
    chosen = {"label_smoothing": 0.0, "hardness": 0.0, "decoupled": False} | options
    i2t, t2i = reweighted_info_nce(pairs, alignment.temperature.scale(), **chosen)  # type: ignore[arg-type]
    terms = alignment.losses(pairs)
    torch.testing.assert_close((terms["i2t"], terms["t2i"]), (0.5 * i2t, 0.5 * t2i))
    plain = contrastive().losses(pairs)
    assert not torch.allclose(terms["i2t"], plain["i2t"])
    fit(alignment, given, steps=40)
    scores, true = scores_of(alignment, given), given.image_id[:, None] == given.text_image_id
    assert (scores.masked_fill(~true, 2).amin(1) > scores.masked_fill(true, -2).amax(1)).all()


def test_the_sum_of_both_means_is_the_loss_of_clip() -> None:
    """One caption per image: (cross-entropy of rows + cross-entropy of columns) / 2."""
    alignment, given = contrastive(), batch_of([1, 2, 3, 4], [1, 2, 3, 4])
    pairs = pairs_of(alignment, given)
    logits = pairs.image.pooled @ pairs.text.pooled.T / 0.2
    cross_entropy, target = torch.nn.functional.cross_entropy, torch.arange(4)
    expected = (cross_entropy(logits, target) + cross_entropy(logits.T, target)) / 2
    terms = alignment.losses(pairs)
    torch.testing.assert_close(terms["i2t"].mean() + terms["t2i"].mean(), expected)


def test_the_temperature_is_learned_or_fixed() -> None:
    """Trap 16: a fixed temperature has no parameter and no step moves it; a learned one moves."""
    for learn, moved in ((True, True), (False, False)):
        alignment = contrastive(learn_temperature=learn)
        names = [name for name, _ in alignment.named_parameters() if "temperature" in name]
        assert names == (["temperature.log_scale"] if learn else [])
        before = alignment.temperature.log_scale.item()
        fit(alignment, usual_batch(), steps=3)
        assert (alignment.temperature.log_scale.item() != before) is moved


def test_after_a_step_the_learned_temperature_is_in_bounds() -> None:
    """Trap 16: a large step past either bound is taken back to it, here ln 1 = 0 and ln 100."""
    alignment = contrastive()
    pairs = pairs_of(alignment, usual_batch())
    for pushed, kept in ((-3.0, 0.0), (7.0, math.log(100))):
        alignment.temperature.log_scale.data.fill_(pushed)
        alignment.after_step(pairs)
        assert alignment.temperature.log_scale.item() == pytest.approx(kept)


def test_the_score_does_not_see_the_temperature() -> None:
    """Trap 18: ranks are of cosines."""
    scores = []
    for temperature in (0.05, 0.9):
        pairs = pairs_of(alignment := contrastive(temperature=temperature), usual_batch())
        scores.append(alignment.score(pairs.image, pairs.text))
    assert torch.equal(scores[0], scores[1])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"temperature": 0.001}, r"a learned temperature must start in \[0.01, 1\], got 0.001"),
        ({"temperature": 2.0}, r"a learned temperature must start in \[0.01, 1\], got 2.0"),
        ({"temperature": 0.0, "learn_temperature": False}, "temperature must be > 0, got 0.0"),
        ({"dropout": -1.0}, r"dropout must lie in \[0, 1\), got -1.0"),
        ({"dim": 0}, "dim must be >= 1, got 0"),
        ({"dim": None}, r"alignment\.dim may be null only where one head is identity"),
        ({"image_head": "identity"}, r"keeps the encoder's width 32, .* dim 5: set alignment\.dim=32 \(or null\)"),
        ({"text_head": "identity"}, r"keeps the encoder's width 64, .* dim 5: set alignment\.dim=64 \(or null\)"),
        ({"label_smoothing": 1.0}, r"label_smoothing must lie in \[0, 1\), got 1.0"),
        ({"hardness": -0.5}, "hardness must be a number >= 0, got -0.5"),
        ({"text_head": "wide"}, "a head must be identity, linear, mlp or gated, got 'wide'"),
    ],
)
def test_wrong_options_are_refused_by_name(options: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        contrastive(**options)  # type: ignore[arg-type]
