"""Joint: contrast, and matching by deep fusion on mined negatives."""

import pytest
import torch
import torch.nn.functional as F
from contract.alignment_checks import IMAGE, TEXT, Input, batch_of, pairs_of, usual_batch
from torch import Tensor

from mmlit.alignments.joint import Joint, _mine
from mmlit.contracts import Encoded, Pairs, uniform
from mmlit.layers.heads import HeadKind
from mmlit.losses.info_nce import info_nce


def joint(
    *,
    dim: int | None = 5,
    image_head: HeadKind = "linear",
    text_head: HeadKind = "linear",
    token_dim: int = 8,
    num_layers: int = 1,
    num_heads: int = 2,
    dropout: float = 0.0,
    temperature: float = 0.2,
    learn_temperature: bool = True,
    match_weight: float = 1.0,
) -> Joint:
    torch.manual_seed(0)
    alignment = Joint(
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
        match_weight=match_weight,
    )
    torch.nn.init.normal_(alignment.match.weight)  # logits that tell pairs apart before any training
    return alignment


def logit(alignment: Joint, image: Encoded, n: int, text: Encoded, m: int) -> Tensor:
    """One pair, its padding cut off, through the fusion's layers, the mean over words and the last linear map."""
    words, patches = text.tokens[m, text.mask[m]], image.tokens[n, image.mask[n]]
    fused = alignment.fusion.layers(words[None], patches[None])[0].mean(0)
    return F.linear(fused, alignment.match.weight, alignment.match.bias)[0]


def mined(pairs: Pairs, scores: Tensor, n_of_row: bool) -> list[int]:
    """For each row the wrong column of the highest score + Gumbel noise, by loops; −1 where all columns are true."""
    image_id, owner = pairs.all_image_id.tolist(), pairs.all_text_image_id.tolist()
    draws = pairs.draws(slice(None), slice(None))
    chosen = []
    for row in range(len(scores)):
        best, best_value = -1, -float("inf")
        for column in range(scores.shape[1]):
            n, m = (row, column) if n_of_row else (column, row)
            value = scores[row, column].item() - (-draws[n, m].log()).log().item()
            if image_id[n] != owner[m] and value > best_value:
                best, best_value = column, value
        chosen.append(best)
    return chosen


def match_by_loops(alignment: Joint, pairs: Pairs) -> list[Tensor]:
    """Binary cross-entropy, pair by pair: all true ones, then each text's hard image, then each image's hard text."""
    image, text = pairs.image, pairs.text
    scores = image.pooled @ text.pooled.T / 0.2
    positive = [
        (n, m)
        for m in range(len(text.pooled))
        for n in range(len(image.pooled))
        if pairs.all_image_id[n] == pairs.all_text_image_id[m]
    ]
    hard_image = [(n, m) for m, n in enumerate(mined(pairs, scores.T, n_of_row=False)) if n >= 0]
    hard_text = [(n, m) for n, m in enumerate(mined(pairs, scores, n_of_row=True)) if m >= 0]
    return [-F.logsigmoid(logit(alignment, image, n, text, m)) for n, m in positive] + [
        -F.logsigmoid(-logit(alignment, image, n, text, m)) for n, m in hard_image + hard_text
    ]


@pytest.mark.parametrize(
    "given",
    [usual_batch(), batch_of([3, 1, 4, 1], [1, 4, 3, 1, 1]), batch_of([2, 2], [2, 2, 2]), batch_of([6], [6])],
    ids=["usual", "an image twice", "one image twice alone", "one pair"],
)
def test_losses_equal_the_loops(given: Input) -> None:
    """Traps 8, 17 and 19."""
    alignment = joint()
    pairs = pairs_of(alignment, given)
    terms = alignment.losses(pairs)
    assert list(terms) == ["i2t", "t2i", "match"]
    scores, true = pairs.image.pooled @ pairs.text.pooled.T / 0.2, pairs.positives(slice(None), slice(None))
    torch.testing.assert_close(terms["i2t"], 0.5 * info_nce(scores, true))
    torch.testing.assert_close(terms["t2i"], 0.5 * info_nce(scores.T, true.T))
    expected = torch.stack(match_by_loops(alignment, pairs))
    torch.testing.assert_close(terms["match"], expected, rtol=1e-4, atol=1e-5)


