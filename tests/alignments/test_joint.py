"""Joint: contrast, and matching by deep fusion on mined negatives."""

import pytest
import torch
import torch.nn.functional as F
from alignments.joint_by_loops import joint, logit, match_by_loops
from contract.alignment_inputs import IMAGE, TEXT, Input, batch_of, pairs_of, usual_batch

from mmlit.alignments.joint import _masked, _mine
from mmlit.contracts import uniform
from mmlit.losses.info_nce import info_nce


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


def test_terms_are_weighted() -> None:
    plain, weighted = joint(), joint(contrast_term=0.25, match_term=3.0)
    expected, found = (each.losses(pairs_of(each, usual_batch())) for each in (plain, weighted))
    for name, factor in {"i2t": 0.25, "t2i": 0.25, "match": 3.0}.items():
        torch.testing.assert_close(found[name], factor * expected[name])


def test_soft_targets_are_the_momentum_towers() -> None:
    """ALBEF, Eq. 6, row by row: (1 − α) H(positives, p) + α H(q, p); matching stays what it was."""
    plain, alignment = joint(), joint(distillation=0.3, momentum=0.9)
    pairs = pairs_of(alignment, batch_of([3, 1, 4, 1], [1, 4, 3, 1, 1]))
    image, text = (F.normalize(torch.randn(count, 5), dim=1) for count in (4, 5))
    teacher = (pairs.image._replace(pooled=image), pairs.text._replace(pooled=text))
    terms, hard = alignment.losses(pairs._replace(teacher=teacher)), plain.losses(pairs)
    scores, soft = pairs.image.pooled @ pairs.text.pooled.T / 0.2, image @ text.T / 0.2
    for name, logits, targets in (("i2t", scores, soft), ("t2i", scores.T, soft.T)):
        cross = [
            -sum(q * p.log() for q, p in zip(t.softmax(0), s.softmax(0), strict=True))
            for s, t in zip(logits, targets, strict=True)
        ]
        torch.testing.assert_close(terms[name], 0.7 * hard[name] + 0.3 * 0.5 * torch.stack(cross))
    torch.testing.assert_close(terms["match"], hard["match"])
    with pytest.raises(ValueError, match=r"learns from momentum towers, and pairs\.teacher is None"):
        alignment.losses(pairs._replace(teacher=None))


def test_masked_words_equal_the_loops() -> None:
    """Text by text, its padding cut off: the mean cross-entropy of its hidden words, given its own image."""
    alignment, given = joint(words_term=2.0), batch_of([3, 1, 4], [1, 4, 3, 1, 3])
    pairs = pairs_of(alignment, given)
    ids, mask = pairs.batch.token_ids, pairs.batch.token_mask
    hidden = _masked(pairs.draw_key, given.text_id, ids, mask, TEXT)
    expected = []
    for m, owner in enumerate(given.text_image_id.tolist()):
        own = ids[m, mask[m]]
        masked = torch.tensor([2 if hide else int(i) for i, hide in zip(own, hidden[m], strict=False)])
        text = pairs.encode_text(masked[None], torch.ones(1, len(own)).bool())
        image = pairs.image.tokens[[given.image_id.tolist().index(owner)]]
        words = alignment.words(alignment.fusion.layers(text.tokens, image)[0])  # type: ignore[misc]
        losses = [-word.log_softmax(0)[i] for word, i, hide in zip(words, own, hidden[m], strict=False) if hide]
        expected.append(2.0 * sum(losses) / len(losses))
    terms = alignment.losses(pairs)
    assert list(terms) == ["i2t", "t2i", "match", "words"]
    torch.testing.assert_close(terms["words"], torch.stack(expected), rtol=1e-5, atol=1e-6)
    torch.cat(list(terms.values())).sum().backward()
    assert all(part.grad is not None for part in alignment.parameters())


def test_what_is_masked() -> None:
    """About 15 % of the words and of every text one, no special token or padding; the same wherever a text stands."""
    ids = torch.randint(3, 100, (400, 12), generator=torch.Generator().manual_seed(0))
    ids[:, 0], mask = 1, torch.arange(12) < torch.arange(400)[:, None] % 11 + 2
    text_id = torch.arange(400) + 10**12
    hidden = _masked(5, text_id, ids, mask, TEXT)
    assert hidden.any(1).all()
    assert not (hidden & (~mask | (ids == 1))).any()
    long = hidden[mask.sum(1) == 12, 1:]
    assert 0.13 < long.float().mean() < 0.24  # one of 11 at least
    assert torch.equal(_masked(5, text_id[7:9], ids[7:9, :10], mask[7:9, :10], TEXT), hidden[7:9, :10])
    assert not torch.equal(_masked(6, text_id, ids, mask, TEXT), hidden)
    only_special = _masked(5, text_id[:1], torch.ones(1, 3).long(), torch.ones(1, 3).bool(), TEXT)
    assert not only_special.any()


def test_a_text_encoder_without_a_mask_is_refused() -> None:
    with pytest.raises(ValueError, match=r"words_term=0.5 masks words, and this text encoder has no token for that"):
        joint(words_term=0.5, text=TEXT._replace(mask_id=None))
    assert joint(text=TEXT._replace(mask_id=None)).words is None


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"contrast_term": 0.0}, "contrast_term must be > 0, got 0.0"),
        ({"match_term": -1.0}, "match_term must be > 0, got -1.0"),
        ({"words_term": -1.0}, "words_term must be >= 0, got -1.0"),
        ({"distillation": 1.5, "momentum": 0.9}, r"distillation must lie in \[0, 1\], got 1.5"),
        ({"distillation": 0.5, "momentum": 1.0}, r"momentum must be null or lie in \[0, 1\), got 1.0"),
        ({"distillation": 0.5}, "go together, got distillation=0.5, momentum=None"),
        ({"momentum": 0.9}, "go together, got distillation=0.0, momentum=0.9"),
    ],
)
def test_wrong_terms_are_refused_by_name(options: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        joint(**options)  # type: ignore[arg-type]
