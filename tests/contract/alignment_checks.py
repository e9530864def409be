"""What every alignment holds, whatever its method: each `check_*` gets a function that builds a fresh one."""

from collections.abc import Callable

import torch
from contract.alignment_inputs import (
    Input,
    batch_of,
    fit,
    padded,
    pairs_of,
    scores_of,
    total,
    usual_batch,
    without_dropout,
)
from torch import Tensor

from mmlit.contracts import Alignment, Encoded

Build = Callable[[], Alignment]


def check_losses_are_finite_vectors(build: Build) -> None:
    for mode in (True, False):
        alignment = build().train(mode)
        terms = alignment.losses(pairs_of(alignment, usual_batch()))
        assert terms, "an alignment needs at least one term"
        for name, term in terms.items():
            assert term.ndim == 1, f"{name} must have one value per row, got shape {tuple(term.shape)}"
            assert len(term) > 0, f"{name} has no row"
            assert term.isfinite().all(), f"{name} is {term}"
        assert total(terms) > 0


def check_every_parameter_gets_a_gradient_and_moves(build: Build) -> None:
    """A parameter without a gradient stops DDP; one that never moves is not there for anything."""
    alignment = build()
    trainable = {name: p for name, p in alignment.named_parameters() if p.requires_grad}
    before = {name: parameter.detach().clone() for name, parameter in trainable.items()}
    total(alignment.losses(pairs_of(alignment, usual_batch()))).backward()
    missing = [name for name, parameter in trainable.items() if parameter.grad is None]
    assert not missing, f"no gradient: {missing}"
    wrong = [name for name, parameter in trainable.items() if not parameter.grad.isfinite().all()]  # type: ignore[union-attr]
    assert not wrong, f"gradient not finite: {wrong}"
    fit(alignment, usual_batch(), steps=3)
    still = [name for name, parameter in trainable.items() if torch.equal(parameter, before[name])]
    assert not still, f"did not move in three steps: {still}"


def check_embeddings_are_encoded(build: Build) -> None:
    """Items first, tokens and mask of one length, and no tokens for what does not read tokens."""
    alignment, given = build().eval(), usual_batch()
    sides = (alignment.embed_image(given.image), given.image), (alignment.embed_text(given.text), given.text)
    for embedded, encoded in sides:
        assert isinstance(embedded, Encoded)
        assert len(embedded.tokens) == len(embedded.pooled) == len(embedded.mask) == len(encoded.pooled)
        assert embedded.pooled.ndim == 2
        assert embedded.tokens.shape[:2] == embedded.mask.shape
        assert embedded.mask.dtype == torch.bool
        if not alignment.needs_tokens:
            assert embedded.tokens.shape[1] == 0, "an alignment without needs_tokens must return tokens of length 0"
    assert sides[0][0].pooled.shape[1] == sides[1][0].pooled.shape[1]


def check_score_is_images_by_texts(build: Build) -> None:
    """Traps 3 and 18: (N,M) in fp32, a cosine unless the docstring of `score` says otherwise."""
    alignment, given = build().eval(), usual_batch()
    scores = scores_of(alignment, given)
    assert scores.shape == (5, 7)
    assert scores.isfinite().all()
    assert len(scores.unique()) > 20, "scores must tell pairs apart"
    with torch.autocast("cpu", torch.bfloat16):
        assert scores_of(alignment, given).dtype == torch.float32
    if "not a cosine" not in (type(alignment).score.__doc__ or "").lower():
        many = batch_of(list(range(30)), list(range(30)))
        assert scores_of(alignment, many).abs().max() <= 1 + 1e-5
        wide = many._replace(image=_scaled(many.image, 50.0), text=_scaled(many.text, 50.0))
        assert scores_of(alignment, wide).abs().max() <= 1 + 1e-5


def check_score_of_a_block_is_the_block_of_the_score(build: Build) -> None:
    alignment, given = build().eval(), batch_of(list(range(11)), list(range(13)))
    image, text = alignment.embed_image(given.image), alignment.embed_text(given.text)
    for function in _scorers(alignment):
        whole = function(image, text)
        assert whole.shape == (11, 13)
        for rows in (slice(0, 1), slice(2, 11), slice(5, 9)):
            for columns in (slice(12, 13), slice(0, 10), slice(3, 7)):
                _close(function(image.take(rows), text.take(columns)), whole[rows, columns])


