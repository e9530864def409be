"""Nearest neighbours: votes by hand, ties, chance."""

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from evaluation.scorers import Angles, Constant, Dual, Untouched, draw

from mmlit.contracts import Encoded
from mmlit.evaluation.knn import NearestNeighbours
from mmlit.layers.similarity import pooled_only


def write(root: Path, split: str, classes: dict[str, list[int]]) -> None:
    for name, numbers in classes.items():
        for place, number in enumerate(numbers):
            draw(root / split / name / f"{place}.png", number)


def probe(root: Path, **changes: Any) -> NearestNeighbours:
    options: dict[str, Any] = {"k": 3, "temperature": 0.07, "batch_size": 2}
    return NearestNeighbours(train=str(root / "train"), test=str(root / "test"), **options | changes)


@pytest.mark.parametrize(
    ("temperature", "right"), [(0.07, [True, False]), (10.0, [False, True]), (1e-4, [True, False])]
)
def test_votes_by_hand(tmp_path: Path, temperature: float, right: list[bool]) -> None:
    """One neighbour of a at 5 degrees against two of b at 60: cos 5 = 0.996, cos 60 = 0.5; the fourth is far."""
    write(tmp_path, "train", {"a": [1], "b": [12, 12, 30]})
    write(tmp_path, "test", {"a": [0], "b": [0]})
    votes = math.exp(0.996 / 0.07), 2 * math.exp(0.5 / 0.07), math.exp(0.0996), 2 * math.exp(0.05)
    assert votes[0] > votes[1]
    assert votes[2] < votes[3]
    result = probe(tmp_path, temperature=temperature).evaluate(Angles())
    assert result.items["top1"].tolist() == right
    assert result.counts == {"train": 4, "test": 2, "classes": 2}


@pytest.mark.parametrize(("k", "top1"), [(1, 100), (5, 0)])
def test_only_k_of_them_vote(tmp_path: Path, k: int, top1: float) -> None:
    write(tmp_path, "train", {"a": [1], "b": [2, 3, 4, 5]})
    write(tmp_path, "test", {"a": [0, 0], "b": [6]})
    result = probe(tmp_path, k=k, temperature=1.0).evaluate(Angles())
    assert result.metrics["top1"] == pytest.approx((2 * top1 + 100) / 3)
    assert result.metrics["mean_per_class"] == pytest.approx((top1 + 100) / 2)


def test_ties_lose(tmp_path: Path) -> None:
    """Trap 1: constant embeddings, and a border of k that runs through equals."""
    classes = {"a": [1, 2, 3, 4], "b": [5, 6, 7, 8], "c": [9, 10, 11, 12]}
    write(tmp_path, "train", classes)
    write(tmp_path, "test", classes)
    assert probe(tmp_path).evaluate(Constant()).metrics == {"top1": 0, "mean_per_class": 0}
    write(tmp_path / "border", "train", {"a": [1], "b": [1]})
    write(tmp_path / "border", "test", {"a": [1], "b": [1]})
    assert probe(tmp_path / "border", k=1).evaluate(Angles()).metrics["top1"] == 0


def test_a_planted_model_and_chance(tmp_path: Path) -> None:
    classes = {str(number): [number] * 8 for number in range(6)}
    write(tmp_path, "train", classes)
    write(tmp_path, "test", classes)
    assert probe(tmp_path).evaluate(Dual()).metrics == {"top1": 100, "top5": 100, "mean_per_class": 100}
    chance = probe(tmp_path, k=5).evaluate(Noise()).metrics["top1"]
    assert chance == pytest.approx(100 / 6, abs=22)  # 4 standard errors of 48 pictures


class Noise(Dual):
    """Another random vector for every picture, also for the same."""

    def __init__(self) -> None:
        super().__init__()
        self.generator = torch.Generator().manual_seed(0)

    def encode_images(self, images: Any, *, batch_size: int = 64) -> Encoded:
        return pooled_only(torch.randn(len(images), 16, generator=self.generator))


class NotFinite(Dual):
    """Picture 3 has no embedding."""

    def encode_images(self, images: Any, *, batch_size: int = 64) -> Encoded:
        encoded = super().encode_images(images)
        return pooled_only(encoded.pooled.masked_fill(encoded.pooled[:, 3:4] == 1, float("inf")))


def test_an_embedding_that_is_not_finite_is_refused_by_name(tmp_path: Path) -> None:
    """Trap 2."""
    write(tmp_path, "train", {"a": [1, 2, 3], "b": [4]})
    write(tmp_path, "test", {"a": [1], "b": [4]})
    with pytest.raises(ValueError, match=r"train/a/2\.png: its embedding is not finite"):
        probe(tmp_path).evaluate(NotFinite())


def test_folders_that_do_not_go_together(tmp_path: Path) -> None:
    """Trap 9: pictures to learn from are none to be asked about."""
    write(tmp_path, "train", {"a": [1], "b": [1]})
    write(tmp_path, "test", {"a": [1], "c": [1]})
    with pytest.raises(ValueError, match=r"class 'b' is in only one of evaluator\.train="):
        probe(tmp_path).evaluate(Untouched())
    options: dict[str, Any] = {"k": 1, "temperature": 1.0, "batch_size": 1}
    inside = NearestNeighbours(train=str(tmp_path), test=str(tmp_path / "test"), **options)
    with pytest.raises(ValueError, match=r"evaluator\.train=.* and evaluator\.test=.* share pictures"):
        inside.evaluate(Untouched())
    write(tmp_path, "train", {"c": [1]})
    write(tmp_path, "test", {"b": [1]})
    with pytest.raises(ValueError, match=r"evaluator\.k=4 neighbours, but evaluator\.train=.* has 3"):
        probe(tmp_path, k=4).evaluate(Untouched())
    (tmp_path / "train" / "a" / "0.png").write_bytes(b"")
    with pytest.raises(ValueError, match=r"evaluator\.train=.*a/0\.png is not a readable picture"):
        probe(tmp_path).evaluate(Untouched())


def test_protocols_differ_where_results_cannot_be_compared(tmp_path: Path) -> None:
    write(tmp_path, "train", {"a": [1, 2], "b": [5]})
    write(tmp_path, "test", {"a": [1], "b": [5]})
    protocols = [probe(tmp_path, **change).evaluate(Dual()).protocol for change in ({}, {"k": 2}, {"temperature": 1.0})]
    write(tmp_path, "train", {"b": [5, 6]})
    protocols.append(probe(tmp_path).evaluate(Dual()).protocol)
    assert len(set(map(repr, protocols))) == 4
    assert str(tmp_path) not in repr(protocols)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"k": 0}, "evaluator.k must be >= 1, got 0"),
        ({"batch_size": 0}, "evaluator.batch_size must be >= 1, got 0"),
        ({"temperature": 0.0}, "evaluator.temperature must be > 0, got 0.0"),
    ],
)
def test_wrong_options(tmp_path: Path, wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        probe(tmp_path, **wrong)
