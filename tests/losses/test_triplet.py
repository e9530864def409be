"""Hinge losses on triplets."""

import math
from itertools import pairwise

import pytest
import torch
import torch.nn.functional as F

from mmlit.losses.triplet import Hinges, triplet


def circle(*degrees: float) -> torch.Tensor:
    """Unit vectors at these angles."""
    angles = torch.tensor(degrees).deg2rad()
    return torch.stack([angles.cos(), angles.sin()], 1)


def slow(cosines: torch.Tensor, positives: torch.Tensor, margin: float, hinges: str) -> list[float]:
    """Faghri et al. 2017, Eq. 5 and 6, for each positive of a row: Σ or max over others of [α − s + s_n]₊."""
    losses = []
    for row, true in zip(cosines.tolist(), positives.tolist(), strict=True):
        others = [cosine for cosine, weight in zip(row, true, strict=True) if weight == 0]
        total = 0.0
        for own, weight in zip(row, true, strict=True):
            each = [max(0.0, margin - own + other) for other in others] or [0.0]
            total += weight * (sum(each) if hinges == "sum" else max(each))
        losses.append(total / sum(true))
    return losses


@pytest.mark.parametrize(("hinges", "expected"), [("sum", 0.2 + math.sqrt(0.5) - 0.5 + 0.7), ("max", 0.7)])
def test_by_hand_on_the_unit_circle(hinges: Hinges, expected: float) -> None:
    """An image at 0°, its caption at 60° (½); of others at 45°, 0° and 120° two come closer than ½ − 0.2."""
    cosines = circle(0) @ circle(60, 45, 0, 120).T
    loss = triplet(cosines, torch.tensor([[1.0, 0, 0, 0]]), margin=0.2, hinges=hinges)
    torch.testing.assert_close(loss, torch.tensor([expected]))


@pytest.mark.parametrize("hinges", ["sum", "max"])
def test_a_caption_of_the_same_image_is_never_a_negative(hinges: Hinges) -> None:
    """Trap 8: of two positives at ½ and 0.9 the better one pushes nothing; the mean of both hinges over the third."""
    cosines = torch.tensor([[0.5, 0.9, 0.6]], requires_grad=True)
    loss = triplet(cosines, torch.tensor([[1.0, 1.0, 0.0]]), margin=0.2, hinges=hinges)
    torch.testing.assert_close(loss, torch.tensor([(0.3 + 0.0) / 2]))
    torch.testing.assert_close(torch.autograd.grad(loss.sum(), cosines)[0], torch.tensor([[-0.5, 0.0, 0.5]]))


@pytest.mark.parametrize("hinges", ["sum", "max"])
def test_equals_the_loops(hinges: Hinges) -> None:
    generator = torch.Generator().manual_seed(0)
    cosines = 2 * torch.rand(7, 9, generator=generator, dtype=torch.float64) - 1
    positives = (torch.rand(7, 9, generator=generator) < 0.2).double()
    positives[:, 0] = torch.tensor([1, 0.2, 0.7, 1, 1, 0.5, 1])  # mixed pictures too
    positives[6] = 1  # no other column
    for margin in (0.05, 0.2, 1.0, 2.0):
        expected = torch.tensor(slow(cosines, positives, margin, hinges), dtype=torch.float64)
        found = triplet(cosines, positives, margin=margin, hinges=hinges)
        torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("hinges", ["sum", "max"])