def check_permuting_items_permutes_scores(build: Build) -> None:
    alignment, given = build().eval(), usual_batch()
    rows, columns = torch.tensor([4, 0, 2, 1, 3]), torch.tensor([6, 2, 0, 5, 1, 4, 3])
    moved = given._replace(image=given.image.take(rows), text=given.text.take(columns))
    _close(scores_of(alignment, moved), scores_of(alignment, given)[rows][:, columns])


def check_padding_changes_nothing(build: Build) -> None:
    """More masked tokens of any value, on either side, change no score, no loss and no gradient."""
    alignment, given = without_dropout(build()), usual_batch()
    longer = given._replace(image=padded(given.image, 2), text=padded(given.text, 3))
    results = []
    for batch in (given, longer):
        alignment.zero_grad()
        terms = alignment.losses(pairs_of(alignment, batch))
        total(terms).backward()
        gradients = {name: p.grad.clone() for name, p in alignment.named_parameters() if p.grad is not None}
        results.append((terms, gradients))
    for short, long in zip(*results, strict=True):
        _close_by_name(long, short)
    _close(scores_of(alignment, longer), scores_of(alignment, given))


def check_nobody_else_in_the_batch_matters(build: Build) -> None:
    """Trap 21: an item's embedding is the same alone, in company, and in other company; in both modes."""
    for alignment in (build().eval(), without_dropout(build())):
        given = usual_batch()
        for embed, encoded in ((alignment.embed_image, given.image), (alignment.embed_text, given.text)):
            together = embed(encoded)
            for item in range(len(encoded.pooled)):
                alone = slice(item, item + 1)
                for one, many in zip(embed(encoded.take(alone)), together.take(alone), strict=True):
                    _close(one.float(), many.float())


def check_batch_of_one(build: Build) -> None:
    """Trap 19: one image with one text, one with three, and three images with one text, in losses and scores."""
    for image_id, owner in (([3], [3]), ([3], [3, 3, 3]), ([3, 3, 3], [3])):
        alignment, given = build(), batch_of(image_id, owner)
        assert alignment.embed_image(given.image).pooled.shape[0] == len(image_id)
        assert alignment.embed_text(given.text).pooled.shape[0] == len(owner)
        terms = alignment.losses(pairs_of(alignment, given))
        assert all(term.ndim == 1 and term.isfinite().all() for term in terms.values()), terms
        total(terms).backward()
        for name, parameter in alignment.named_parameters():
            assert parameter.grad is None or parameter.grad.isfinite().all(), f"gradient of {name}"
        alignment.eval()
        for function in _scorers(alignment):
            scores = function(alignment.embed_image(given.image), alignment.embed_text(given.text))
            assert scores.shape == (len(image_id), len(owner))
            assert scores.isfinite().all()


def check_inputs_are_not_mutated(build: Build) -> None:
    alignment, given = build(), usual_batch()
    before = _copied(given)
    pairs = pairs_of(alignment, given)
    embedded = _copied(pairs[:9])
    alignment.losses(pairs)
    alignment.score(pairs.image, pairs.text)
    _same(_copied(pairs[:9]), embedded)
    _same(_copied(given), before)


def check_losses_have_no_side_effect(build: Build) -> None:
    """What `losses` keeps would move twice under a gradient cache; state moves in `after_step`."""
    alignment, given = build(), usual_batch()
    pairs = pairs_of(alignment, given)
    before = {name: value.clone() for name, value in alignment.state_dict().items()}
    alignment.losses(pairs)
    after = alignment.state_dict()
    assert list(before) == list(after)
    for name, value in before.items():
        assert torch.equal(after[name], value), f"losses moved {name}"
    without_dropout(alignment)
    _close_by_name(alignment.losses(pairs), alignment.losses(pairs))


