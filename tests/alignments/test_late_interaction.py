"""Late interaction: cosines of tokens one by one in plain loops, and what the blocks keep."""

import math

import pytest
import torch
import torch.nn.functional as F
from contract.alignment_inputs import IMAGE, TEXT, Input, batch_of, padded, pairs_of
from torch import Tensor

from mmlit.alignments.late_interaction import LateInteraction
from mmlit.contracts import Encoded
from mmlit.layers.heads import HeadKind


def late_interaction(
    *,
    dim: int | None = 5,
    image_head: HeadKind = "linear",
    text_head: HeadKind = "linear",
    token_dim: int = 6,
    dropout: float = 0.0,
    temperature: float = 0.2,
    learn_temperature: bool = True,
) -> LateInteraction:
    torch.manual_seed(0)
    return LateInteraction(
        image=IMAGE,
        text=TEXT,
        dim=dim,
        image_head=image_head,
        text_head=text_head,
        token_dim=token_dim,
        dropout=dropout,
        temperature=temperature,
        learn_temperature=learn_temperature,
    )


def wide(given: Input) -> Input:
    """In fp64."""
    image, text = (Encoded(side.tokens.double(), side.pooled.double(), side.mask) for side in (given.image, given.text))
    return given._replace(image=image, text=text)


def batch() -> Input:
    """An image twice, with captions for both copies, texts of different lengths, padding on both sides."""
    given = wide(batch_of([3, 1, 4, 1, 7], [1, 4, 3, 1, 1, 7, 3]))
    return given._replace(image=padded(given.image, 2), text=padded(given.text, 1))


def slow(alignment: LateInteraction, given: Input) -> Tensor:
    """FILIP, Eq. 3–5, and the mean of the two, token by token."""
    image_layer, text_layer = alignment.image_tokens, alignment.text_tokens
    rows = []
    for n in range(len(given.image.pooled)):
        row = []
        for m in range(len(given.text.pooled)):
            patches = [
                image_layer(token)
                for token, kept in zip(given.image.tokens[n], given.image.mask[n], strict=True)
                if kept
            ]
            words = [
                text_layer(token) for token, kept in zip(given.text.tokens[m], given.text.mask[m], strict=True) if kept
            ]
            cosines = [[(p @ w) / (p.norm() * w.norm()) for w in words] for p in patches]
            of_patches = sum(max(row) for row in cosines) / len(patches)
            of_words = sum(max(column) for column in zip(*cosines, strict=True)) / len(words)
            row.append((of_patches + of_words) / 2)
        rows.append(torch.stack(row))
    return torch.stack(rows)


