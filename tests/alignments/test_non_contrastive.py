"""Non-contrastive: variance, invariance and covariance, no negatives."""

import math

import pytest
import torch
from contract.alignment_inputs import IMAGE, TEXT, Input, batch_of, pairs_of, usual_batch

from mmlit.alignments.non_contrastive import NonContrastive
from mmlit.contracts import Encoded, Pairs
from mmlit.layers.heads import HeadKind


def non_contrastive(
    *,
    dim: int | None = 5,
    image_head: HeadKind = "linear",
    text_head: HeadKind = "linear",
    dropout: float = 0.0,
    expander_dim: int = 6,
    invariance: float = 3.0,
    variance: float = 2.0,
    covariance: float = 0.5,
) -> NonContrastive:
    torch.manual_seed(0)
    return NonContrastive(
        image=IMAGE,
        text=TEXT,
        dim=dim,
        image_head=image_head,
        text_head=text_head,
        dropout=dropout,
        expander_dim=expander_dim,
        invariance=invariance,
        variance=variance,
        covariance=covariance,
    )


def made(given: Input, image: torch.Tensor, text: torch.Tensor, **share: slice) -> Pairs:
    """What `losses` gets, with these vectors in place of the expanders'."""
    pairs = pairs_of(non_contrastive(), given, **share)
    everyone = [Encoded(side[:, :0, None], side, side[:, :0].bool()) for side in (image, text)]
    own = [side.take(rows) for side, rows in zip(everyone, (pairs.image_rows, pairs.text_rows), strict=True)]
    return pairs._replace(image=own[0], text=own[1], all_image=everyone[0], all_text=everyone[1])