def check_no_layer_is_made_in_forward(build: Build) -> None:
    """Trap 20: the parameters are the same objects after two passes, and nothing has come or gone."""
    alignment, given = build(), usual_batch()
    keys, identities = list(alignment.state_dict()), [id(parameter) for parameter in alignment.parameters()]
    modules = [id(module) for module in alignment.modules()]
    for _ in range(2):
        pairs = pairs_of(alignment, given)
        total(alignment.losses(pairs)).backward()
        alignment.score(pairs.image, pairs.text)
    assert list(alignment.state_dict()) == keys
    assert [id(parameter) for parameter in alignment.parameters()] == identities
    assert [id(module) for module in alignment.modules()] == modules
    without_dropout(alignment)
    _close(scores_of(alignment, given), scores_of(alignment, given))


def check_same_seed_same_numbers(build: Build) -> None:
    results = []
    for seed in (3, 3, 4):
        torch.manual_seed(seed)
        alignment = build()
        fit(alignment, usual_batch(), steps=2)
        results.append(scores_of(alignment, usual_batch()))
    assert torch.equal(results[0], results[1])
    assert not torch.equal(results[0], results[2])


def check_two_devices_give_the_numbers_of_one(build: Build) -> None:
    """Traps 4, 8, 13 and 14: uneven shares, an image in both of them; the row-weighted mean and its gradient agree."""
    alignment = without_dropout(build())
    given = batch_of([5, 1, 2, 3, 5, 7, 8, 9], [1, 5, 2, 5, 9, 3, 7, 5, 8, 9])
    whole = alignment.losses(pairs_of(alignment, given))
    shares = [
        alignment.losses(pairs_of(alignment, given, images_at=images_at, texts_at=texts_at))
        for images_at, texts_at in ((slice(0, 3), slice(0, 4)), (slice(3, 8), slice(4, 10)))
    ]
    assert all(list(share) == list(whole) for share in shares)
    means = {}
    for name in whole:
        rows = torch.cat([share[name] for share in shares])
        means[name] = rows.sum() / len(rows)
    _close_by_name(means, {name: term.mean() for name, term in whole.items()})
    trainable = [parameter for parameter in alignment.parameters() if parameter.requires_grad]
    own, shared = (
        torch.autograd.grad(loss, trainable, retain_graph=True)
        for loss in (total(whole), torch.stack(list(means.values())).sum())
    )
    for one, two in zip(own, shared, strict=True):
        _close(two, one)


def check_two_copies_of_an_image_share_their_captions(build: Build) -> None:
    """Trap 8: four images, each twice as two augmentations with a caption each: all eight pairs of ids are learned.

    A loss that takes the other copy's caption for a negative pushes it away from this copy.
    """
    torch.manual_seed(0)
    alignment = build()
    ids = [1, 2, 3, 4, 1, 2, 3, 4]
    given = batch_of(ids, ids, image_features=list(range(20, 28)))
    terms = alignment.losses(pairs_of(alignment, given))
    assert all(term.isfinite().all() for term in terms.values())
    true = given.image_id[:, None] == given.text_image_id
    for _ in range(8):
        fit(alignment, given, steps=25)
        scores = scores_of(alignment, given)
        lowest_true = scores.masked_fill(~true, torch.inf)
        highest_wrong = scores.masked_fill(true, -torch.inf)
        if (lowest_true.amin(1) > highest_wrong.amax(1)).all() and (lowest_true.amin(0) > highest_wrong.amax(0)).all():
            return
    raise AssertionError(f"a caption of the same image scores below another image's:\n{scores}")


def check_place_in_the_batch_does_not_matter(build: Build) -> None:
    """Trap 8: ids decide what is true. Row i with row i, or only one caption of a copied image, would show here."""
    alignment = without_dropout(build())
    ids = [1, 2, 3, 4, 1, 2, 3, 4]
    given = batch_of(ids, ids, image_features=list(range(20, 28)))
    means = {name: term.mean() for name, term in alignment.losses(pairs_of(alignment, given)).items()}
    straight, swapped = torch.arange(8), torch.arange(8).roll(4)
    mixed = torch.tensor([6, 1, 4, 7, 0, 3, 5, 2])
    for rows, columns in ((straight, swapped), (swapped, straight), (mixed, mixed.flip(0))):
        moved = Input(
            given.image.take(rows),
            given.text.take(columns),
            given.image_id[rows],
            given.text_id[columns],
            given.text_image_id[columns],
        )
        terms = alignment.losses(pairs_of(alignment, moved))
        _close_by_name({name: term.mean() for name, term in terms.items()}, means)