@pytest.mark.parametrize("products", [1, 100, 2**19])
def test_scores_equal_the_loops(products: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Trap 18: whatever the size of the blocks; a wrong place of a sorted text would show, too."""
    monkeypatch.setattr("mmlit.alignments.late_interaction.PRODUCTS", products)
    alignment, given = late_interaction().double(), batch()
    tokens = [
        F.normalize(alignment.image_tokens(given.image.tokens), dim=-1),
        F.normalize(alignment.text_tokens(given.text.tokens), dim=-1),
    ]
    image = Encoded(tokens[0], given.image.pooled, given.image.mask)
    text = Encoded(tokens[1], given.text.pooled, given.text.mask)
    torch.testing.assert_close(alignment.score(image, text), slow(alignment, given))
    embedded = alignment.embed_image(given.image), alignment.embed_text(given.text)
    torch.testing.assert_close(alignment.score(*embedded).double(), slow(alignment, given), rtol=1e-5, atol=1e-6)


def test_losses_are_both_directions_of_both_scores() -> None:
    """Traps 8 and 17: cosines over 0.2; an image that is twice in the batch has all of its captions as positives."""
    alignment, given = late_interaction().double(), batch()
    with torch.no_grad():
        alignment.pooled_temperature.log_scale.fill_(math.log(4))
    pairs = pairs_of(alignment, given)
    terms = alignment.losses(pairs)
    pooled = (
        F.normalize(alignment.space.image(given.image.pooled), dim=-1)
        @ F.normalize(alignment.space.text(given.text.pooled), dim=-1).T
    )
    tokens, true = slow(alignment, given) / 0.2, given.image_id[:, None] == given.text_image_id
    expected = {"i2t": (tokens, true), "t2i": (tokens.T, true.T)}
    expected |= {"pooled_i2t": (4 * pooled, true), "pooled_t2i": (4 * pooled.T, true.T)}
    assert list(terms) == list(expected)
    for name, (logits, own) in expected.items():
        rows = [-0.5 * row.log_softmax(0)[kept].mean() for row, kept in zip(logits, own, strict=True)]
        torch.testing.assert_close(terms[name].double(), torch.stack(rows), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(alignment.coarse(pairs.image, pairs.text).double(), pooled, rtol=1e-5, atol=1e-6)


def test_gradients_equal_those_of_the_loops() -> None:
    """Of random weights on all scores: blocks made again in the backward pass lose nothing."""
    alignment, given = late_interaction().double(), batch()
    cotangent = torch.randn(5, 7, generator=torch.Generator().manual_seed(1)).double()
    layers = [*alignment.image_tokens.parameters(), *alignment.text_tokens.parameters()]
    scores = alignment.score(alignment.embed_image(given.image), alignment.embed_text(given.text))
    fast, explicit = (
        torch.autograd.grad((cotangent * values).sum(), layers) for values in (scores, slow(alignment, given))
    )
    for one, other in zip(fast, explicit, strict=True):
        assert other.abs().max() > 1e-3
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)


def of_tokens(patches: list[list[float]], words: list[list[float]]) -> tuple[Encoded, Encoded]:
    """One image and one text of these unit vectors."""
    tokens = torch.tensor([patches]).float(), torch.tensor([words]).float()
    image, text = (Encoded(part, part.mean(1), torch.ones(1, part.shape[1], dtype=torch.bool)) for part in tokens)
    return image, text


def test_a_case_by_hand() -> None:
    """On the unit circle: words at 0°, 90°; patches at 0°, 60°, 180°.

    Best of the words: 1 and cos 30°. Best of the patches: 1, cos 30° and cos 90°.
    """
    half, high = 0.5, math.sqrt(0.75)
    image, text = of_tokens([[1, 0], [half, high], [-1, 0]], [[1, 0], [0, 1]])
    expected = 0.5 * ((1 + high) / 2 + (1 + high + 0) / 3)
    torch.testing.assert_close(late_interaction().score(image, text), torch.tensor([[expected]]))


def test_the_order_of_tokens_does_not_matter_and_opposites_score_minus_one() -> None:
    """A bag of tokens; padding, whose product would be 0, is no better match than an opposite one."""
    alignment = late_interaction()
    image, text = of_tokens([[0, 1], [1, 0]], [[1, 0], [0, 1], [0, 1]])
    torch.testing.assert_close(alignment.score(image, text), torch.ones(1, 1))
    image, text = of_tokens([[0, 1]], [[0, -1]])
    torch.testing.assert_close(alignment.score(padded(image, 3), padded(text, 2)), -torch.ones(1, 1))


def test_no_product_of_tokens_is_kept_for_the_backward_pass() -> None:
    """Memory: what autograd keeps of 64 × 64 pairs is a small part of one product per pair, word and patch."""
    alignment, ids = late_interaction(), list(range(64))
    given = batch_of(ids, ids)
    image, text = alignment.embed_image(given.image), alignment.embed_text(given.text)
    kept: list[Tensor] = []

    def note(tensor: Tensor) -> Tensor:
        kept.append(tensor)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        alignment.score(image, text)
    size = sum({t.untyped_storage().data_ptr(): t.untyped_storage().nbytes() for t in kept}.values())
    assert 0 < size < 64 * 64 * image.tokens.shape[1] * text.tokens.shape[1] * 4 / 4


def test_temperatures_are_learned_apart_and_clamped_or_fixed() -> None:
    """Trap 16."""
    learned, given = late_interaction(), batch_of([1, 2], [1, 2])
    scales = [learned.temperature.log_scale, learned.pooled_temperature.log_scale]
    for scale in scales:
        scale.data.fill_(-1.0)
    learned.after_step(pairs_of(learned, given))
    assert [scale.item() for scale in scales] == [0, 0]
    fixed = late_interaction(learn_temperature=False, temperature=3.0)
    assert not [name for name, _ in fixed.named_parameters() if "temperature" in name]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"token_dim": 0}, "token_dim must be >= 1, got 0"),
        ({"dropout": 1.0}, r"dropout must lie in \[0, 1\), got 1.0"),
        ({"temperature": 0.001}, r"a learned temperature must start in \[0.01, 1\], got 0.001"),
        ({"temperature": -1.0, "learn_temperature": False}, "temperature must be > 0, got -1.0"),
        ({"dim": None}, r"alignment\.dim may be null only where one head is identity"),
        ({"image_head": "identity"}, r"keeps the encoder's width 32, .* dim 5: set alignment\.dim=32 \(or null\)"),
    ],
)
def test_wrong_options_are_refused_by_name(options: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        late_interaction(**options)  # type: ignore[arg-type]
