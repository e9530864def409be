"""Broken training stops before it writes; jumps are told."""

import json
import logging
from types import SimpleNamespace

import pytest
import torch
from lightning.pytorch.trainer.states import TrainerFn
from torch import nn

from mmlit.training.sound import FILE_NAME, LEAST, SoundTraining


class Module(nn.Module):
    """As much of the module as is looked at."""

    def __init__(self, ids: list[int]) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(2))
        self.pairs = SimpleNamespace(all_image_id=torch.tensor(ids), all_text_id=torch.tensor(ids) + 100)


def trainer(*, scaler: object = None) -> SimpleNamespace:
    return SimpleNamespace(
        callback_metrics={"train/loss": torch.tensor(1.0)}, global_step=36, current_epoch=2, is_global_zero=True,
        precision_plugin=SimpleNamespace(scaler=scaler), precision="bf16-mixed", sanity_checking=False,
        state=SimpleNamespace(fn=TrainerFn.FITTING),
    )  # fmt: skip


@pytest.mark.parametrize("loss", [float("nan"), float("inf"), -float("inf")])
def test_a_loss_that_is_not_finite_ends_the_run_with_its_step_and_ids(tmp_path, loss):
    at, module = trainer(), Module([3, 1, 4])
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints" / "best.ckpt").touch()
    at.callback_metrics["train/loss"] = torch.tensor(loss)
    told = r"train/loss is (nan|-?inf) at optimizer step 37, epoch 3, with images 3, 1, 4 .*best\.ckpt of before stays"
    with pytest.raises(ValueError, match=told):
        SoundTraining(directory=tmp_path).on_after_backward(at, module)
    written = json.loads((tmp_path / FILE_NAME).read_text())
    assert written["step"] == 37
    assert written["image_ids"] == [3, 1, 4]
    assert written["text_ids"] == [103, 101, 104]


def test_of_a_large_batch_the_line_shows_some_ids_and_the_file_all(tmp_path):
    at = trainer()
    at.callback_metrics["train/loss"] = torch.tensor(float("nan"))
    with pytest.raises(ValueError, match=r"14, 15, … \(500 in all\)"):
        SoundTraining(directory=tmp_path).on_after_backward(at, Module(list(range(500))))
    assert json.loads((tmp_path / FILE_NAME).read_text())["image_ids"] == list(range(500))


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_gradient_that_is_not_finite_ends_the_run_unless_a_scaler_skips_its_step(tmp_path, value):
    module = Module([7])
    module.weight.grad = torch.tensor([1e30, 1.0])  # large is not infinite
    guard = SoundTraining(directory=tmp_path)
    guard.on_after_backward(trainer(), module)
    guard.on_before_optimizer_step(trainer(), module, None)
    module.weight.grad[1] = value
    guard.on_before_optimizer_step(trainer(scaler=object()), module, None)
    told = r"1 of 1 gradients are not finite, weight's first, at optimizer step 37, .* images 7 "
    with pytest.raises(ValueError, match=told):
        guard.on_before_optimizer_step(trainer(), module, None)


def test_broken_weights_are_not_written(tmp_path):
    guard, weights = SoundTraining(directory=tmp_path), {"a": torch.ones(2), "steps": torch.tensor(3)}
    guard.on_save_checkpoint(trainer(), Module([1]), {"state_dict": weights})
    weights["a"][0] = float("inf")
    told = r"1 of 1 weights are not finite, a's first, after optimizer step 36, .*\. no checkpoint has been written yet"
    with pytest.raises(ValueError, match=told):
        guard.on_save_checkpoint(trainer(), Module([1]), {"state_dict": weights})


def test_weights_that_a_step_broke_are_told_before_anything_is_ranked(tmp_path):
    guard, module, at = SoundTraining(directory=tmp_path), Module([8, 9]), trainer()
    guard.on_after_backward(at, module)
    module.pairs = None  # the step is over
    guard.on_validation_start(at, module)
    module.weight.data[0] = float("nan")
    with pytest.raises(ValueError, match=r"1 of 1 weights are not finite, .* after optimizer step 36, .* images 8, 9 "):
        guard.on_validation_start(at, module)
    assert json.loads((tmp_path / FILE_NAME).read_text())["text_ids"] == [108, 109]


def test_a_spike_is_told_and_noise_is_not(tmp_path, caplog):
    guard, at, module = SoundTraining(directory=tmp_path), trainer(), Module([5, 6])
    noise = torch.randn(300, generator=torch.Generator().manual_seed(0))
    with caplog.at_level(logging.WARNING, logger="mmlit.training.sound"):
        for step, value in enumerate(noise.tolist()):
            at.callback_metrics["train/loss"] = torch.tensor(4 - step / 150 + 0.1 * value)
            guard.on_after_backward(at, module)
        assert not caplog.records
        at.callback_metrics["train/loss"] = torch.tensor(9.0)
        guard.on_after_backward(at, module)
    (record,) = caplog.records
    assert "loss spike at optimizer step 37: train/loss 9, mean of the last 100 " in record.getMessage()
    assert record.getMessage().endswith("images 5, 6")


def test_the_first_losses_are_not_judged(tmp_path, caplog):
    guard, at = SoundTraining(directory=tmp_path), trainer()
    for step in range(LEAST):
        at.callback_metrics["train/loss"] = torch.tensor(100.0 if step == LEAST - 1 else 1.0)
        guard.on_after_backward(at, Module([1]))
    assert not caplog.records