def test_every_copy_of_an_image_is_matched_with_its_captions() -> None:
    """Trap 8: a copy that is seen only among the negatives would learn that it belongs to nothing."""
    alignment, given = joint(), batch_of([1, 2, 1], [1, 2, 1], image_features=[10, 11, 12])
    pairs = pairs_of(alignment, given)
    terms = alignment.losses(pairs)["match"]
    true = [(0, 0), (2, 0), (1, 1), (0, 2), (2, 2)]
    expected = [-F.logsigmoid(logit(alignment, pairs.image, n, pairs.text, m)) for n, m in true]
    torch.testing.assert_close(terms[: len(true)], torch.stack(expected), rtol=1e-4, atol=1e-5)
    assert len(terms) == len(true) + 3 + 3


def test_a_mixed_picture_is_matched_by_its_shares() -> None:
    alignment, given = joint(), batch_of([1, 2, 3], [1, 2, 3])
    mix = (torch.tensor([2, 2, 3]), torch.tensor([0.7, 1.0, 1.0]))  # image 0 shows 30 % of image 2's id
    pairs = pairs_of(alignment, given, mix=mix)
    terms = alignment.losses(pairs)["match"]
    true = [(0, 0, 0.7), (0, 1, 0.3), (1, 1, 1.0), (2, 2, 1.0)]
    for term, (n, m, share) in zip(terms, true, strict=False):
        value = logit(alignment, pairs.image, n, pairs.text, m)
        expected = -share * F.logsigmoid(value) - (1 - share) * F.logsigmoid(-value)
        torch.testing.assert_close(term, expected, rtol=1e-4, atol=1e-5)


def test_mining_never_draws_a_positive() -> None:
    """Trap 8: neither the own caption nor one of a second copy of the image, however high it scores."""
    generator = torch.Generator().manual_seed(0)
    for draw_key in range(200):
        image_id = torch.randint(4, (9,), generator=generator)
        owner = torch.randint(4, (11,), generator=generator)
        positives = (image_id[:, None] == owner).float()
        scores = 50 * positives + torch.randn(9, 11, generator=generator)
        draws = uniform(draw_key, torch.arange(9)[:, None], torch.arange(11))
        chosen = _mine(scores, positives, draws)
        alone = positives.bool().all(1)
        assert torch.equal(chosen == -1, alone)
        assert (positives[~alone].gather(1, chosen[~alone, None]) == 0).all()


def test_mining_draws_in_proportion_to_the_softmax() -> None:
    """ALBEF, Sec. 3.2: over 40,000 keys each wrong column's share is its softmax within four standard errors."""
    scores = torch.tensor([1.0, 3.0, 0.0, 2.0, -1.0])
    positives = torch.tensor([0.0, 1.0, 0.0, 0.0, 0.0])
    count = 40_000
    draws = uniform(torch.arange(count)[:, None], 17, torch.arange(5))
    chosen = _mine(scores.expand(count, 5), positives.expand(count, 5), draws)
    share = chosen.bincount(minlength=5).double() / count
    expected = scores.double().masked_fill(positives.bool(), -torch.inf).softmax(0)
    assert share[1] == 0
    assert ((share - expected).abs() <= 4 * (expected * (1 - expected) / count).sqrt()).all()


def test_where_nothing_is_wrong_nothing_is_drawn() -> None:
    """Trap 19: a batch of one image has only true pairs; −1 marks that, and the row drops out of the loss."""
    assert _mine(torch.randn(2, 3), torch.ones(2, 3), torch.rand(2, 3).double()).tolist() == [-1, -1]
    alignment = joint()
    assert len(alignment.losses(pairs_of(alignment, batch_of([6], [6, 6])))["match"]) == 2


