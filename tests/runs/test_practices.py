"""Thawing, averaged weights, rates of parts and their balance in whole runs: resumed, distributed, evaluated."""

import csv
import json
import os
import signal
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
from runs.conftest import Ended, forked, forked_together
from runs.test_devices import ddp, options, torchrun_environments
from runs.test_resume import die_behind, record_of

#: 6 batches an epoch, three epochs; the stem of the image tower never trains, its last layer does from epoch 2 on
SMALL = ("resume_minutes=0.000001", "hydra.mode=RUN", "trainer.max_epochs=3", "image_encoder.num_layers=2")
THAWING = (
    "callbacks.thawing.image_encoder=[{epoch: 2, last: 1}, {epoch: 3, layers: layers}]",
    "callbacks.thawing.text_encoder=[{epoch: 1, layers: layers}, {epoch: 3, layers: '*'}]",
)
FUSION = ("alignment=joint", "alignment.token_dim=32", "alignment.num_layers=1")


def stored(outputs: Path, name: str) -> dict:
    return torch.load(next(outputs.glob(f"*/checkpoints/{name}.ckpt")), weights_only=True)


def assert_same_ending(found: Path, expected: Path, *parts: str) -> None:
    """The record's numbers, and all weights to the last digit."""
    for part in ("metrics", "budget", "selection", "validation", "parameters"):
        assert record_of(found)[part] == record_of(expected)[part], part
    (name,) = {path.stem for path in expected.glob("*/checkpoints/*.ckpt")}
    one, other = stored(found, name), stored(expected, name)
    for part in ("state_dict", *parts):
        assert one[part].keys() == other[part].keys()
        assert all(torch.equal(one[part][key], other[part][key]) for key in one[part]), part


def killed_and_resumed(train, tmp_path: Path, steps: tuple[int, ...], arguments: tuple[str, ...]) -> Path:
    """The outputs of a run that was killed behind each of these steps."""
    for step in steps:
        ended = train(*arguments, before=lambda step=step: die_behind(step))
        assert ended.code == -signal.SIGKILL, ended.err
    ended = train(*arguments)
    assert ended.code == 0, ended.err
    assert f"after {steps[-1]} optimizer steps" in ended.out
    return tmp_path / "outputs"


@pytest.mark.slow
@pytest.mark.parametrize("steps", [(8,), (3, 7, 13)], ids=str)
def test_a_run_killed_between_two_thaws_ends_as_one_that_was_not(train, tmp_path, steps):
    """Trap 22: step 8 is in epoch 2, where some layers have thawed, others not, and one never will."""
    arguments = ("callbacks=[last,thawing]", *THAWING, *SMALL)
    ended = train(*arguments, f"paths.outputs={tmp_path}/undisturbed")
    assert ended.code == 0, ended.err
    assert "thawing: image_encoder: last 1 from epoch 2 on, layers from epoch 3 on; text_encoder: " in ended.out
    for line in ("epoch 1: image_encoder trains 0 of ", "epoch 2: image_encoder trains 8,"):
        assert line in ended.out
    found = killed_and_resumed(train, tmp_path, steps, arguments)
    assert_same_ending(found, tmp_path / "undisturbed")


@pytest.mark.slow
def test_a_tower_that_thaws_is_not_taken_from_a_store(train, tmp_path):
    """Its features move: with a store of them for the other, frozen, tower alone; and its early layers stay."""
    arguments = ("callbacks=[last,thawing]", THAWING[0], "text_encoder.freeze=true", *SMALL[1:])
    ended = train(*arguments)
    assert ended.code == 0, ended.err
    assert "features: image_encoder is trained: no store of its outputs" in ended.out
    assert "captions of" in ended.out
    after = stored(tmp_path / "outputs", "last")["state_dict"]
    started = train(*arguments, "optimizer.lr=0.0", f"paths.outputs={tmp_path}/still")
    assert started.code == 0, started.err
    before = stored(tmp_path / "still", "last")["state_dict"]
    moved = {
        name for name in before if name.startswith("image_encoder.") and not torch.equal(before[name], after[name])
    }
    assert moved
    assert all(name.startswith(("image_encoder.layers.", "image_encoder.norm.")) for name in moved)


