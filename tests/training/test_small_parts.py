"""Parameter groups, schedule, checkpoints, status."""

import json
import math
import os
import time
from multiprocessing import get_context
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from lightning.fabric.utilities.cloud_io import _atomic_save
from torch import nn

from mmlit.training.checkpoints import load_weights, read_checkpoint
from mmlit.training.module import CHECKPOINT_VERSION, RetrievalModule
from mmlit.training.parameter_groups import parameter_groups
from mmlit.training.schedules import warmup_cosine


def test_every_trainable_parameter_is_in_exactly_one_group():
    module = nn.Sequential(nn.Linear(3, 4), nn.LayerNorm(4), nn.Linear(4, 2))
    module.log_scale = nn.Parameter(torch.zeros(()))
    module[2].weight.requires_grad_(False)
    groups = parameter_groups(module)
    listed = [id(parameter) for group in groups for parameter in group["params"]]
    assert sorted(listed) == sorted(id(parameter) for parameter in module.parameters() if parameter.requires_grad)


def test_scalars_norms_and_biases_do_not_decay():
    """Trap 16: no weight decay on log_scale."""
    module = nn.Linear(3, 4)
    module.log_scale = nn.Parameter(torch.ones(()))
    optimizer = torch.optim.AdamW(parameter_groups(module), lr=0.1, weight_decay=0.5)
    before = module.weight.detach().clone()
    for parameter in module.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    assert module.log_scale == 1
    assert torch.allclose(module.weight, before * 0.95)


def test_nothing_to_train_is_refused():
    with pytest.raises(ValueError, match="nothing to train"):
        parameter_groups(nn.Linear(2, 2).requires_grad_(False))


def test_warmup_then_half_a_cosine():
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=2.0)
    schedule = warmup_cosine(optimizer, total_steps=100, warmup=0.1)
    rates = []
    for _ in range(100):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    assert rates[0] == pytest.approx(2 / 11)
    assert max(rates) == rates[10] == 2
    assert rates[55] == pytest.approx(2 * 0.5 * (1 + math.cos(math.pi * 0.5)))
    assert optimizer.param_groups[0]["lr"] == pytest.approx(0, abs=1e-9)
    with pytest.raises(ValueError, match=r"schedule\.warmup must lie in \[0, 1\), got 1"):
        warmup_cosine(optimizer, total_steps=10, warmup=1)


def test_foreign_and_broken_checkpoints_are_refused_by_name(tmp_path):
    """Traps 29 and 34: weights and plain containers only; a truncated file is told."""
    path = tmp_path / "a.ckpt"
    with pytest.raises(FileNotFoundError, match=r"a\.ckpt: no such file"):
        read_checkpoint(path)
    torch.save({"state_dict": {}}, path)
    with pytest.raises(ValueError, match="not written by mmlit"):
        read_checkpoint(path)
    torch.save({"mmlit": {"version": 99}}, path)
    with pytest.raises(ValueError, match=f"version 99, this mmlit reads version {CHECKPOINT_VERSION}"):
        read_checkpoint(path)
    torch.save({"mmlit": {"version": 1}, "code": os.system}, path)
    with pytest.raises(ValueError, match="cannot be read"):
        read_checkpoint(path)
    torch.save({"mmlit": {"version": 1}, "x": torch.randn(1000)}, path)
    path.write_bytes(path.read_bytes()[:900])
    with pytest.raises(ValueError, match="cannot be read"):
        read_checkpoint(path)


def test_weights_that_do_not_fit_are_listed():
    with pytest.raises(
        ValueError, match=r"checkpoint=x does not fit the model, keys: 1 missing \(bias\); 1 unexpected \(gamma\)"
    ):
        load_weights(nn.Linear(2, 2), {"state_dict": {"weight": torch.zeros(2, 2), "gamma": torch.zeros(1)}}, path="x")


def save_for_ever(path, ready):
    big = {"mmlit": {"version": 1}, "x": torch.zeros(20_000_000)}
    ready.set()
    while True:
        _atomic_save(big, path)


def test_a_kill_while_saving_leaves_a_whole_checkpoint(tmp_path):
    """Trap 34: Lightning's writer, which the callbacks use, writes beside and renames."""
    path = tmp_path / "last.ckpt"
    torch.save({"mmlit": {"version": 1}, "x": torch.ones(10)}, path)
    fork = get_context("fork")
    for pause in (0.01, 0.1, 0.2, 0.35):
        ready = fork.Event()
        process = fork.Process(target=save_for_ever, args=(path, ready))
        process.start()
        ready.wait()
        time.sleep(pause)
        process.kill()
        process.join()
        assert "x" in read_checkpoint(path)


def test_status_is_replaced_as_a_whole(tmp_path):
    from types import SimpleNamespace

    from mmlit.training.status import StatusFile

    trainer = SimpleNamespace(
        is_global_zero=True, estimated_stepping_batches=10, global_step=5, current_epoch=1, max_epochs=2,
        callback_metrics={"train/loss": torch.tensor(1.5)},
    )  # fmt: skip
    StatusFile(path=tmp_path / "status.json").on_train_batch_end(trainer, None, None, None, 0)
    status = json.loads((tmp_path / "status.json").read_text())
    assert status == {"epoch": 1, "epochs": 2, "share": 0.5, "begun": 0.0, "train/loss": 1.5}
    assert [path.name for path in tmp_path.iterdir()] == ["status.json"]


def test_the_ids_of_the_reported_split_are_copied_from_what_is_mapped(recwarn):
    """torch warns of arrays that cannot be written, which mapped ones of a cached run are."""
    ids = np.array([7, 3, 5])
    ids.flags.writeable = False
    captions = SimpleNamespace(root="data", image_id=ids, text_id=ids)
    data = SimpleNamespace(readers={"test": SimpleNamespace(captions=captions)}, names={"test": "test"})
    begun = []
    module = SimpleNamespace(trainer=SimpleNamespace(datamodule=data), evaluator=SimpleNamespace(begin=begun.append))
    RetrievalModule.on_test_epoch_start(module)
    assert begun[0].image_id.tolist() == [7, 3, 5]
    assert begun[0].image_id.data_ptr() != ids.ctypes.data  # torch warns once in a process
    assert not recwarn.list
