"""The softmax contrastive loss with several positives per row."""

import math
from itertools import pairwise

import pytest
import torch

from mmlit.losses.info_nce import info_nce


def circle(*degrees: float) -> torch.Tensor:
    """Unit vectors at these angles."""
    angles = torch.tensor(degrees).deg2rad()
    return torch.stack([angles.cos(), angles.sin()], 1)


def slow(scores: torch.Tensor, positives: torch.Tensor) -> list[float]:
    """Khosla et al. 2020, Eq. 2: −1/|P(i)| Σ_{p ∈ P(i)} log( exp(s_ip) / Σ_a exp(s_ia) ), in plain loops."""
    losses = []
    for row, true in zip(scores.tolist(), positives.tolist(), strict=True):
        denominator = sum(math.exp(score) for score in row)
        terms = [weight * math.log(math.exp(score) / denominator) for score, weight in zip(row, true, strict=True)]
        losses.append(-sum(terms) / sum(true))
    return losses


def test_by_hand_on_the_unit_circle() -> None:
    """One image at 0°, its caption at 60° (cosine ½), another at 180° (cosine −1), temperature ½."""
    scores = circle(0) @ circle(60, 180).T / 0.5
    expected = math.log(1 + math.exp(-2 - 1))
    torch.testing.assert_close(info_nce(scores, torch.tensor([[1.0, 0.0]])), torch.tensor([expected]))


def test_several_positives_by_hand() -> None:
    """Trap 8: of three equal scores two are true, so that each term is ln 3, and so is their mean (not 2 ln 3)."""
    loss = info_nce(torch.zeros(1, 3), torch.tensor([[1.0, 0.0, 1.0]]))
    torch.testing.assert_close(loss, torch.tensor([math.log(3)]))


def test_equals_the_loops() -> None:
    generator = torch.Generator().manual_seed(0)
    scores = 3 * torch.randn(6, 9, generator=generator, dtype=torch.float64)
    positives = (torch.rand(6, 9, generator=generator) < 0.3).double()
    positives[:, 0] = torch.tensor([1, 0.2, 0.7, 1, 1, 0.5])  # mixed pictures too
    expected = torch.tensor(slow(scores, positives), dtype=torch.float64)
    torch.testing.assert_close(info_nce(scores, positives), expected, rtol=1e-12, atol=1e-12)


def test_one_positive_is_cross_entropy() -> None:
    scores = torch.randn(5, 5, generator=torch.Generator().manual_seed(1))
    expected = torch.nn.functional.cross_entropy(scores, torch.arange(5), reduction="none")
    torch.testing.assert_close(info_nce(scores, torch.eye(5)), expected)


def test_limits() -> None:
    """Equal scores cost ln C; a far better positive costs nothing; two far better positives cost ln 2."""
    torch.testing.assert_close(info_nce(torch.full((2, 7), 0.3), torch.eye(2, 7)), torch.full((2,), math.log(7)))
    far = torch.tensor([[200.0, 0, 0], [200, 200, 0]])
    positives = torch.tensor([[1.0, 0, 0], [1, 1, 0]])
    torch.testing.assert_close(info_nce(far, positives), torch.tensor([0, math.log(2)]))


def test_two_copies_of_an_image_are_both_pulled() -> None:
    """Trap 8: in the row of an image that is twice in the batch both captions' scores rise, the third falls."""
    scores = torch.zeros(1, 3, requires_grad=True)
    info_nce(scores, torch.tensor([[1.0, 1.0, 0.0]])).sum().backward()
    assert scores.grad is not None
    torch.testing.assert_close(scores.grad, torch.tensor([[1 / 3 - 1 / 2, 1 / 3 - 1 / 2, 1 / 3]]))


def test_falls_in_twenty_steps() -> None:
    generator = torch.Generator().manual_seed(2)
    image, text = (torch.randn(8, 4, generator=generator).requires_grad_() for _ in range(2))
    positives = torch.eye(8).index_put((torch.tensor([0, 1]), torch.tensor([1, 0])), torch.tensor(1.0))
    values = []
    for _ in range(20):
        loss = info_nce(image @ text.T, positives).mean()
        values.append(loss.item())
        for leaf, gradient in zip((image, text), torch.autograd.grad(loss, (image, text)), strict=True):
            leaf.data -= 0.5 * gradient
    assert all(later < earlier for earlier, later in pairwise(values))


def test_gradcheck() -> None:
    scores = torch.randn(3, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(3), requires_grad=True)
    positives = torch.tensor([[1.0, 0, 0, 0], [0, 1, 1, 0], [0.4, 0, 0, 0.6]], dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda s: info_nce(s, positives), (scores,))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_low_precision_is_computed_in_fp32(dtype: torch.dtype) -> None:
    """Trap 3: exactly the value of the same numbers in fp32."""
    scores = (5 * torch.randn(6, 40, generator=torch.Generator().manual_seed(4))).to(dtype)
    positives = torch.eye(6, 40)
    loss = info_nce(scores, positives)
    assert loss.dtype == torch.float32
    assert torch.equal(loss, info_nce(scores.float(), positives))


@pytest.mark.parametrize(("scores", "positives"), [((3, 4), (4, 3)), ((3,), (3,)), ((2, 3, 4), (2, 3, 4))])
def test_refuses_other_shapes(scores: tuple[int, ...], positives: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="scores and positives must be matrices of one shape"):
        info_nce(torch.zeros(scores), torch.zeros(positives))