def test_a_schedule_of_a_frozen_tower_is_refused_before_data_is_read(train):
    ended = train("callbacks=[last,thawing]", THAWING[1], "text_encoder.freeze=true", "data.root=nowhere")
    assert ended.code == 2
    assert "callbacks.thawing.text_encoder: text_encoder.freeze=true means" in ended.err


@pytest.mark.slow
def test_two_devices_thaw_with_the_gradients_of_one(train, tmp_path, scenes):
    """Trap 22: every step's gradient of every epoch, before and behind each stage; nothing for what is frozen."""
    practice = ["callbacks=[last,thawing]", *THAWING, "trainer.max_epochs=3", "image_encoder.num_layers=2"]
    ended = train(*options(tmp_path / "1", scenes, batch_size=16), *practice, small=False)
    assert ended.code == 0, ended.err
    arguments = [*options(tmp_path / "2", scenes, batch_size=8), *ddp(devices=2), *practice]
    for ended in forked_together(arguments, torchrun_environments(2)):
        assert ended.code == 0, ended.err
    steps = sorted(int(path.stem) for path in (tmp_path / "1" / "steps").iterdir())
    assert steps == list(range(18))
    for number in steps:
        one, two = (torch.load(tmp_path / folder / "steps" / f"{number}.pt") for folder in ("1", "2"))
        assert one.keys() == two.keys()
        assert ("image_encoder.layers.1.norm1.weight" in one) is (number >= 6)
        assert ("image_encoder.layers.0.norm1.weight" in one) is (number >= 12)
        assert not [name for name in one if name.startswith("image_encoder.stem")]
        least = 1e-2 * torch.stack([gradient.norm() for gradient in one.values()]).norm()
        for name, gradient in one.items():  # a temperature's is what the terms of all pairs leave of each other
            assert (two[name] - gradient).norm() <= 1e-5 * max(gradient.norm(), least), (number, name)


@pytest.mark.slow
def test_two_devices_mix_pictures_of_an_uneven_rest(train, tmp_path, scenes):
    """Trap 23: of 87 images three are left, two for one device and one, without another to mix with, for the other."""
    arguments = [*options(tmp_path, scenes, batch_size=21), *ddp(devices=2), "augmentation=[mixup]"]
    for ended in forked_together(arguments, torchrun_environments(2)):
        assert ended.code == 0, ended.err
    assert record_of(tmp_path / "outputs")["budget"]["steps"] == 3


@pytest.mark.slow
def test_two_devices_go_on_between_two_thaws(tmp_path, scenes):
    """Trap 22: both processes killed in epoch 2, while an early layer is still frozen."""

    def together(folder: str, before: Callable[[], None] = lambda: None) -> list[Ended]:
        arguments = [
            *options(tmp_path / folder, scenes, batch_size=8), *ddp(devices=2), "callbacks=[last,thawing]", *THAWING,
            *SMALL, "optimizer.lr=7e-4",
        ]  # fmt: skip
        with ThreadPoolExecutor(2) as pool:
            return list(
                pool.map(
                    lambda own: forked(arguments, before=lambda: (os.environ.update(own), before())),
                    torchrun_environments(2),
                )
            )

    assert [ended.code for ended in together("undisturbed")] == [0, 0]
    assert [ended.code for ended in together("killed", lambda: die_behind(10))] == [-signal.SIGKILL] * 2
    ended = together("killed")
    assert [each.code for each in ended] == [0, 0], ended
    assert "after 10 optimizer steps" in ended[0].out
    assert_same_ending(tmp_path / "killed" / "outputs", tmp_path / "undisturbed" / "outputs")