def test_limits(hinges: Hinges) -> None:
    """A perfect batch costs nothing; equal vectors cost margin · others, or margin; one other column: both agree."""
    perfect = torch.tensor([[1.0, 0.1], [-0.5, 1.0]])
    assert torch.equal(triplet(perfect, torch.eye(2), margin=0.2, hinges=hinges), torch.zeros(2))
    same = triplet(torch.ones(4, 4), torch.eye(4), margin=0.2, hinges=hinges)
    torch.testing.assert_close(same, torch.full((4,), 0.6 if hinges == "sum" else 0.2))
    one = triplet(torch.tensor([[0.3, 0.4]]), torch.tensor([[1.0, 0.0]]), margin=0.2, hinges=hinges)
    expected = F.margin_ranking_loss(torch.tensor([0.3]), torch.tensor([0.4]), torch.ones(1), margin=0.2)
    torch.testing.assert_close(one, expected[None])
    alone = torch.tensor([[0.3]], requires_grad=True)
    triplet(alone, torch.ones(1, 1), margin=0.2, hinges=hinges).sum().backward()
    assert torch.equal(alone.grad, torch.zeros(1, 1))
    assert triplet(torch.ones(1, 2), torch.zeros(1, 2), margin=0.2, hinges=hinges).isnan().all()


@pytest.mark.parametrize("hinges", ["sum", "max"])
def test_falls_in_twenty_steps(hinges: Hinges) -> None:
    generator = torch.Generator().manual_seed(2)
    image, text = (torch.randn(8, 6, generator=generator).requires_grad_() for _ in range(2))
    positives = torch.eye(8).index_put((torch.tensor([0, 1]), torch.tensor([1, 0])), torch.tensor(1.0))
    values = []
    for _ in range(20):
        cosines = F.normalize(image, dim=1) @ F.normalize(text, dim=1).T
        loss = triplet(cosines, positives, margin=0.2, hinges=hinges).mean()
        values.append(loss.item())
        for leaf, gradient in zip((image, text), torch.autograd.grad(loss, (image, text)), strict=True):
            leaf.data -= 0.3 * gradient
    assert all(later < earlier for earlier, later in pairwise(values))


@pytest.mark.parametrize("hinges", ["sum", "max"])
def test_gradcheck(hinges: Hinges) -> None:
    generator = torch.Generator().manual_seed(3)
    cosines = (1.8 * torch.rand(3, 4, dtype=torch.float64, generator=generator) - 0.9).requires_grad_()
    positives = torch.tensor([[1.0, 0, 0, 0], [0, 1, 1, 0], [0.4, 0, 0, 0.6]], dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda c: triplet(c, positives, margin=0.5, hinges=hinges), (cosines,))


@pytest.mark.parametrize("hinges", ["sum", "max"])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_low_precision_is_computed_in_fp32(dtype: torch.dtype, hinges: Hinges) -> None:
    """Trap 3: exactly the value of the same numbers in fp32."""
    cosines = (2 * torch.rand(6, 40, generator=torch.Generator().manual_seed(4)) - 1).to(dtype)
    loss = triplet(cosines, torch.eye(6, 40).to(dtype), margin=0.2, hinges=hinges)
    assert loss.dtype == torch.float32
    assert torch.equal(loss, triplet(cosines.float(), torch.eye(6, 40), margin=0.2, hinges=hinges))


@pytest.mark.parametrize(("cosines", "positives"), [((3, 4), (4, 3)), ((3,), (3,)), ((2, 3, 4), (2, 3, 4))])
def test_refuses_other_shapes(cosines: tuple[int, ...], positives: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="cosines and positives must be matrices of one shape"):
        triplet(torch.zeros(cosines), torch.zeros(positives), margin=0.2, hinges="sum")


@pytest.mark.parametrize("margin", [0.0, -0.2, 2.01, math.nan])
def test_refuses_other_margins(margin: float) -> None:
    with pytest.raises(ValueError, match=r"margin must lie in \(0, 2\], got"):
        triplet(torch.zeros(2, 2), torch.eye(2), margin=margin, hinges="sum")


def test_refuses_other_hinges() -> None:
    with pytest.raises(ValueError, match="hinges must be sum or max, got 'mean'"):
        triplet(torch.zeros(2, 2), torch.eye(2), margin=0.2, hinges="mean")  # type: ignore[arg-type]
