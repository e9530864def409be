"""The moving average: its formula, when it is in place, and what is not averaged."""

from types import SimpleNamespace

import pytest
import torch
from lightning.pytorch import LightningModule
from torch import nn

from mmlit.training.averaging import AveragedWeights, validated_weights


class Module(LightningModule):
    """A weight, a statistic, positions, and a queue's keys."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.arange(3.0))
        self.register_buffer("running_mean", torch.zeros(2))
        self.register_buffer("keys", torch.zeros(2))
        self.register_buffer("positions", torch.arange(200))


@pytest.fixture
def begun() -> tuple[AveragedWeights, Module]:
    callback, module = AveragedWeights(decay=0.75), Module()
    callback.setup(SimpleNamespace(strategy=SimpleNamespace(root_device=torch.device("cpu"))), module, "fit")
    return callback, module


def step(callback: AveragedWeights, module: Module, number: int) -> None:
    with torch.no_grad():
        module.weight.add_(float(number))
        module.running_mean.sub_(float(number))
    callback.on_train_batch_end(SimpleNamespace(global_step=number), module, None, None, 0)


def test_the_average_is_that_of_the_formula_and_in_place_while_validating(begun):
    """From the first batch of a validation until all of it has been scored."""
    callback, module = begun
    for number in (1, 2, 3):
        step(callback, module, number)
    first, second, third = torch.arange(3.0) + 1, torch.arange(3.0) + 3, torch.arange(3.0) + 6
    average = 0.75 * (0.75 * first + 0.25 * second) + 0.25 * third
    assert torch.equal(module.weight, third)
    callback.on_validation_start(SimpleNamespace(), module)
    callback.on_validation_epoch_start(SimpleNamespace(), module)
    torch.testing.assert_close(module.weight.detach(), average)
    torch.testing.assert_close(module.running_mean, -(average - torch.arange(3.0))[:2])
    callback.on_validation_epoch_end(SimpleNamespace(), module)
    torch.testing.assert_close(module.weight.detach(), average)
    callback.on_validation_end(SimpleNamespace(), module)
    assert torch.equal(module.weight, third)


def test_other_callbacks_have_the_average_too(begun):
    """What they measure is compared with a validation."""
    callback, module = begun
    for number in (1, 2):
        step(callback, module, number)
    now = module.weight.detach().clone()
    with validated_weights(SimpleNamespace(callbacks=[callback]), module):
        torch.testing.assert_close(module.weight.detach(), now - 0.75 * 2)
    assert torch.equal(module.weight, now)
    with validated_weights(SimpleNamespace(callbacks=[]), module):
        assert torch.equal(module.weight, now)


def test_other_buffers_are_taken_over(begun):
    """Averaged and cut off, positions would be off by one; a mean of several images' keys has none of their ids."""
    callback, module = begun
    for number in range(1, 30):
        module.keys.fill_(float(number))
        step(callback, module, number)
    callback.on_validation_start(SimpleNamespace(), module)
    assert torch.equal(module.positions, torch.arange(200))
    assert module.keys.tolist() == [29.0, 29.0]


@pytest.mark.parametrize("decay", [-0.1, 1.0])
def test_a_decay_out_of_range_is_refused(decay):
    with pytest.raises(ValueError, match=rf"callbacks\.ema\.decay must lie in \[0, 1\), got {decay}"):
        AveragedWeights(decay=decay)


@pytest.mark.parametrize(("steps", "lags"), [(7, True), (8, False)])
def test_an_average_that_lags_behind_is_told(caplog, steps, lags):
    AveragedWeights(decay=0.75).on_train_start(
        SimpleNamespace(estimated_stepping_batches=steps, is_global_zero=True), Module()
    )
    assert ("averages about 4 steps, and the whole run has 7" in caplog.text) is lags