@pytest.mark.slow
@pytest.mark.parametrize(
    "further", [("alignment=concatenation", "alignment.hidden_dim=16"), FUSION], ids=["pairs", "joint"]
)
def test_the_average_is_what_is_validated_and_kept(train, tmp_path, further):
    """The kept checkpoint, evaluated on the selection split, has the numbers of that validation."""
    ended = train("callbacks=[best,ema]", "callbacks.ema.decay=0.9", *further)
    assert ended.code == 0, ended.err
    assert "moving average is validated and kept, decay 0.9" in ended.out
    record = record_of(tmp_path / "outputs")
    checkpoint = next(tmp_path.glob("outputs/*/checkpoints/best.ckpt"))
    content = torch.load(checkpoint, weights_only=True)
    name = next(name for name in content["state_dict"] if name.startswith("alignment.space"))
    assert not torch.equal(content["state_dict"][name], content["current_model_state"][name])
    again = train("fit=false", f"checkpoint={checkpoint}", "split=val", f"paths.outputs={tmp_path}/again", small=False)
    assert again.code == 0, again.err
    (path,) = (tmp_path / "again").glob("*/result.json")
    metrics = json.loads(path.read_text())["metrics"]
    assert {key: metrics[key] for key in record["validation"]} == pytest.approx(record["validation"])


@pytest.mark.slow
@pytest.mark.parametrize("alignment", ["contrastive", "momentum_contrast"])
def test_averages_and_all_practices_go_on_where_they_were(train, tmp_path, alignment):
    """Killed in every epoch: weights, their average, and a teacher of the alignment's own are as undisturbed."""
    arguments = (
        "callbacks=[last,ema,thawing,balance,modulation]", "callbacks.ema.decay=0.9", "groups=by_part",
        "groups.text_layer_decay=0.5", "schedule=inverse_sqrt", f"alignment={alignment}", *SMALL,
        "callbacks.thawing.image_encoder=[{epoch: 1, last: 1}, {epoch: 3, layers: layers}]",
    )  # fmt: skip
    if alignment == "momentum_contrast":
        arguments += ("alignment.queue_size=40", "alignment.momentum=0.9")
    ended = train(*arguments, f"paths.outputs={tmp_path}/undisturbed")
    assert ended.code == 0, ended.err
    found = killed_and_resumed(train, tmp_path, (3, 8, 14), arguments)
    assert_same_ending(found, tmp_path / "undisturbed", "current_model_state", "averaging_state")
    if alignment == "momentum_contrast":
        one, other = (stored(folder, "last")["mmlit"]["teacher"] for folder in (found, tmp_path / "undisturbed"))
        assert all(torch.equal(one[name], other[name]) for name in other)


@pytest.mark.slow
def test_rates_and_balance_are_in_the_log(train, tmp_path):
    """Each group's rate by its name, each part's gradient and step, and the pace of the towers."""
    arguments = ("callbacks=[last,balance,modulation]", "groups=by_part", "groups.fusion=2.0", "trainer.max_epochs=1",
                 "trainer.log_every_n_steps=1", "schedule=constant", "alignment=concatenation")  # fmt: skip
    ended = train(*arguments)
    assert ended.code == 0, ended.err
    assert "learning rate: optimizer.lr of image encoder x 0.1, text encoder x 0.1, heads x 1, fusion x 2" in ended.out
    with next(tmp_path.glob("outputs/*/metrics.csv")).open() as file:
        rows = list(csv.DictReader(file))
    last = {name: float(value) for name, value in rows[5].items() if value}
    for part in ("image_encoder", "text_encoder", "heads", "fusion"):
        assert last[f"train/gradient/{part}"] > 0
        assert 0 < last[f"train/update/{part}"] < 1
    assert last["train/lr/fusion"] == pytest.approx(2 * last["train/lr/heads"])
    assert last["train/lr/image_encoder.no_decay"] == pytest.approx(0.1 * last["train/lr/heads"])
    assert {last["train/pace/image_encoder"], last["train/pace/text_encoder"]} > {1.0}
