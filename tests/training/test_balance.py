"""Gradient and step of each part by hand; the tower that runs ahead is slowed."""

import math
from types import SimpleNamespace

import pytest
import torch
from torch import nn
from training.test_parameter_groups import Model, groups_of

from mmlit.training.balance import Balance
from mmlit.training.modulation import Modulation, paces
from mmlit.training.parameter_groups import scale


class Logged(Model):
    """Two towers and a head of one matrix each; keeps what is logged."""

    def __init__(self) -> None:
        super().__init__(*(nn.Linear(2, 2, bias=False) for _ in range(3)))
        for part in self.parameters():
            nn.init.eye_(part)
        self.logged: dict[str, float] = {}
        self.groups = groups_of

    def log(self, name, value, **_):
        self.logged[name] = float(value)

    def log_dict(self, values, **_):
        self.logged |= values


def trainer(*, logs: bool, optimizer: torch.optim.Optimizer | None = None) -> SimpleNamespace:
    connector = SimpleNamespace(should_update_logs=logs)
    return SimpleNamespace(_logger_connector=connector, strategy=SimpleNamespace(optimizers=[optimizer]))


def gradients(module: Model, image: float, text: float) -> None:
    for part, value in ((module.image_encoder, image), (module.text_encoder, text), (module.alignment, 1.0)):
        part.weight.grad = torch.full((2, 2), value)


def test_gradient_norm_and_share_of_the_weights_that_a_step_moves():
    module = Logged()
    optimizer = torch.optim.SGD(module.parameters(), lr=0.1)
    gradients(module, 3.0, 4.0)
    module.text_encoder.weight.requires_grad_(False)  # frozen for now
    callback = Balance()
    callback.on_before_optimizer_step(trainer(logs=True), module, optimizer)
    optimizer.step()
    callback.on_train_batch_end(trainer(logs=True), module)
    # a matrix of four threes has the norm 6; the identity's is √2
    assert module.logged == pytest.approx({
        "train/gradient/image_encoder": 6.0, "train/update/image_encoder": 0.6 / math.sqrt(2),
        "train/gradient/fusion": 2.0, "train/update/fusion": 0.2 / math.sqrt(2),
    })  # fmt: skip


def test_nothing_is_computed_between_logged_steps():
    module, callback = Logged(), Balance()
    callback.on_before_optimizer_step(trainer(logs=False), module, torch.optim.SGD(module.parameters(), lr=0.1))
    callback.on_train_batch_end(trainer(logs=False), module)
    assert module.logged == {}
    assert callback._before == {}


def modulated(**rates: float) -> tuple[Logged, Modulation, torch.optim.Optimizer]:
    module, callback = Logged(), Modulation(strength=0.4)
    optimizer = torch.optim.SGD(groups_of(module, **rates), lr=0.1)
    scale(optimizer)
    callback.on_train_start(trainer(logs=True, optimizer=optimizer), module)
    return module, callback, optimizer


def test_the_tower_ahead_takes_smaller_steps():
    """With plain gradient descent a step takes lr · |g|² off the loss: 4 · 4 of the image's, 4 · 1 of the text's."""
    module, callback, optimizer = modulated()
    for factor in (1.0, 1 - math.tanh(0.4 * 3)):  # the first step knows nothing yet; then ρ = 4, at any pace
        before = [part.detach().clone() for part in module.parameters()]
        gradients(module, 2.0, 1.0)
        optimizer.step()
        moved = [float((old - new.detach()).mean()) for old, new in zip(before, module.parameters(), strict=True)]
        assert moved == pytest.approx([0.2 * factor, 0.1, 0.1], rel=1e-5)
        assert [group["lr"] for group in optimizer.param_groups] == [0.1] * 3, "a schedule may build on it"
        assert callback._parts["image_encoder"] == pytest.approx(4 * callback._parts["text_encoder"], rel=1e-5)
    callback.on_train_batch_end(trainer(logs=True), module)
    assert module.logged == pytest.approx({"train/pace/image_encoder": factor, "train/pace/text_encoder": 1.0})


def test_a_rate_that_is_wanted_is_no_lag():
    """Else the other tower would be slowed just because one was given a hundredth of its rate."""
    module, callback, optimizer = modulated(image_encoder=0.01, image_layer_decay=0.5)
    for _ in range(2):
        gradients(module, 1.0, 1.0)
        optimizer.step()
    assert callback._pace == pytest.approx({"image_encoder": 1.0, "text_encoder": 1.0}, rel=1e-4)  # steps of 1e-4 of 1


def test_a_tower_that_thaws_later_is_not_taken_for_a_slow_one():
    """Its average begins with its first step: from 0 it would lag behind for as long as the average looks back."""
    module, callback, optimizer = modulated()
    for image in (0.0, 0.0, 0.0, 1.0):
        gradients(module, image, 1.0)
        optimizer.step()
    gradients(module, 1.0, 1.0)
    optimizer.step()
    assert callback._pace == pytest.approx({"image_encoder": 1.0, "text_encoder": 1.0})


def test_a_resumed_run_goes_on_with_what_it_had():
    module, callback, optimizer = modulated()
    gradients(module, 1.0, 2.0)
    optimizer.step()
    _, other, _ = modulated()
    other.load_state_dict(callback.state_dict())
    assert other._parts == callback._parts != modulated()[1]._parts


def test_paces():
    assert paces({"a": 1.0, "b": 1.0}, strength=3.0) == {"a": 1.0, "b": 1.0}
    assert paces({"a": 2.0, "b": 1.0}, strength=0.1) == pytest.approx({"a": 1 - math.tanh(0.1), "b": 1.0})
    assert paces({"a": 0.0, "b": 1.0}, strength=0.1) == {"a": 1.0, "b": 1.0}
    assert paces({"a": 1.0, "b": 1e9}, strength=1.0) == {"a": 1.0, "b": 0.1}, "it waits, and does not stand"


def test_what_cannot_be_balanced_is_refused():
    with pytest.raises(ValueError, match=r"callbacks\.modulation\.strength must be > 0, got 0\.0"):
        Modulation(strength=0.0)
    module = Logged()
    module.groups = None
    with pytest.raises(ValueError, match="add groups=by_part"):
        Modulation(strength=0.1).prepare(module)
    module.text_encoder.requires_grad_(False)
    with pytest.raises(ValueError, match="but text_encoder is frozen"):
        Modulation(strength=0.1).prepare(module)