def check_mixed_pictures_train(build: Build) -> None:
    """A share between 0 and 1 of two images: finite terms, and the share matters."""
    alignment, given = without_dropout(build()), usual_batch()
    values = []
    for weight in (0.8, 0.6):
        mix = (given.image_id.roll(1), torch.full((5,), weight))
        terms = alignment.losses(pairs_of(alignment, given, mix=mix))
        assert all(term.isfinite().all() for term in terms.values()), terms
        values.append(total(terms).item())
    assert values[0] != values[1]


def check_overfits_sixteen_pairs(build: Build) -> None:
    """R@1 is 100 % both ways by `score`, ties against the model (trap 1)."""
    torch.manual_seed(0)
    alignment = build()
    ids = list(range(16))
    given, other = batch_of(ids, ids), ~torch.eye(16, dtype=torch.bool)
    assert not _all_first(scores_of(alignment, given), other), "untrained scores must not be right already"
    for _ in range(12):
        fit(alignment, given, steps=25)
        if _all_first(scores_of(alignment, given), other):
            return
    raise AssertionError("300 steps did not separate sixteen pairs")


def check_attention_map_is_a_distribution(build: Build) -> None:
    """Where it is offered: one map over the image's tokens per word, nothing on padding."""
    alignment, given = build().eval(), usual_batch()
    if not hasattr(alignment, "attention_map"):
        return
    image = alignment.embed_image(padded(given.image, 2))
    maps = alignment.attention_map(image, alignment.embed_text(given.text).take(slice(0, 5)))
    assert maps.shape == (5, given.text.tokens.shape[1], 6)
    _close(maps.sum(-1), torch.ones(maps.shape[:2]))
    assert (maps >= 0).all()
    assert torch.equal(maps[..., 4:], torch.zeros_like(maps[..., 4:]))


#: every check of this file, found by its name
CHECKS: dict[str, Callable[[Build], None]] = {
    name.removeprefix("check_"): value for name, value in list(globals().items()) if name.startswith("check_")
}


def _scorers(alignment: Alignment) -> list[Callable[[Encoded, Encoded], Tensor]]:
    coarse = getattr(alignment, "coarse", None)
    return [alignment.score] if coarse is None else [alignment.score, coarse]


def _all_first(scores: Tensor, other: Tensor) -> bool:
    wrong = scores.masked_fill(~other, -torch.inf)
    own = scores.diagonal()
    return bool((own > wrong.amax(0)).all() and (own > wrong.amax(1)).all())


def _scaled(encoded: Encoded, factor: float) -> Encoded:
    return Encoded(encoded.tokens * factor, encoded.pooled * factor, encoded.mask)


def _copied(value: object) -> list[Tensor]:
    """All tensors of a tree of tuples, cloned."""
    if isinstance(value, Tensor):
        return [value.detach().clone()]
    return [part for item in value for part in _copied(item)] if isinstance(value, tuple) else []


def _same(one: list[Tensor], other: list[Tensor]) -> None:
    assert len(one) == len(other)
    for left, right in zip(one, other, strict=True):
        assert torch.equal(left, right), "an input was changed in place"


def _close(one: Tensor, other: Tensor) -> None:
    torch.testing.assert_close(one, other, rtol=2e-4, atol=2e-5)


def _close_by_name(one: dict[str, Tensor], other: dict[str, Tensor]) -> None:
    assert list(one) == list(other)
    for name, value in one.items():
        torch.testing.assert_close(value, other[name], rtol=2e-4, atol=2e-5, msg=lambda text, n=name: f"{n}: {text}")
