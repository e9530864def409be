"""Linear probe: the optimum in closed form, how the penalty is chosen, and that test pictures decide nothing."""

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from evaluation.scorers import Angles, Dual, Untouched, draw

from mmlit.contracts import Encoded
from mmlit.evaluation.linear_probe import LinearProbe
from mmlit.layers.similarity import pooled_only


def write(root: Path, split: str, classes: dict[str, list[int]]) -> None:
    for name, numbers in classes.items():
        for place, number in enumerate(numbers):
            draw(root / split / name / f"{place}.png", number)


def probe(root: Path, **changes: Any) -> LinearProbe:
    options: dict[str, Any] = {"penalties": [1e-3, 1e-1], "held_out": 0.25, "max_steps": 200, "batch_size": 8}
    return LinearProbe(train=str(root / "train"), test=str(root / "test"), **options | changes)


@pytest.mark.parametrize("penalty", [1.0, 0.1, 0.01])
def test_the_optimum_in_closed_form(tmp_path: Path, penalty: float) -> None:
    """Two classes at 3 and 7, that is −1 and 1: the weights are ∓a with a (1 + exp 2a) = 1 / λ, the logits ∓a x."""
    known = torch.tensor([[3.0], [7.0], [3.0], [7.0]]).double()
    logits = probe(tmp_path)._logits(known, torch.tensor([0, 1, 0, 1]), torch.tensor([[7.0], [9.0]]).double(), penalty)
    weight = logits[0, 1].item()
    assert weight * (1 + math.exp(2 * weight)) == pytest.approx(1 / penalty, rel=1e-5)
    assert torch.allclose(logits, torch.tensor([[-weight, weight], [-2 * weight, 2 * weight]]).double(), atol=1e-6)


def test_a_dimension_without_spread_does_not_matter(tmp_path: Path) -> None:
    known = torch.tensor([[3.0], [7.0]]).double()
    labels = torch.tensor([0, 1])
    constant = torch.cat([known, torch.full((2, 1), 5.0).double()], 1)
    one, two = (probe(tmp_path)._logits(each, labels, each, 0.1) for each in (known, constant))
    assert torch.allclose(one, two)


def test_works_where_gradients_are_off(tmp_path: Path) -> None:
    with torch.inference_mode():
        known = torch.tensor([[3.0], [7.0]]).double()
        logits = probe(tmp_path)._logits(known, torch.tensor([0, 1]), known, 0.1)
    assert logits[0, 0] > logits[0, 1]


class Noisy(Dual):
    """A weak signal in the first two of 24 dimensions; the rest is noise that only a penalty keeps out."""

    def __init__(self, *, noise: float = 3.0) -> None:
        super().__init__()
        self.noise, self.generator = noise, torch.Generator().manual_seed(0)

    def encode_images(self, images: Any, *, batch_size: int = 64) -> Encoded:
        signal = torch.tensor([[float(number), -float(number)] for number in self.numbers(images)])
        signal += torch.randn(len(images), 2, generator=self.generator)
        return pooled_only(torch.cat([signal, self.noise * torch.randn(len(images), 22, generator=self.generator)], 1))


def test_the_penalty_is_chosen_on_training_pictures_alone(tmp_path: Path) -> None:
    """Trap 9: the choice is the same whatever the test pictures are, and of equals the largest."""
    write(tmp_path, "train", {"a": [1] * 20, "b": [3] * 20})
    write(tmp_path, "test", {"a": [1] * 6, "b": [3] * 6})
    one = probe(tmp_path, penalties=[1e-6, 1e-1, 1.0]).evaluate(Noisy())
    write(tmp_path, "test", {"a": [3] * 6, "b": [1] * 6})
    other = probe(tmp_path, penalties=[1e-6, 1e-1, 1.0]).evaluate(Noisy())
    for name in ("penalty", "held_out_top1"):
        assert one.metrics[name] == other.metrics[name]
    assert one.metrics["top1"] > 75
    assert other.metrics["top1"] < 50
    assert one.metrics["penalty"] >= 1e-1
    assert one.counts == {"train": 40, "held_out": 10, "test": 12, "classes": 2}
    assert probe(tmp_path).evaluate(Angles()).metrics["penalty"] == 1e-1  # both separate everything


def test_a_planted_model_and_chance(tmp_path: Path) -> None:
    classes = {str(number): [number] * 8 for number in range(6)}
    write(tmp_path, "train", classes)
    write(tmp_path, "test", classes)
    metrics = probe(tmp_path).evaluate(Dual()).metrics
    assert metrics["top1"] == metrics["top5"] == metrics["mean_per_class"] == metrics["held_out_top1"] == 100
    chance = probe(tmp_path).evaluate(Blind()).metrics["top1"]
    assert chance == pytest.approx(100 / 6, abs=22)  # 4 standard errors of 48 pictures


class Blind(Noisy):
    """Noise that does not look at the picture."""

    def encode_images(self, images: Any, *, batch_size: int = 64) -> Encoded:
        return pooled_only(torch.randn(len(images), 8, generator=self.generator))


def test_every_class_keeps_a_picture_to_learn_from_and_one_to_choose_by(tmp_path: Path) -> None:
    write(tmp_path, "train", {"a": [1, 1], "b": [3, 3]})
    write(tmp_path, "test", {"a": [1], "b": [3]})
    for held_out in (0.01, 0.99):
        result = probe(tmp_path, held_out=held_out).evaluate(Dual())
        assert result.counts["held_out"] == 2
        assert result.metrics["top1"] == 100
    (tmp_path / "train" / "b" / "1.png").unlink()
    with pytest.raises(ValueError, match="class 'b' has one training picture"):
        probe(tmp_path).evaluate(Untouched())


def test_protocols_differ_where_results_cannot_be_compared(tmp_path: Path) -> None:
    write(tmp_path, "train", {"a": [1, 1], "b": [3, 3]})
    write(tmp_path, "test", {"a": [1], "b": [3]})
    changes: list[dict[str, Any]] = [{}, {"penalties": [1.0]}, {"held_out": 0.5}, {"max_steps": 7}]
    protocols = [probe(tmp_path, **change).evaluate(Dual()).protocol for change in changes]
    assert probe(tmp_path, batch_size=1).evaluate(Dual()).protocol == protocols[0]
    write(tmp_path, "test", {"b": [3, 3]})
    protocols.append(probe(tmp_path).evaluate(Dual()).protocol)
    assert len(set(map(repr, protocols))) == 5


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"penalties": []}, r"evaluator\.penalties must be numbers > 0, at least one, got \[\]"),
        ({"penalties": [0.0, 1.0]}, "evaluator.penalties must be numbers > 0"),
        ({"held_out": 1.0}, r"evaluator\.held_out must lie in \(0, 1\), got 1\.0"),
        ({"max_steps": 0}, "evaluator.max_steps must be >= 1, got 0"),
        ({"batch_size": 0}, "evaluator.batch_size must be >= 1, got 0"),
    ],
)
def test_wrong_options(tmp_path: Path, wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        probe(tmp_path, **wrong)
