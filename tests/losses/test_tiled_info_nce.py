"""InfoNCE on embeddings in tiles: the numbers and gradients of the whole matrix."""

import math
from itertools import pairwise

import pytest
import torch
import torch.nn.functional as F
from losses.made_pairs import made_pairs, unit
from torch import Tensor
from torch.autograd.profiler import profile

from mmlit.contracts import Pairs
from mmlit.losses import tiled_info_nce as module
from mmlit.losses import tiles
from mmlit.losses.info_nce import info_nce
from mmlit.losses.tiled_info_nce import tiled_info_nce

#: images 1 and 3 come twice; some captions are three of one image
IMAGE_ID = [3, 1, 4, 1, 5, 9, 2, 6, 3]
OWNER = [1, 4, 3, 1, 1, 9, 5, 2, 6, 2, 3]
MIX = ([1, 3, 4, 1, 3, 6, 5, 2, 9], [0.75, 0.625, 0.25, 0.5, 1.0, 0.0, 0.25, 0.75, 0.875])
WHOLE = slice(None)


@pytest.fixture(autouse=True)
def small_tiles(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tiles of 4 × 4 and less, however small the batch."""
    monkeypatch.setattr(tiles, "CPU_SIDE", 4)
    monkeypatch.setattr(module, "FEW_PAIRS", 0)


def dense(pairs: Pairs, scale: Tensor) -> tuple[Tensor, Tensor]:
    """The whole matrix, and `info_nce` on it."""
    scores = scale * (pairs.all_image.pooled @ pairs.all_text.pooled.T)
    positives = pairs.positives(WHOLE, WHOLE)
    return info_nce(scores, positives)[pairs.image_rows], info_nce(scores.T, positives.T)[pairs.text_rows]


def weighted(terms: tuple[Tensor, Tensor]) -> Tensor:
    """A sum with a weight of its own for each row, negative ones too."""
    return torch.stack([(term * torch.linspace(-0.5, 2, len(term)).to(term)).sum() for term in terms]).sum()


def slow(scores: list[list[float]], true: list[list[bool]]) -> list[float]:
    """Khosla et al. 2020, Eq. 2, in plain loops."""
    losses = []
    for row, own in zip(scores, true, strict=True):
        denominator = sum(math.exp(score) for score in row)
        terms = [math.log(math.exp(score) / denominator) for score, is_own in zip(row, own, strict=True) if is_own]
        losses.append(-sum(terms) / len(terms))
    return losses


def test_by_hand_on_the_unit_circle() -> None:
    """Images at 0° and 180°, captions at 60° and 180°, temperature ½: scores 1, −2 and −1, 2."""
    angles = torch.tensor([[0.0, 180], [60, 180]]).deg2rad()
    image, text = (torch.stack([side.cos(), side.sin()], 1) for side in angles)
    i2t, t2i = tiled_info_nce(made_pairs(image, text, [1, 2], [1, 2]), torch.tensor(2.0))
    torch.testing.assert_close(i2t, torch.tensor([math.log(1 + math.exp(-3)), math.log(1 + math.exp(-3))]))
    torch.testing.assert_close(t2i, torch.tensor([math.log(1 + math.exp(-2)), math.log(1 + math.exp(-4))]))


def test_equals_the_loops() -> None:
    """Trap 8: several positives both ways, decided by ids."""
    image, text = unit(9, 5, 0), unit(11, 5, 1)
    scores = (7.0 * image @ text.T).tolist()
    true = [[one == other for other in OWNER] for one in IMAGE_ID]
    i2t, t2i = tiled_info_nce(made_pairs(image, text, IMAGE_ID, OWNER), torch.tensor(7.0).double())
    torch.testing.assert_close(i2t, torch.tensor(slow(scores, true)).double(), rtol=1e-6, atol=0)
    flipped = [list(column) for column in zip(*scores, strict=True)], [list(c) for c in zip(*true, strict=True)]
    torch.testing.assert_close(t2i, torch.tensor(slow(*flipped)).double(), rtol=1e-6, atol=0)


@pytest.mark.parametrize("few", [0, 10**6])
@pytest.mark.parametrize("mix", [None, MIX])
@pytest.mark.parametrize(
    ("images_at", "texts_at"), [(WHOLE, WHOLE), (slice(0, 2), slice(0, 6)), (slice(2, 9), slice(6, 11))]
)
def test_values_and_gradients_are_those_of_the_whole_matrix(
    images_at: slice,
    texts_at: slice,
    mix: tuple[list[int], list[float]] | None,
    few: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Traps 8, 13 and 14: alone and as a device's share, mixed pictures, both ways of small batches; to 1e-11."""
    monkeypatch.setattr(module, "FEW_PAIRS", few)
    image, text, log_scale = unit(9, 5, 0), unit(11, 5, 1), torch.tensor(2.3).double().requires_grad_()
    pairs = made_pairs(image, text, IMAGE_ID, OWNER, images_at=images_at, texts_at=texts_at, mix=mix)
    found, expected = tiled_info_nce(pairs, log_scale.exp()), dense(pairs, log_scale.exp())
    torch.testing.assert_close(found, expected, rtol=1e-11, atol=1e-12)
    leaves = image, text, log_scale
    gradients = (torch.autograd.grad(weighted(terms), leaves) for terms in (found, expected))
    torch.testing.assert_close(*gradients, rtol=1e-11, atol=1e-12)


def test_gradcheck() -> None:
    image, text, log_scale = unit(5, 3, 0), unit(6, 3, 1), torch.tensor(1.0).double().requires_grad_()

    def both(one: Tensor, other: Tensor, log: Tensor) -> tuple[Tensor, Tensor]:
        return tiled_info_nce(made_pairs(one, other, [1, 2, 3, 1, 4], [4, 1, 2, 3, 1, 2]), log.exp())

    assert torch.autograd.gradcheck(both, (image, text, log_scale))


@pytest.mark.parametrize("scale", [1.0, 14.3, 100.0])
def test_fp32_is_exact_to_1e_5(scale: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """Against float64, 300 pairs in tiles of 128; from an untrained model's vectors to sure ones."""
    monkeypatch.setattr(tiles, "CPU_SIDE", 128)
    ids = [number % 290 for number in range(300)]
    for noise in (3.0, 0.1):
        image = unit(300, 64, 0)
        text = F.normalize(image.detach() + noise * unit(300, 64, 1).detach(), dim=1).requires_grad_()
        results = []
        for dtype, function in ((torch.float64, dense), (torch.float32, tiled_info_nce)):
            leaves = [side.detach().to(dtype).requires_grad_() for side in (image, text, torch.tensor(scale))]
            loss = sum(term.mean() for term in function(made_pairs(*leaves[:2], ids, ids), leaves[2]))
            results.append((loss, torch.autograd.grad(loss, leaves)))
        (exact, exact_gradients), (loss, gradients) = results
        assert abs(loss.item() / exact.item() - 1) < 1e-5
        for one, other in zip(exact_gradients, gradients, strict=True):
            assert (one - other).norm() < 1e-5 * one.norm()


def test_limits() -> None:
    """Equal embeddings cost ln of how many there are; a score of 100 above all others costs nothing."""
    same = torch.ones(6, 1)
    terms = tiled_info_nce(made_pairs(same, torch.ones(9, 1), [*range(6)], [*range(6), 0, 1, 2]), torch.tensor(5.0))
    torch.testing.assert_close(terms, (torch.full((6,), math.log(9)), torch.full((9,), math.log(6))))
    sure = torch.eye(6)
    terms = tiled_info_nce(made_pairs(sure, sure.clone(), [*range(6)], [*range(6)]), torch.tensor(100.0))
    torch.testing.assert_close(terms, (torch.zeros(6), torch.zeros(6)))


def test_a_row_without_a_positive_gives_nan_as_the_matrix_does() -> None:
    image, text = unit(5, 3, 0), unit(5, 3, 1)
    pairs, scale = made_pairs(image, text, [1, 2, 3, 4, 5], [1, 2, 3, 4, 6]), torch.tensor(2.0).double()
    for found, expected in zip(tiled_info_nce(pairs, scale), dense(pairs, scale), strict=True):
        assert found.isnan().tolist() == expected.isnan().tolist() == [False] * 4 + [True]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("few", [0, 10**6])
def test_low_precision_is_computed_in_fp32(dtype: torch.dtype, few: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Trap 3: under autocast exactly the value of the same numbers in fp32, and their gradient in `dtype`."""
    monkeypatch.setattr(module, "FEW_PAIRS", few)
    given = [unit(9, 32, seed, dtype).detach() for seed in (0, 1)]
    results = []
    for wanted, autocast in ((dtype, True), (torch.float32, False)):
        leaves = [side.to(wanted).requires_grad_() for side in given] + [torch.tensor(30.0).requires_grad_()]
        with torch.autocast("cpu", dtype, enabled=autocast):
            terms = tiled_info_nce(made_pairs(*leaves[:2], [*range(9)], [*range(9)]), leaves[2])
        with torch.autocast("cpu", dtype, enabled=autocast and not few):
            gradients = torch.autograd.grad(weighted(terms), leaves)
        assert all(term.dtype == torch.float32 for term in terms)
        assert [one.dtype for one in gradients] == [wanted, wanted, torch.float32]
        results.append((terms, [one.to(leaf.dtype) for one, leaf in zip(gradients, leaves, strict=True)]))
    (low, low_gradients), (full, full_gradients) = results
    assert all(torch.equal(one, other) for one, other in zip(low, full, strict=True))
    expected = [one.to(other.dtype) for one, other in zip(full_gradients, low_gradients, strict=True)]
    assert all(torch.equal(one, other) for one, other in zip(low_gradients, expected, strict=True))


def test_backward_twice_and_without_gradients() -> None:
    """What the forward pass keeps is used up by the first backward pass; the second makes it again."""
    image, text, scale = unit(9, 5, 0), unit(11, 5, 1), torch.tensor(3.0).double()
    total = weighted(tiled_info_nce(made_pairs(image, text, IMAGE_ID, OWNER), scale))
    first, second = (torch.autograd.grad(total, (image, text), retain_graph=True) for _ in range(2))
    torch.testing.assert_close(first, second, rtol=1e-12, atol=1e-14)
    with torch.no_grad():
        again = tiled_info_nce(made_pairs(image, text, IMAGE_ID, OWNER), scale)
    assert not again[0].requires_grad
    torch.testing.assert_close(weighted(again), total)


@pytest.mark.parametrize("images_at", [WHOLE, slice(3, 9)])
def test_the_matrix_of_all_pairs_never_exists(images_at: slice) -> None:
    """Of 9 × 11 pairs of width 3 nothing is larger than the texts' vectors, forward and backward."""
    image, text = unit(9, 3, 0), unit(11, 3, 1)
    pairs = made_pairs(image, text, IMAGE_ID, OWNER, images_at=images_at)
    with profile(record_shapes=True) as operations:
        weighted(tiled_info_nce(pairs, torch.tensor(3.0).double())).backward()
    events = operations.function_events
    assert max(torch.Size(shape).numel() for event in events for shape in event.input_shapes) == 33


def test_falls_in_twenty_steps() -> None:
    image, text = (F.normalize(unit(8, 4, seed).detach(), dim=1).requires_grad_() for seed in (0, 1))
    values = []
    for _ in range(20):
        pairs = made_pairs(image, text, [1, 1, 2, 3, 4, 5, 6, 7], [1, 1, 2, 3, 4, 5, 6, 7])
        loss = torch.stack(tiled_info_nce(pairs, torch.tensor(1.0).double())).mean()
        values.append(loss.item())
        for leaf, gradient in zip((image, text), torch.autograd.grad(loss, (image, text)), strict=True):
            leaf.data -= 0.5 * gradient
    assert all(later < earlier for earlier, later in pairwise(values))


@pytest.mark.parametrize(
    ("image", "text", "scale", "message"),
    [
        ((3, 4), (3, 5), (), r"embeddings must be matrices of one width, got \(3, 4\) and \(3, 5\)"),
        ((3,), (3,), (), "embeddings must be matrices of one width"),
        ((3, 4), (3, 4), (1,), r"scale and bias must be single numbers, got shape \(1,\)"),
    ],
)
def test_refuses_other_shapes(
    image: tuple[int, ...], text: tuple[int, ...], scale: tuple[int, ...], message: str
) -> None:
    pairs = made_pairs(torch.zeros(3, 4), torch.zeros(3, 4), [1, 2, 3], [1, 2, 3])
    image_side, text_side = (
        side._replace(pooled=torch.zeros(shape)) for side, shape in ((pairs.image, image), (pairs.text, text))
    )
    pairs = pairs._replace(image=image_side, all_image=image_side, text=text_side, all_text=text_side)
    with pytest.raises(ValueError, match=message):
        tiled_info_nce(pairs, torch.ones(scale))