def vectors(count: int, seed: int) -> torch.Tensor:
    """(B,3), fp64: dimensions of deviation 2, ½ and 0.1, the first two of which go together."""
    drawn = torch.randn(count, 3, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    drawn[:, 1] += drawn[:, 0]
    return drawn * torch.tensor([2.0, 0.5, 0.1]) + 1


def variance_by_loops(rows: list[list[float]]) -> float:
    """Eq. 1 and 2: v(Z) = 1/d Σ_j max(0, 1 − sqrt(Var(z^j) + 1e-4))."""
    total = 0.0
    for column in zip(*rows, strict=True):
        mean = sum(column) / len(column)
        deviation = math.sqrt(sum((x - mean) ** 2 for x in column) / (len(column) - 1) + 1e-4)
        total += max(0.0, 1 - deviation)
    return total / len(rows[0])


def covariance_by_loops(rows: list[list[float]]) -> float:
    """Eq. 3 and 4: c(Z) = 1/d Σ_{i≠j} C(Z)_ij²."""
    columns = [list(column) for column in zip(*rows, strict=True)]
    means = [sum(column) / len(column) for column in columns]
    total = 0.0
    for i, one in enumerate(columns):
        for j, other in enumerate(columns):
            products = ((a - means[i]) * (b - means[j]) for a, b in zip(one, other, strict=True))
            if i != j:
                total += (sum(products) / (len(rows) - 1)) ** 2
    return total / len(columns)


@pytest.mark.parametrize("share", [{}, {"images_at": slice(1, 4), "texts_at": slice(2, 6)}], ids=["alone", "share"])
def test_losses_equal_the_loops(share: dict[str, slice]) -> None:
    """Traps 8 and 13: 5 images of which two are one, 7 texts; a device's texts, but the statistics of all."""
    given = batch_of([3, 1, 4, 1, 9], [1, 4, 3, 1, 9, 4, 3])
    image, text = vectors(5, 0), vectors(7, 1)
    terms = non_contrastive().losses(made(given, image, text, **share))
    assert list(terms) == ["invariance", "variance", "covariance"]
    distances = []
    for vector, owner in zip(text.tolist(), given.text_image_id.tolist(), strict=True):
        own = [other for other, i in zip(image.tolist(), given.image_id.tolist(), strict=True) if i == owner]
        apart = [sum((a - b) ** 2 for a, b in zip(vector, other, strict=True)) / 3 for other in own]
        distances.append(3.0 * sum(apart) / len(apart))
    expected = torch.tensor(distances, dtype=torch.float64)[share.get("texts_at", slice(None))]
    torch.testing.assert_close(terms["invariance"], expected, rtol=1e-10, atol=0)
    sides = image.tolist(), text.tolist()
    expected = torch.tensor([2.0 * sum(map(variance_by_loops, sides))], dtype=torch.float64)
    torch.testing.assert_close(terms["variance"], expected, rtol=1e-10, atol=0)
    expected = torch.tensor([0.5 * sum(map(covariance_by_loops, sides))], dtype=torch.float64)
    torch.testing.assert_close(terms["covariance"], expected, rtol=1e-10, atol=0)


def test_what_is_spread_and_uncorrelated_costs_nothing_but_distance() -> None:
    """The corners of a cube of side 3 on both sides, the second moved by ½: deviation 1.6, no covariance."""
    cube = 3 * torch.cartesian_prod(*[torch.tensor([0.0, 1.0]).double()] * 3)
    given = batch_of(list(range(8)), list(range(8)))
    terms = non_contrastive().losses(made(given, cube, cube + 0.5))
    torch.testing.assert_close(terms["invariance"], torch.full((8,), 3 * 0.25).double())
    torch.testing.assert_close(terms["variance"], torch.zeros(1).double())
    torch.testing.assert_close(terms["covariance"], torch.zeros(1).double())


def test_a_collapsed_batch_costs_the_whole_hinge() -> None:
    """Equal vectors, even only one: 1 − √ε in every dimension, with a finite gradient."""
    for count in (1, 4):
        same = torch.ones(count, 3).double().requires_grad_()
        terms = non_contrastive().losses(made(batch_of([*range(count)], [*range(count)]), same, same))
        torch.testing.assert_close(terms["variance"], torch.tensor([2 * 2 * (1 - 0.01)]).double())
        gradient = torch.autograd.grad(torch.cat(list(terms.values())).sum(), same)[0]
        assert torch.equal(gradient, torch.zeros_like(gradient))


def test_other_items_are_no_negatives() -> None:
    """An unrelated image may coincide with a text at no cost: invariance looks at pairs alone."""
    given = batch_of([1, 2], [1, 2])
    near, far = torch.eye(2, 3).double(), torch.ones(2, 3).double()
    for image in (near, torch.stack([near[0], far[0]])):
        terms = non_contrastive().losses(made(given, image, near))
        assert terms["invariance"][0] == 0


def test_statistics_are_made_in_fp32_under_autocast() -> None:
    alignment = non_contrastive()
    with torch.autocast("cpu", torch.bfloat16):
        pairs = pairs_of(alignment, usual_batch())
        terms = alignment.losses(pairs)
        assert alignment.score(pairs.image, pairs.text).dtype == torch.float32
    expected = alignment.losses(pairs)
    assert all(torch.equal(term, expected[name]) and term.dtype == torch.float32 for name, term in terms.items())


def test_the_score_is_the_cosine_of_expanded_vectors() -> None:
    """Trap 18: their lengths, which the hinge moves, do not count."""
    alignment = non_contrastive()
    pairs = pairs_of(alignment, usual_batch())
    image, text = pairs.image.pooled, pairs.text.pooled
    expected = torch.nn.functional.cosine_similarity(image[:, None], text[None], dim=-1)
    torch.testing.assert_close(alignment.score(pairs.image, pairs.text), expected)
    longer = pairs.image._replace(pooled=7 * image)
    torch.testing.assert_close(alignment.score(longer, pairs.text), expected)
    assert image.shape[1] == 6


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"expander_dim": 1}, "expander_dim must be >= 2, got 1"),
        ({"invariance": 0.0}, "invariance must be > 0, got 0.0"),
        ({"variance": -1.0}, "variance must be > 0, got -1.0"),
        ({"covariance": math.nan}, "covariance must be > 0, got nan"),
        ({"dropout": 1.0}, r"dropout must lie in \[0, 1\), got 1.0"),
        ({"dim": None}, r"alignment\.dim may be null only where one head is identity"),
    ],
)
def test_wrong_options_are_refused_by_name(options: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        non_contrastive(**options)  # type: ignore[arg-type]
