"""The pairwise sigmoid loss on embeddings in tiles."""

import math
from itertools import pairwise

import pytest
import torch
import torch.nn.functional as F
from losses.made_pairs import made_pairs, unit
from torch import Tensor
from torch.autograd.profiler import profile

from mmlit.contracts import Pairs
from mmlit.losses import tiles
from mmlit.losses.sigmoid import sigmoid

#: images 1 and 3 come twice; some captions are three of one image
IMAGE_ID = [3, 1, 4, 1, 5, 9, 2, 6, 3]
OWNER = [1, 4, 3, 1, 1, 9, 5, 2, 6, 2, 3]
MIX = ([1, 3, 4, 1, 3, 6, 5, 2, 9], [0.75, 0.625, 0.25, 0.5, 1.0, 0.0, 0.25, 0.75, 0.875])
WHOLE = slice(None)


@pytest.fixture(autouse=True)
def small_tiles(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tiles of 4 × 4 and less."""
    monkeypatch.setattr(tiles, "CPU_SIDE", 4)


def dense(pairs: Pairs, scale: Tensor, bias: Tensor) -> Tensor:
    """The whole matrix, as binary cross-entropy."""
    logits = scale * (pairs.image.pooled @ pairs.all_text.pooled.T) + bias
    truth = pairs.positives(pairs.image_rows, WHOLE).to(logits)
    return F.binary_cross_entropy_with_logits(logits, truth, reduction="none").sum(1)


def numbers(scale: float, bias: float, dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor]:
    return torch.tensor(scale, dtype=dtype).requires_grad_(), torch.tensor(bias, dtype=dtype).requires_grad_()


def test_by_hand_on_the_unit_circle() -> None:
    """An image at 0°, its caption at 60°, another's at 180°; scale 2, bias −1: logits 0 and −3."""
    angles = torch.tensor([60.0, 180]).deg2rad()
    text = torch.stack([angles.cos(), angles.sin()], 1)
    loss = sigmoid(made_pairs(torch.tensor([[1.0, 0]]), text, [1], [1, 2]), *numbers(2, -1, torch.float32))
    torch.testing.assert_close(loss, torch.tensor([math.log(2) + math.log(1 + math.exp(-3))]))


def test_equals_the_loops() -> None:
    """Trap 8. Zhai et al. 2023, Sec. 3.2: Σ_j log(1 + exp(z_ij (−t x_i · y_j − b))), z = 1 for a pair, else −1."""
    image, text = unit(9, 5, 0), unit(11, 5, 1)
    cosines, expected = (image @ text.T).tolist(), []
    for row, own in zip(cosines, IMAGE_ID, strict=True):
        signs = [1 if own == other else -1 for other in OWNER]
        expected.append(sum(math.log1p(math.exp(z * (-5 * x + 1.5))) for x, z in zip(row, signs, strict=True)))
    found = sigmoid(made_pairs(image, text, IMAGE_ID, OWNER), *numbers(5, -1.5))
    torch.testing.assert_close(found, torch.tensor(expected).double(), rtol=1e-6, atol=0)


@pytest.mark.parametrize("uniform", [True, False])
@pytest.mark.parametrize("mix", [None, MIX])
@pytest.mark.parametrize("images_at", [WHOLE, slice(0, 2), slice(2, 9)])
def test_values_and_gradients_are_those_of_the_whole_matrix(
    images_at: slice, mix: tuple[list[int], list[float]] | None, uniform: bool
) -> None:
    """Traps 8, 13 and 14: alone and as a device's share, mixed pictures, one weight of all rows and many; to 1e-11."""
    leaves = unit(9, 5, 0), unit(11, 5, 1), *numbers(8, -3)
    pairs = made_pairs(*leaves[:2], IMAGE_ID, OWNER, images_at=images_at, mix=mix)
    found, expected = sigmoid(pairs, *leaves[2:]), dense(pairs, *leaves[2:])
    torch.testing.assert_close(found, expected, rtol=1e-11, atol=1e-12)
    weight = torch.full_like(found, -0.7) if uniform else torch.linspace(-0.5, 2, len(found)).double()
    gradients = (torch.autograd.grad((weight * term).sum(), leaves) for term in (found, expected))
    torch.testing.assert_close(*gradients, rtol=1e-11, atol=1e-12)


def test_gradcheck() -> None:
    def loss(image: Tensor, text: Tensor, scale: Tensor, bias: Tensor) -> Tensor:
        return sigmoid(made_pairs(image, text, [1, 2, 3, 1, 4], [4, 1, 2, 3, 1, 2]), scale, bias)

    assert torch.autograd.gradcheck(loss, (unit(5, 3, 0), unit(6, 3, 1), *numbers(3, -1)))


@pytest.mark.parametrize(("scale", "bias"), [(1.0, 0.0), (10.0, -10.0), (100.0, -12.0)])
def test_fp32_is_exact_to_1e_5(scale: float, bias: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """Against float64, 300 pairs in tiles of 128; from an untrained model's vectors to sure ones."""
    monkeypatch.setattr(tiles, "CPU_SIDE", 128)
    ids = [number % 290 for number in range(300)]
    for noise in (3.0, 0.1):
        image = unit(300, 64, 0)
        text = F.normalize(image.detach() + noise * unit(300, 64, 1).detach(), dim=1)
        results = []
        for dtype, function in ((torch.float64, dense), (torch.float32, sigmoid)):
            leaves = [side.detach().to(dtype).requires_grad_() for side in (image, text)] + [
                *numbers(scale, bias, dtype)
            ]
            loss = function(made_pairs(*leaves[:2], ids, ids), *leaves[2:]).mean()
            results.append((loss, torch.autograd.grad(loss, leaves)))
        (exact, exact_gradients), (loss, gradients) = results
        assert abs(loss.item() / exact.item() - 1) < 1e-5
        for one, other in zip(exact_gradients, gradients, strict=True):
            assert (one - other).norm() < 1e-5 * one.norm()


def test_limits() -> None:
    """At scale 0 only the bias counts; sure answers cost nothing, wrong ones their logit, even where exp overflows."""
    image, text = unit(6, 3, 0), unit(9, 3, 1)
    pairs = made_pairs(image, text, [*range(6)], [*range(6), 10, 11, 12])
    expected = math.log(1 + math.exp(2)) + 8 * math.log(1 + math.exp(-2))
    torch.testing.assert_close(sigmoid(pairs, *numbers(0, -2)), torch.full((6,), expected).double())
    same = torch.eye(6)
    sure, wrong = (made_pairs(same, same.clone(), ids, [*range(6)]) for ids in ([*range(6)], [*range(10, 16)]))
    torch.testing.assert_close(sigmoid(sure, *numbers(400, -200, torch.float32)), torch.zeros(6))
    torch.testing.assert_close(sigmoid(wrong, *numbers(400, -200, torch.float32)), torch.full((6,), 200.0))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("uniform", [True, False])
def test_low_precision_is_computed_in_fp32(dtype: torch.dtype, uniform: bool) -> None:
    """Trap 3: under autocast exactly the value of the same numbers in fp32, and their gradient in `dtype`."""
    given = [unit(9, 32, seed, dtype).detach() for seed in (0, 1)]
    results = []
    for wanted, autocast in ((dtype, True), (torch.float32, False)):
        leaves = [side.to(wanted).requires_grad_() for side in given] + [*numbers(10, -10, torch.float32)]
        with torch.autocast("cpu", dtype, enabled=autocast):
            loss = sigmoid(made_pairs(*leaves[:2], [*range(9)], [*range(9)]), *leaves[2:])
            weight = torch.ones(9) if uniform else torch.linspace(1, 2, 9)
            gradients = torch.autograd.grad((weight * loss).sum(), leaves)
        assert loss.dtype == torch.float32
        assert [one.dtype for one in gradients] == [wanted, wanted, torch.float32, torch.float32]
        results.append((loss, gradients))
    (low, low_gradients), (full, full_gradients) = results
    assert torch.equal(low, full)
    assert all(torch.equal(one, two.to(one.dtype)) for one, two in zip(low_gradients, full_gradients, strict=True))


def test_backward_twice_and_without_gradients() -> None:
    leaves = unit(9, 5, 0), unit(11, 5, 1), *numbers(8, -3)
    pairs = made_pairs(*leaves[:2], IMAGE_ID, OWNER)
    loss = sigmoid(pairs, *leaves[2:])
    first, second = (torch.autograd.grad(loss.sum(), leaves, retain_graph=True) for _ in range(2))
    torch.testing.assert_close(first, second, rtol=0, atol=0)
    with torch.no_grad():
        again = sigmoid(pairs, *leaves[2:])
    assert not again.requires_grad
    torch.testing.assert_close(again, loss)


@pytest.mark.parametrize("images_at", [WHOLE, slice(3, 9)])
def test_the_matrix_of_all_pairs_never_exists(images_at: slice) -> None:
    """Of 9 × 11 pairs of width 3 nothing is larger than the texts' vectors, forward and backward."""
    pairs = made_pairs(unit(9, 3, 0), unit(11, 3, 1), IMAGE_ID, OWNER, images_at=images_at)
    with profile(record_shapes=True) as operations:
        sigmoid(pairs, *numbers(8, -3)).mean().backward()
    events = operations.function_events
    assert max(torch.Size(shape).numel() for event in events for shape in event.input_shapes) == 33


def test_falls_in_twenty_steps() -> None:
    image, text = unit(8, 4, 0).detach().requires_grad_(), unit(8, 4, 1).detach().requires_grad_()
    values = []
    for _ in range(20):
        pairs = made_pairs(image, text, [1, 1, 2, 3, 4, 5, 6, 7], [1, 1, 2, 3, 4, 5, 6, 7])
        loss = sigmoid(pairs, *numbers(1, -1)).mean()
        values.append(loss.item())
        for leaf, gradient in zip((image, text), torch.autograd.grad(loss, (image, text)), strict=True):
            leaf.data -= 0.5 * gradient
    assert all(later < earlier for earlier, later in pairwise(values))


@pytest.mark.parametrize(
    ("image", "text", "scale", "bias", "message"),
    [
        ((3, 4), (3, 5), (), (), r"embeddings must be matrices of one width, got \(3, 4\) and \(3, 5\)"),
        ((3,), (3,), (), (), "embeddings must be matrices of one width"),
        ((3, 4), (3, 4), (1,), (), r"scale and bias must be single numbers, got shape \(1,\)"),
        ((3, 4), (3, 4), (), (3,), r"scale and bias must be single numbers, got shape \(3,\)"),
    ],
)
def test_refuses_other_shapes(
    image: tuple[int, ...], text: tuple[int, ...], scale: tuple[int, ...], bias: tuple[int, ...], message: str
) -> None:
    pairs = made_pairs(torch.zeros(3, 4), torch.zeros(3, 4), [1, 2, 3], [1, 2, 3])
    pairs = pairs._replace(image=pairs.image._replace(pooled=torch.zeros(image)))
    pairs = pairs._replace(all_text=pairs.all_text._replace(pooled=torch.zeros(text)))
    with pytest.raises(ValueError, match=message):
        sigmoid(pairs, torch.ones(scale), torch.zeros(bias))