def test_a_share_draws_what_the_whole_batch_draws() -> None:
    """Other devices' rows are fused by the same draws: the terms of two uneven shares are those of one device."""
    alignment = joint()
    given = usual_batch()
    whole = alignment.losses(pairs_of(alignment, given))["match"]
    shares = [
        alignment.losses(pairs_of(alignment, given, images_at=slice(*i), texts_at=slice(*t)))["match"]
        for i, t in (((0, 2), (0, 5)), ((2, 5), (5, 7)))
    ]
    torch.testing.assert_close(torch.cat(shares).sort().values, whole.sort().values, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("match_weight", [0.0, 0.5, 2.0])
def test_the_score_is_the_sum_of_both_log_odds(match_weight: float) -> None:
    alignment = joint(match_weight=match_weight).eval()
    pairs = pairs_of(alignment, usual_batch())
    expected = [
        pairs.image.pooled[n] @ pairs.text.pooled[m] / 0.2
        + match_weight * logit(alignment, pairs.image, n, pairs.text, m)
        for n in range(5)
        for m in range(7)
    ]
    scores = alignment.score(pairs.image, pairs.text)
    torch.testing.assert_close(scores, torch.stack(expected).view(5, 7), rtol=1e-4, atol=1e-5)


def test_candidates_come_from_the_cosine() -> None:
    """Trap 18: `coarse` is in [−1, 1] and sees neither temperature nor fusion."""
    alignment = joint()
    pairs = pairs_of(alignment, usual_batch())
    torch.testing.assert_close(alignment.coarse(pairs.image, pairs.text), pairs.image.pooled @ pairs.text.pooled.T)


def test_all_pairs_are_scored_in_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    alignment = joint().eval()
    pairs = pairs_of(alignment, usual_batch())
    whole = alignment.score(pairs.image, pairs.text)
    for size in (1, 4, 35):
        monkeypatch.setattr("mmlit.alignments.joint.PAIRS_PER_CHUNK", size)
        torch.testing.assert_close(alignment.score(pairs.image, pairs.text), whole, rtol=1e-4, atol=1e-5)


def test_a_fixed_temperature_has_no_parameter_and_a_learned_one_is_clamped() -> None:
    """Trap 16."""
    fixed, learned = joint(learn_temperature=False, temperature=3.0), joint()
    assert not [name for name, _ in fixed.named_parameters() if "temperature" in name]
    learned.temperature.log_scale.data.fill_(-1.0)
    learned.after_step(pairs_of(learned, usual_batch()))
    assert learned.temperature.log_scale.item() == 0


def test_an_identity_head_is_for_the_pooled_vectors_only() -> None:
    """The fusion reads tokens in its own width, whatever the shared space."""
    alignment = joint(dim=None, image_head="identity")
    embedded = alignment.embed_text(usual_batch().text)
    assert embedded.pooled.shape[1] == IMAGE.dim
    assert embedded.tokens.shape[2] == 8


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"match_weight": -0.1}, "match_weight must be >= 0, got -0.1"),
        ({"num_layers": 0}, "num_layers must be >= 1, got 0"),
        ({"num_heads": 3}, "token_dim must be a multiple of num_heads, got token_dim=8, num_heads=3"),
        ({"dropout": 1.0}, r"dropout must lie in \[0, 1\), got 1.0"),
        ({"temperature": 5.0}, r"a learned temperature must start in \[0.01, 1\], got 5.0"),
        ({"temperature": 0.0, "learn_temperature": False}, "temperature must be > 0, got 0.0"),
        ({"dim": None}, r"alignment\.dim may be null only where one head is identity"),
        ({"text_head": "identity"}, r"keeps the encoder's width 64, .* dim 5: set alignment\.dim=64 \(or null\)"),
    ],
)
def test_wrong_options_are_refused_by_name(options: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        joint(**options)  # type: ignore[arg-type]
