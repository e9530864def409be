"""The cosine embedding loss over all pairs of a batch."""

import math
from itertools import pairwise

import pytest
import torch
import torch.nn.functional as F

from mmlit.losses.cosine_margin import cosine_margin


def circle(*degrees: float) -> torch.Tensor:
    """Unit vectors at these angles."""
    angles = torch.tensor(degrees).deg2rad()
    return torch.stack([angles.cos(), angles.sin()], 1)


def slow(cosines: torch.Tensor, positives: torch.Tensor, margin: float) -> list[float]:
    """Row by row: mean of 1 − c over positives, mean of c − margin over the other pairs that are above it."""
    losses = []
    for row, true in zip(cosines.tolist(), positives.tolist(), strict=True):
        pull = sum(weight * (1 - cosine) for cosine, weight in zip(row, true, strict=True)) / sum(true)
        excess = [(1 - weight) * (cosine - margin) for cosine, weight in zip(row, true, strict=True)]
        pushes = [value for value in excess if value > 0]
        losses.append(pull + (sum(pushes) / len(pushes) if pushes else 0))
    return losses


def test_by_hand_on_the_unit_circle() -> None:
    """An image at 0°: its caption at 60° costs 1 − ½; of others at 45°, 0° and 120° two are above the margin 0.2."""
    cosines = circle(0) @ circle(60, 45, 0, 120).T
    expected = 0.5 + ((math.sqrt(0.5) - 0.2) + (1 - 0.2)) / 2
    loss = cosine_margin(cosines, torch.tensor([[1.0, 0, 0, 0]]), margin=0.2)
    torch.testing.assert_close(loss, torch.tensor([expected]))


def test_several_positives_by_hand() -> None:
    """Trap 8: both captions of an image that is twice in the batch are pulled, each by half; nothing is pushed."""
    cosines = (circle(0) @ circle(60, 90).T).requires_grad_()
    loss = cosine_margin(cosines, torch.ones(1, 2), margin=-1)
    torch.testing.assert_close(loss, torch.tensor([0.75]))
    torch.testing.assert_close(torch.autograd.grad(loss.sum(), cosines)[0], torch.tensor([[-0.5, -0.5]]))


def test_equals_the_loops() -> None:
    generator = torch.Generator().manual_seed(0)
    cosines = 2 * torch.rand(7, 9, generator=generator, dtype=torch.float64) - 1
    positives = (torch.rand(7, 9, generator=generator) < 0.2).double()
    positives[:, 0] = torch.tensor([1, 0.2, 0.7, 1, 1, 0.5, 1])  # mixed pictures too
    for margin in (-1.0, -0.3, 0.0, 0.2, 0.9):
        expected = torch.tensor(slow(cosines, positives, margin), dtype=torch.float64)
        loss = cosine_margin(cosines, positives, margin=margin)
        torch.testing.assert_close(loss, expected, rtol=1e-12, atol=1e-12)


def test_with_one_pair_above_the_margin_it_is_the_loss_of_torch() -> None:
    """`torch.nn.CosineEmbeddingLoss` of the positive pair plus that of the one other pair."""
    image, texts = circle(10).double(), circle(50, 75).double()
    loss = cosine_margin(image @ texts.T, torch.tensor([[1.0, 0.0]]).double(), margin=0.2)
    expected = F.cosine_embedding_loss(
        image.expand(2, 2), texts, torch.tensor([1.0, -1.0]), margin=0.2, reduction="sum"
    )
    torch.testing.assert_close(loss, expected[None])


def test_limits() -> None:
    """A perfect batch costs nothing; vectors that are all the same cost 1 − margin; opposite positives cost 2."""
    perfect = torch.tensor([[1.0, 0.1], [-0.5, 1.0]])
    assert torch.equal(cosine_margin(perfect, torch.eye(2), margin=0.2), torch.zeros(2))
    torch.testing.assert_close(cosine_margin(torch.ones(3, 3), torch.eye(3), margin=0.2), torch.full((3,), 0.8))
    torch.testing.assert_close(cosine_margin(torch.tensor([[-1.0]]), torch.ones(1, 1), margin=0), torch.tensor([2.0]))


def test_pairs_below_the_margin_are_left_alone() -> None:
    cosines = torch.tensor([[0.5, 0.6, 0.1, 0.15]], requires_grad=True)
    loss = cosine_margin(cosines, torch.tensor([[1.0, 0, 0, 0]]), margin=0.2)
    torch.testing.assert_close(torch.autograd.grad(loss.sum(), cosines)[0], torch.tensor([[-1.0, 1, 0, 0]]))


def test_falls_in_twenty_steps() -> None:
    generator = torch.Generator().manual_seed(2)
    image, text = (torch.randn(8, 6, generator=generator).requires_grad_() for _ in range(2))
    positives = torch.eye(8).index_put((torch.tensor([0, 1]), torch.tensor([1, 0])), torch.tensor(1.0))
    values = []
    for _ in range(20):
        cosines = F.normalize(image, dim=1) @ F.normalize(text, dim=1).T
        loss = cosine_margin(cosines, positives, margin=-1.0).mean()
        values.append(loss.item())
        for leaf, gradient in zip((image, text), torch.autograd.grad(loss, (image, text)), strict=True):
            leaf.data -= 0.5 * gradient
    assert all(later < earlier for earlier, later in pairwise(values))


def test_gradcheck() -> None:
    generator = torch.Generator().manual_seed(3)
    cosines = (1.8 * torch.rand(3, 4, dtype=torch.float64, generator=generator) - 0.9).requires_grad_()
    positives = torch.tensor([[1.0, 0, 0, 0], [0, 1, 1, 0], [0.4, 0, 0, 0.6]], dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda c: cosine_margin(c, positives, margin=0.05), (cosines,))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_low_precision_is_computed_in_fp32(dtype: torch.dtype) -> None:
    """Trap 3: exactly the value of the same numbers in fp32."""
    generator = torch.Generator().manual_seed(4)
    cosines = (2 * torch.rand(6, 40, generator=generator) - 1).to(dtype)
    positives = torch.eye(6, 40)
    for given in (positives, positives.to(dtype)):
        loss = cosine_margin(cosines, given, margin=0.2)
        assert loss.dtype == torch.float32
        assert torch.equal(loss, cosine_margin(cosines.float(), positives, margin=0.2))


@pytest.mark.parametrize(("cosines", "positives"), [((3, 4), (4, 3)), ((3,), (3,)), ((2, 3, 4), (2, 3, 4))])
def test_refuses_other_shapes(cosines: tuple[int, ...], positives: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="cosines and positives must be matrices of one shape"):
        cosine_margin(torch.zeros(cosines), torch.zeros(positives), margin=0.2)


@pytest.mark.parametrize("margin", [-1.01, 1.0, 2.0, math.nan])
def test_refuses_other_margins(margin: float) -> None:
    with pytest.raises(ValueError, match=r"margin must lie in \[-1, 1\), got"):
        cosine_margin(torch.zeros(2, 2), torch.eye(2), margin=margin)
