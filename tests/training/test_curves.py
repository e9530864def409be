"""Learning curves: what is collected when, how it is thinned, and that a resumed run goes on."""

from types import SimpleNamespace
from typing import Any

import pytest
import torch

from mmlit.training.curves import LOSS, MOST, Curves, Series


def trainer(step: int, epoch: int = 0, **metrics: float) -> Any:
    values = {name.replace("_", "/", 1): torch.tensor(value) for name, value in metrics.items()}
    return SimpleNamespace(global_step=step, current_epoch=epoch, callback_metrics=values, sanity_checking=False)


def filled(number: int, value: float | None = None) -> Series:
    series = Series()
    for step in range(1, number + 1):
        series.add(step, 1, torch.tensor(float(step) if value is None else value))
    return series


def test_a_short_curve_is_whole():
    assert filled(3).curve() == {"step": [1, 2, 3], "epoch": [1, 1, 1], "value": [1.0, 2.0, 3.0]}


@pytest.mark.parametrize("number", [MOST, MOST + 1, 1000, 2013])
def test_a_long_curve_is_thinned_to_means(number):
    series = filled(number)
    curve = series.curve()
    assert MOST // 2 <= len(curve["step"]) <= MOST
    assert curve["step"][-1] == number, "the last step is there, though its window is not full"
    first, second = curve["step"][:2]
    assert second - first == series.every
    assert curve["value"][0] == pytest.approx((1 + first) / 2), "the mean of the steps up to it"
    assert filled(number, 0.25).curve()["value"] == [0.25] * len(curve["step"])


def test_what_is_not_finite_is_left_out():
    series = filled(2)
    series.add(3, 1, torch.tensor(float("nan")))
    assert series.curve()["step"] == [1, 2]


def test_one_point_per_optimizer_step():
    curves = Curves()
    for step in (0, 1, 1, 2):  # two batches to a step: the first changes nothing
        curves.on_train_batch_end(trainer(step, train_loss=5.0 - step), None)
    curves.on_validation_end(trainer(2, epoch=1, val_rsum=100.0, val_i2t_r1=10.0), None)
    found = curves.curves()
    assert found[LOSS] == {"step": [1, 2], "epoch": [1, 1], "value": [4.0, 3.0]}
    assert found["val/rsum"] == {"step": [2], "epoch": [2], "value": [100.0]}
    assert set(found) == {LOSS, "val/rsum", "val/i2t_r1"}


def test_the_trial_before_training_is_no_point():
    curves, before = Curves(), trainer(0, val_rsum=1.0)
    before.sanity_checking = True
    curves.on_validation_end(before, None)
    assert curves.curves() == {}


def test_a_resumed_run_has_the_curve_of_an_undisturbed_one(tmp_path):
    """Trap 29: the state is plain, `weights_only=True` reads it."""
    whole, first = Curves(), Curves()
    for step in range(1, 400):
        whole.on_train_batch_end(trainer(step, train_loss=1 / step), None)
    for step in range(1, 252):
        first.on_train_batch_end(trainer(step, train_loss=1 / step), None)
    torch.save(first.state_dict(), tmp_path / "state.pt")
    second = Curves()
    second.load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True))
    second.on_train_batch_end(trainer(251, train_loss=9.0), None)  # gradients of step 252 are being accumulated
    for step in range(252, 400):
        second.on_train_batch_end(trainer(step, train_loss=1 / step), None)
    assert second.curves() == whole.curves()
