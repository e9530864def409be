"""A killed run goes on, on the very next batch, and ends as if nothing had happened."""

import json
import os
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import mmlit.training.resume
from mmlit.training.resume import ResumePoint

#: 6 batches an epoch, two epochs; `joint` draws random numbers in every step, so do views of pictures
JOINT = (
    "alignment=joint",
    "auxiliary=[tags,self_supervised]",
    "alignment.token_dim=32",
    "resume_minutes=0.000001",
    "hydra.mode=RUN",
)


def record_of(outputs: Path) -> dict[str, Any]:
    (path,) = outputs.glob("*/result.json")
    return json.loads(path.read_text())


def ranks_of(outputs: Path) -> dict[str, np.ndarray]:
    (path,) = outputs.glob("*/ranks.npz")
    return dict(np.load(path))


def die_behind(step: int) -> None:
    """Makes this process kill itself once it has written the resume point of optimizer step `step`."""
    write = ResumePoint._write
    mmlit.training.resume._SHARE = 1e9  # a point at every batch

    def writing(self, trainer):
        write(self, trainer)
        if trainer.global_step == step:
            os.kill(os.getpid(), signal.SIGKILL)

    ResumePoint._write = writing


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    return tmp_path_factory.mktemp("undisturbed")


@pytest.mark.parametrize(
    "steps",
    [(3, 8), *(pytest.param((step,), marks=pytest.mark.slow) for step in (1, 7, 12))],
    ids=str,
)
def test_a_killed_run_ends_as_one_that_was_not(train, tmp_path, undisturbed, steps):
    """Trap 28. Step 3 is in the middle of the first epoch, 7 begins the second, 12 is before the final evaluation."""
    if not list(undisturbed.glob("*")):
        assert train(*JOINT, f"paths.outputs={undisturbed}").code == 0
    for step in steps:
        ended = train(*JOINT, before=lambda step=step: die_behind(step))
        assert ended.code == -signal.SIGKILL
        (run,) = (tmp_path / "outputs").iterdir()
        assert torch.load(run / "checkpoints" / "resume.ckpt", weights_only=True)["global_step"] == step
    ended = train(*(option.replace("tags,self_supervised", "self_supervised,tags") for option in JOINT))
    assert ended.code == 0, ended.err
    assert f"after {steps[-1]} optimizer steps" in ended.out
    assert not (run / "checkpoints" / "resume.ckpt").exists()
    expected, found = record_of(undisturbed), record_of(tmp_path / "outputs")
    for part in ("metrics", "budget", "selection", "validation", "diagnostics"):
        assert found[part] == expected[part], part
    for name, array in ranks_of(undisturbed).items():
        assert np.array_equal(ranks_of(tmp_path / "outputs")[name], array), name
    weights = [torch.load(next(folder.glob("*/checkpoints/best.ckpt")), weights_only=True)["state_dict"]
               for folder in (undisturbed, tmp_path / "outputs")]  # fmt: skip
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])


@pytest.mark.slow
@pytest.mark.parametrize(
    ("options", "step", "goes_on_from", "steps"),
    [
        (("+trainer.accumulate_grad_batches=2",), 2, 2, 6),
        (("step=gradient_cache", "step.chunk_size=6"), 9, 9, 24),
        (("callbacks=[best,early_stopping]", "callbacks.early_stopping.patience=1", "optimizer.lr=1e-9"), 12, 12, 12),
    ],
    ids=["accumulating", "gradient cache", "stopped early"],
)
def test_special_endings_and_steps(train, tmp_path, options, step, goes_on_from, steps):
    """Nothing accumulated is lost, chunks draw what they would have, training that was stopped early is over."""
    options = (*JOINT, "trainer.max_epochs=2" if steps == 6 else "trainer.max_epochs=4", *options)
    assert train(*options, f"paths.outputs={tmp_path}/undisturbed").code == 0
    assert train(*options, before=lambda: die_behind(step)).code == -signal.SIGKILL
    ended = train(*options)
    assert ended.code == 0, ended.err
    assert f"after {goes_on_from} optimizer steps" in ended.out
    expected, found = record_of(tmp_path / "undisturbed"), record_of(tmp_path / "outputs")
    assert expected["budget"]["steps"] == steps
    for part in ("metrics", "budget", "selection"):
        assert found[part] == expected[part], part


@pytest.mark.slow
def test_momentum_towers_and_their_queues_go_on(train, tmp_path):
    """Killed in both epochs: averages, queues and weights are those of a run that was not."""
    options = ("alignment=momentum_contrast", "alignment.queue_size=40", "alignment.momentum=0.9", *JOINT[3:])
    assert train(*options, f"paths.outputs={tmp_path}/undisturbed").code == 0
    for step in (3, 8):
        assert train(*options, before=lambda step=step: die_behind(step)).code == -signal.SIGKILL
    ended = train(*options)
    assert ended.code == 0, ended.err
    assert record_of(tmp_path / "outputs")["metrics"] == record_of(tmp_path / "undisturbed")["metrics"]
    expected, found = (
        torch.load(next((tmp_path / folder).glob("*/checkpoints/best.ckpt")), weights_only=True)
        for folder in ("undisturbed", "outputs")
    )
    assert int(expected["state_dict"]["alignment.image_queue.filled"]) == 40
    parts = [expected["state_dict"], expected["mmlit"]["teacher"]], [found["state_dict"], found["mmlit"]["teacher"]]
    for one, other in zip(*parts, strict=True):
        assert one.keys() == other.keys()
        assert all(torch.equal(one[name], other[name]) for name in one)


def test_a_damaged_resume_point_is_told_and_the_run_starts_anew(train, tmp_path):
    """Trap 34."""
    assert train(*JOINT, before=lambda: die_behind(3)).code == -signal.SIGKILL
    (point,) = tmp_path.glob("outputs/*/checkpoints/resume.ckpt")
    point.write_bytes(point.read_bytes()[:1000])
    ended = train(*JOINT)
    assert ended.code == 0, ended.err
    assert "resume.ckpt cannot be read: it is damaged" in ended.out
    assert "starts anew" in ended.out
    assert record_of(tmp_path / "outputs")["budget"]["steps"] == 12


def test_a_run_that_another_process_works_on_is_refused(train, tmp_path):
    assert train(*JOINT, before=lambda: die_behind(3)).code == -signal.SIGKILL
    (run,) = (tmp_path / "outputs").iterdir()
    from mmlit.jobs.claim import claimed

    with claimed(run):
        ended = train(*JOINT)
    assert ended.code == 2
    assert "another process works on this run" in ended.err
    assert train(*JOINT).code == 0


@pytest.mark.parametrize("minutes", [0, -1])
def test_minutes_are_checked(train, minutes):
    ended = train(f"resume_minutes={minutes}")
    assert ended.code == 2
    assert f"resume_minutes: must be > 0, got {minutes}" in ended.err
