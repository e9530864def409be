"""Label smoothing, harder negatives and the decoupled denominator: the numbers of plain loops, in tiles."""

import math
from itertools import product

import pytest
import torch
import torch.nn.functional as F
from losses.made_pairs import made_pairs, unit
from torch import Tensor
from torch.autograd.profiler import profile

from mmlit.losses import tiles
from mmlit.losses.reweighted_info_nce import reweighted_info_nce
from mmlit.losses.tiled_info_nce import tiled_info_nce

#: images 1 and 3 come twice; some captions are three of one image
IMAGE_ID = [3, 1, 4, 1, 5, 9, 2, 6, 3]
OWNER = [1, 4, 3, 1, 1, 9, 5, 2, 6, 2, 3]
MIX = ([1, 3, 4, 1, 3, 6, 5, 2, 9], [0.75, 0.625, 0.25, 0.5, 1.0, 0.0, 0.25, 0.75, 0.875])
WHOLE = slice(None)
OPTIONS = list(product((0.0, 0.1), (0.0, 0.7), (False, True)))


@pytest.fixture(autouse=True)
def small_tiles(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tiles of 4 × 4 and less."""
    monkeypatch.setattr(tiles, "CPU_SIDE", 4)


def slow(scores: Tensor, positives: Tensor, smoothing: float, beta: float, decoupled: bool) -> Tensor:
    """DiHT's w_ij = n e^(β s_ij) / Σ_k e^(β s_ik) over a row's others, and the rest of the formula, in plain loops."""
    losses = []
    for row, true in zip(scores, positives, strict=True):
        columns, target, own, normal, number = range(len(row)), 0.0, 0.0, 0.0, 0.0
        for j in columns:
            target = target + row[j] * ((1 - smoothing) * true[j] / true.sum() + smoothing / len(row))
            own = own + true[j] * row[j].exp()
            normal = normal + (1 - true[j]) * (beta * row[j]).exp()
            number = number + (1 - true[j])
        other = 0.0
        for j in columns:
            if true[j] < 1:
                other = other + (1 - true[j]) * row[j].exp() * number * (beta * row[j]).exp() / normal
        if decoupled:
            losses.append(row.sum() * 0 if number == 0 else torch.as_tensor(other).log() - target)
        else:
            losses.append((own + other).log() - target)
    return torch.stack(losses)


def weighted(terms: tuple[Tensor, Tensor]) -> Tensor:
    """A sum with a weight of its own for each row, negative ones too."""
    return torch.stack([(term * torch.linspace(-0.5, 2, len(term)).to(term)).sum() for term in terms]).sum()


@pytest.mark.parametrize(("smoothing", "beta", "decoupled"), OPTIONS)
@pytest.mark.parametrize(
    ("images_at", "texts_at", "mix"), [(WHOLE, WHOLE, None), (slice(2, 9), slice(6, 11), MIX)], ids=["alone", "share"]
)
def test_values_and_gradients_are_those_of_the_loops(
    images_at: slice,
    texts_at: slice,
    mix: tuple[list[int], list[float]] | None,
    smoothing: float,
    beta: float,
    decoupled: bool,
) -> None:
    """Traps 8, 13 and 14: several positives, alone and as a device's share, mixed pictures."""
    image, text, log_scale = unit(9, 5, 0), unit(11, 5, 1), torch.tensor(1.3).double().requires_grad_()
    pairs = made_pairs(image, text, IMAGE_ID, OWNER, images_at=images_at, texts_at=texts_at, mix=mix)
    scores, positives = log_scale.exp() * (image @ text.T), pairs.positives(WHOLE, WHOLE).double()
    options = smoothing, beta, decoupled
    expected = (
        slow(scores[images_at], positives[images_at], *options),
        slow(scores.T[texts_at], positives.T[texts_at], *options),
    )
    found = reweighted_info_nce(pairs, log_scale.exp(), label_smoothing=smoothing, hardness=beta, decoupled=decoupled)
    # positives and their weights are fp32
    torch.testing.assert_close(found, expected, rtol=1e-7, atol=1e-7)
    leaves = image, text, log_scale
    gradients = (torch.autograd.grad(weighted(terms), leaves) for terms in (found, expected))
    torch.testing.assert_close(*gradients, rtol=1e-6, atol=1e-7)


def test_without_options_it_is_info_nce() -> None:
    image, text, scale = unit(9, 5, 0), unit(11, 5, 1), torch.tensor(9.0).double()
    pairs = made_pairs(image, text, IMAGE_ID, OWNER)
    found = reweighted_info_nce(pairs, scale, label_smoothing=0.0, hardness=0.0, decoupled=False)
    torch.testing.assert_close(found, tiled_info_nce(pairs, scale), rtol=1e-11, atol=1e-12)


def test_smoothing_is_that_of_cross_entropy() -> None:
    """One positive per row: torch's own label smoothing."""
    image, text, scale = unit(7, 5, 0), unit(7, 5, 1), torch.tensor(5.0).double()
    pairs = made_pairs(image, text, list(range(7)), list(range(7)))
    found = reweighted_info_nce(pairs, scale, label_smoothing=0.2, hardness=0.0, decoupled=False)
    scores, target = scale * image @ text.T, torch.arange(7)
    for term, logits in zip(found, (scores, scores.T), strict=True):
        expected = F.cross_entropy(logits, target, label_smoothing=0.2, reduction="none")
        torch.testing.assert_close(term, expected, rtol=1e-10, atol=1e-12)


def test_of_ever_harder_negatives_the_hardest_remains() -> None:
    """β → ∞: the denominator is e^s + n · e^(greatest other)."""
    image, text, scale = unit(7, 5, 0), unit(7, 5, 1), torch.tensor(2.0).double()
    pairs = made_pairs(image, text, list(range(7)), list(range(7)))
    i2t, _ = reweighted_info_nce(pairs, scale, label_smoothing=0.0, hardness=400.0, decoupled=False)
    scores = scale * image @ text.T
    own, hardest = scores.diagonal(), scores.masked_fill(torch.eye(7).bool(), -torch.inf).amax(1)
    torch.testing.assert_close(i2t, (own.exp() + 6 * hardest.exp()).log() - own, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize(("smoothing", "beta", "decoupled"), OPTIONS)
def test_a_row_with_positives_only(smoothing: float, beta: float, decoupled: bool) -> None:
    """Trap 8: two copies of one image and their captions; finite, with finite gradients."""
    image, text, scale = unit(2, 5, 0), unit(3, 5, 1), torch.tensor(2.0).double().requires_grad_()
    pairs = made_pairs(image, text, [4, 4], [4, 4, 4])
    found = reweighted_info_nce(pairs, scale, label_smoothing=smoothing, hardness=beta, decoupled=decoupled)
    expected = slow(scale * image @ text.T, torch.ones(2, 3).double(), smoothing, beta, decoupled)
    torch.testing.assert_close(found[0], expected, rtol=1e-10, atol=1e-12)
    assert all(part.isfinite().all() for part in torch.autograd.grad(weighted(found), (image, text, scale)))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_low_precision_is_computed_in_fp32(dtype: torch.dtype) -> None:
    """Trap 3."""
    given = [unit(9, 32, seed, dtype).detach() for seed in (0, 1)]
    results = []
    for wanted, autocast in ((dtype, True), (torch.float32, False)):
        with torch.autocast("cpu", dtype, enabled=autocast):
            pairs = made_pairs(*(side.to(wanted) for side in given), [*range(9)], [*range(9)])
            results.append(
                reweighted_info_nce(pairs, torch.tensor(30.0), label_smoothing=0.1, hardness=0.5, decoupled=True)
            )
    assert all(torch.equal(one, other) and one.dtype == torch.float32 for one, other in zip(*results, strict=True))


def test_the_matrix_of_all_pairs_never_exists() -> None:
    """Of 9 × 11 pairs nothing is larger than the true pairs' vectors, forward and backward."""
    image, text = unit(9, 3, 0), unit(11, 3, 1)
    pairs = made_pairs(image, text, IMAGE_ID, OWNER)
    true = int(pairs.positives(WHOLE, WHOLE).sum())
    with profile(record_shapes=True) as operations:
        terms = reweighted_info_nce(
            pairs, torch.tensor(3.0).double(), label_smoothing=0.1, hardness=0.5, decoupled=True
        )
        weighted(terms).backward()
    events = operations.function_events
    assert max(torch.Size(shape).numel() for event in events for shape in event.input_shapes) <= 3 * true < 9 * 11


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"label_smoothing": 1.0}, r"label_smoothing must lie in \[0, 1\), got 1.0"),
        ({"label_smoothing": -0.1}, r"label_smoothing must lie in \[0, 1\), got -0.1"),
        ({"hardness": -1.0}, "hardness must be a number >= 0, got -1.0"),
        ({"hardness": math.inf}, "hardness must be a number >= 0, got inf"),
    ],
)
def test_wrong_options_are_refused(options: dict[str, float], message: str) -> None:
    pairs = made_pairs(unit(2, 3, 0), unit(2, 3, 1), [1, 2], [1, 2])
    with pytest.raises(ValueError, match=message):
        reweighted_info_nce(
            pairs, torch.ones(()), **{"label_smoothing": 0.0, "hardness": 0.0, "decoupled": False, **options}
        )
