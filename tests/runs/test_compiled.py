"""A run with compiled towers, with torch's own code generator, as a user starts it."""

import json
import shutil
from pathlib import Path

import pytest
import torch

SMALL = ("alignment=contrastive", "trainer.max_epochs=2", "trainer.check_val_every_n_epoch=2")
needs_compiler = pytest.mark.skipif(not any(map(shutil.which, ("c++", "g++", "clang++"))), reason="no C++ compiler")


def ran(train, *options: str, name: str) -> tuple[dict, Path, str]:
    """The record, the checkpoint, and what the run printed."""
    ended = train(*SMALL, f"paths.outputs={name}", *options)
    assert ended.code == 0, ended.err
    (record,) = Path(name).rglob("result.json")
    return json.loads(record.read_text()), record.parent / "checkpoints" / "last.ckpt", ended.out


@pytest.mark.slow
@needs_compiler
def test_a_compiled_run_and_its_checkpoint_are_like_any_other(train):
    """Trap 31: keys are those of an uncompiled run, and a checkpoint goes on either way."""
    plain, checkpoint, _ = ran(train, "callbacks=[last]", name="plain")
    found, compiled, out = ran(train, "callbacks=[last,compile]", name="compiled")
    assert "towers compiled by inductor" in out
    assert found["config"]["callbacks"]["compile"]["backend"] == "inductor"
    keys = [list(torch.load(path, weights_only=True)["state_dict"]) for path in (checkpoint, compiled)]
    assert keys[0] == keys[1]
    losses = [record["curves"]["train/loss"]["value"] for record in (plain, found)]
    assert losses[1] == pytest.approx(losses[0], rel=1e-2)
    again, _, _ = ran(train, "callbacks=[last]", "fit=false", f"checkpoint={compiled}", name="evaluated")
    assert again["metrics"] == pytest.approx(found["metrics"], abs=5)
    ran(train, "callbacks=[last,compile]", f"checkpoint={checkpoint}", name="goes_on")


def test_tf32_on_a_cpu_is_refused_before_training(train):
    ended = train("callbacks=[last,tf32]")
    assert ended.code == 2
    assert ended.err == "train.py: callbacks=tf32 is for GPUs, and this run is on the cpu: leave it out\n"
