"""Cosines and their temperature."""

import math

import pytest
import torch

from mmlit.layers.similarity import MAX_LOG_SCALE, Temperature, cosine, pooled_only


def unit(count: int, dim: int, seed: int) -> torch.Tensor:
    vectors = torch.randn(count, dim, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return vectors / vectors.norm(dim=1, keepdim=True)


def test_cosine_by_hand_on_the_unit_circle() -> None:
    image, text = (torch.tensor([[math.cos(a), math.sin(a)] for a in angles]) for angles in ((0, 1), (0, 1, math.pi)))
    expected = torch.tensor([[1, math.cos(1), -1], [math.cos(1), 1, -math.cos(1)]])
    torch.testing.assert_close(cosine(image, text), expected)


def test_cosine_is_fp32_under_autocast() -> None:
    """Trap 3: under bf16 autocast the product keeps fp32's accuracy; a plain product loses five decimal places."""
    image, text = unit(20, 64, 0), unit(30, 64, 1)
    exact = image @ text.T
    with torch.autocast("cpu", torch.bfloat16):
        scores = cosine(image.float(), text.float())
        plain = image.float() @ text.float().T
    assert scores.dtype == torch.float32
    assert (scores - exact).abs().max() < 1e-6
    assert (plain - exact).abs().max() > 1e-4


def test_cosine_of_low_precision_embeddings_is_an_fp32_product() -> None:
    """Trap 3: bf16 embeddings are multiplied as the fp32 numbers that they are."""
    image, text = unit(20, 64, 0).bfloat16(), unit(30, 64, 1).bfloat16()
    scores = cosine(image, text)
    assert scores.dtype == torch.float32
    assert (scores - image.double() @ text.double().T).abs().max() < 1e-6


@pytest.mark.parametrize("learn", [True, False])
def test_scores_are_divided_by_the_temperature(learn: bool) -> None:
    """Trap 17: 0.07 makes a cosine of 0.7 a score of 10, not of 0.049."""
    scores = Temperature(initial=0.07, learn=learn)(torch.tensor([0.7, -0.35]))
    torch.testing.assert_close(scores, torch.tensor([10.0, -5.0]))


@pytest.mark.parametrize("learn", [True, False])
def test_a_smaller_temperature_sharpens(learn: bool) -> None:
    """Trap 17: the sign of the exponent."""
    cosines = torch.tensor([0.9, 0.1])
    sharp, blunt = (Temperature(initial=t, learn=learn)(cosines).softmax(0)[0] for t in (0.05, 0.5))
    assert sharp > blunt > 0.5


def test_learned_or_fixed() -> None:
    """Trap 16: learned means one scalar parameter; fixed means that it is kept in checkpoints but cannot move."""
    learned, fixed = Temperature(initial=0.07, learn=True), Temperature(initial=0.07, learn=False)
    assert [name for name, _ in learned.named_parameters()] == ["log_scale"]
    assert learned.log_scale.ndim == 0
    assert not list(fixed.parameters())
    assert list(fixed.state_dict()) == ["log_scale"]


@pytest.mark.parametrize(("start", "kept"), [(-2.0, 0.0), (0.0, 0.0), (3.0, 3.0), (9.0, math.log(100))])
def test_clamp(start: float, kept: float) -> None:
    """Trap 16: the bounds are 0 and ln 100, and ln 1 = 0 is one (a bound compared by truth would not be)."""
    temperature = Temperature(initial=0.07, learn=True)
    temperature.log_scale.data.fill_(start)
    temperature.clamp()
    torch.testing.assert_close(temperature.log_scale.detach(), torch.tensor(kept))


@pytest.mark.parametrize(("initial", "sign"), [(1.0, -1), (0.01, 1)])
def test_it_can_start_at_a_bound_and_leave_it(initial: float, sign: int) -> None:
    """Trap 16: at ln 1 = 0 and at ln 100 the gradient lives, so that the next step can lead back inside."""
    temperature = Temperature(initial=initial, learn=True)
    optimizer = torch.optim.SGD(temperature.parameters(), lr=0.1)
    for direction in (-sign, sign):  # first against the bound, where it stays, then away from it
        for _ in range(3):
            optimizer.zero_grad()
            (direction * temperature(torch.tensor(1.0)).log()).backward()
            assert temperature.log_scale.grad is not None
            assert temperature.log_scale.grad.abs() > 0.5
            optimizer.step()
            temperature.clamp()
            assert 0 <= temperature.log_scale <= MAX_LOG_SCALE
    start = -math.log(initial)
    torch.testing.assert_close(temperature.log_scale.detach(), torch.tensor(start - sign * 0.3), rtol=0, atol=1e-5)


@pytest.mark.parametrize("initial", [0.009, 1.1, 20.0])
def test_a_learned_temperature_out_of_bounds_is_refused(initial: float) -> None:
    """Trap 16: the first clamp would change it behind the reader's back."""
    with pytest.raises(ValueError, match=rf"a learned temperature must start in \[0\.01, 1\], got {initial}"):
        Temperature(initial=initial, learn=True)


@pytest.mark.parametrize("learn", [True, False])
@pytest.mark.parametrize("initial", [0.0, -0.07, math.nan])
def test_a_temperature_must_be_positive(initial: float, learn: bool) -> None:
    with pytest.raises(ValueError, match=f"temperature must be > 0, got {initial}"):
        Temperature(initial=initial, learn=learn)


def test_a_fixed_temperature_may_be_anything_positive_and_stays() -> None:
    for initial in (0.001, 5.0):
        temperature = Temperature(initial=initial, learn=False)
        temperature.clamp()
        torch.testing.assert_close(temperature(torch.tensor(1.0)), torch.tensor(1 / initial))


def test_scores_are_fp32_under_autocast() -> None:
    """Traps 3 and 16: cosines in bf16 and a bf16 region still give the fp32 product."""
    temperature = Temperature(initial=0.07, learn=True)
    cosines = torch.linspace(-1, 1, 33).bfloat16()
    with torch.autocast("cpu", torch.bfloat16):
        scores = temperature(cosines)
    assert scores.dtype == torch.float32
    torch.testing.assert_close(scores, cosines.float() / 0.07)


def test_dual_encoders_carry_no_tokens() -> None:
    pooled = torch.randn(3, 5)
    embedded = pooled_only(pooled)
    assert embedded.pooled is pooled
    assert (embedded.tokens.shape, embedded.mask.shape) == ((3, 0, 5), (3, 0))
    assert embedded.mask.dtype == torch.bool
