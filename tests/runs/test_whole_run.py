"""From pairs on disk to the record, as a user runs it."""

import csv
import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from hydra.utils import get_class

from mmlit.results.pictures import file_name, read_pictures

ROOT = Path(__file__).resolve().parents[2]
ALIGNMENTS = sorted(path.stem for path in (ROOT / "conf" / "alignment").glob("*.yaml"))


def record(folder: Path) -> tuple[Path, dict]:
    """The only record below a folder."""
    (path,) = folder.rglob("result.json")
    return path.parent, json.loads(path.read_text())


@pytest.mark.parametrize("alignment", ALIGNMENTS)
def test_every_alignment_trains_and_leaves_its_record(train, tmp_path, alignment):
    ended = train(f"alignment={alignment}")
    assert ended.code == 0, ended.err
    folder, found = record(tmp_path / "outputs")
    assert found["choices"]["alignment"] == alignment
    assert found["split"] == "test"
    assert found["gallery"] == {"images": 24, "texts": 120, "hash": found["gallery"]["hash"]}
    assert found["budget"] == {"epochs": 2, "steps": 12, "pairs_seen": 192}
    assert found["selection"].startswith("best val/rsum, epoch ")
    costly = hasattr(get_class(found["config"]["alignment"]["_target_"]), "coarse")
    assert found["scored"] == ("rerank@8" if costly else "full")
    assert 0 < found["parameters"]["trainable"] <= found["parameters"]["total"]
    assert found["cost"]["fit_seconds"] > 0
    assert f"alignment={alignment}" in found["overrides"]
    assert found["launch"] == {"config_name": "config", "config_dirs": []}
    assert found["curves"]["train/loss"]["step"] == list(range(1, 13))
    assert found["curves"]["val/rsum"]["step"] == [6, 12]
    assert found["curves"]["val/rsum"]["epoch"] == [1, 2]
    assert max(found["curves"]["val/rsum"]["value"]) <= 600
    name = file_name(found["data"]["hash"], found["gallery"]["hash"])
    gallery = read_pictures(tmp_path / "outputs" / "galleries" / name)
    assert (len(gallery.thumbnails), len(gallery.captions)) == (24, 120)
    ranks = np.load(folder / "ranks.npz")
    assert len(ranks["i2t_rank"]) == 24
    assert np.mean(ranks["t2i_rank"] <= 1) * 100 == pytest.approx(found["metrics"]["t2i_r1"])
    with (folder / "metrics.csv").open() as file:
        columns = csv.DictReader(file).fieldnames
    assert {"train/loss", "val/rsum", "test/rsum"} <= set(columns)
    assert list(folder.glob("events.out.tfevents*"))


def test_a_record_names_the_file_that_its_options_stand_on(train, tmp_path):
    """Without it the report could not say how to make the run again."""
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "short.yaml").write_text("defaults: [config, _self_]\nschedule:\n  warmup: 0.2\n")
    ended = train("trainer.max_epochs=1", "--config-dir", "mine", "--config-name", "short")
    assert ended.code == 0, ended.err
    _, found = record(tmp_path / "outputs")
    assert found["config"]["schedule"]["warmup"] == 0.2
    assert found["launch"] == {"config_name": "short", "config_dirs": ["mine"]}


def test_checkpoint_holds_plain_containers_and_a_name_that_overrides_take(train, tmp_path):
    """Traps 29 and 32."""
    assert train().code == 0
    (path,) = tmp_path.rglob("*.ckpt")
    assert path.name == "best.ckpt"
    assert "=" not in str(path.relative_to(tmp_path))
    checkpoint = torch.load(path, weights_only=True)
    assert checkpoint["mmlit"]["origin"]["config"]["alignment"]["temperature"] == 0.07


def test_test_split_is_written_only_by_the_final_test(train, tmp_path):
    """Trap 9: nothing before the end of training sees the reported split."""
    assert train("trainer.max_epochs=3").code == 0
    (path,) = tmp_path.rglob("metrics.csv")
    with path.open() as file:
        rows = list(csv.DictReader(file))
    tested = [place for place, row in enumerate(rows) if row["test/rsum"]]
    assert tested == [len(rows) - 1]
    assert sum(bool(row["val/rsum"]) for row in rows) == 3


def test_a_checkpoint_evaluates_to_the_numbers_of_its_run(train, tmp_path, scenes):
    assert train("alignment=joint", "seed=3").code == 0
    _, trained = record(tmp_path / "outputs")
    (path,) = tmp_path.rglob("*.ckpt")
    again = tmp_path / "again"
    ended = train("fit=false", f"checkpoint={path}", f"paths.outputs={again}", f"data.root={scenes}", small=False)
    assert ended.code == 0, ended.err
    _, evaluated = record(again)
    assert evaluated["metrics"] == trained["metrics"]
    assert evaluated["choices"]["alignment"] == "joint"
    assert evaluated["seed"] == 3
    assert evaluated["data"] == trained["data"]
    assert evaluated["budget"] == trained["budget"]
    assert 0 < evaluated["cost"]["fit_seconds"] <= trained["cost"]["fit_seconds"]


def test_a_checkpoint_evaluates_on_another_split_and_folder(train, tmp_path, scenes):
    assert train().code == 0
    (path,) = tmp_path.rglob("*.ckpt")
    other = tmp_path / "other"
    other.mkdir()
    (other / "annotations").symlink_to(scenes / "annotations")
    (other / "val2017").symlink_to(scenes / "val2017")
    ended = train(
        "fit=false", f"checkpoint={path}", "split=val", f"data.root={other}", f"paths.outputs={tmp_path}/x", small=False
    )
    assert ended.code == 0, ended.err
    assert "split=val is what this checkpoint learned or was selected on: no test" in ended.out
    _, evaluated = record(tmp_path / "x")
    assert evaluated["split"] == "val"
    assert evaluated["gallery"]["images"] == 16


@pytest.mark.slow
def test_the_same_run_gives_the_same_numbers(train, tmp_path):
    for place in ("a", "b"):
        assert train("alignment=joint", f"paths.outputs={tmp_path}/{place}").code == 0
    first, second = (record(tmp_path / place)[1] for place in ("a", "b"))
    assert first["metrics"] == second["metrics"]
    assert first["config_hash"] == second["config_hash"]
    other = train("alignment=joint", "seed=1", f"paths.outputs={tmp_path}/c")
    assert other.code == 0
    assert record(tmp_path / "c")[1]["metrics"] != first["metrics"]


def test_selection_by_the_last_epoch(train, tmp_path):
    assert train("callbacks=[last]").code == 0
    assert record(tmp_path / "outputs")[1]["selection"] == "last epoch, epoch 2"
    assert [path.name for path in tmp_path.rglob("*.ckpt")] == ["last.ckpt"]


def test_early_stopping_is_an_option(train, tmp_path, scenes):
    ended = train(
        "callbacks=[best,early_stopping]",
        "callbacks.early_stopping.patience=1",
        "optimizer.lr=0.0",
        "trainer.max_epochs=9",
    )
    assert ended.code == 0, ended.err
    assert (budget := record(tmp_path / "outputs")[1]["budget"])["epochs"] == 2
    (path,) = tmp_path.rglob("*.ckpt")
    again = train(
        "fit=false", f"checkpoint={path}", f"paths.outputs={tmp_path}/again", f"data.root={scenes}", small=False
    )
    assert again.code == 0, again.err
    assert record(tmp_path / "again")[1]["budget"] == budget, "not what it would have been without stopping"


def test_frozen_towers_do_not_move_in_a_run(train, tmp_path):
    """Trap 22."""
    assert train("image_encoder.freeze=true", "trainer.max_epochs=2").code == 0
    (path,) = tmp_path.rglob("*.ckpt")
    after = torch.load(path, weights_only=True)["state_dict"]
    ended = train(
        "image_encoder.freeze=true", "trainer.max_epochs=1", "optimizer.lr=0.0", f"paths.outputs={tmp_path}/still"
    )
    assert ended.code == 0, ended.err
    (path,) = (tmp_path / "still").rglob("*.ckpt")
    before = torch.load(path, weights_only=True)["state_dict"]
    moved = {name.partition(".")[0] for name in before if not torch.equal(before[name], after[name])}
    assert moved == {"text_encoder", "alignment"}


def test_bf16_on_a_cpu(train, tmp_path):
    assert train("trainer.precision=bf16-mixed", "alignment=joint").code == 0
    assert np.isfinite(record(tmp_path / "outputs")[1]["metrics"]["rsum"])


def test_wandb_works_offline(train, tmp_path):
    """Trap 30: the run is closed inside the job."""
    ended = train("logger=[csv,wandb]", "trainer.max_epochs=1", "logger.wandb.offline=true")
    assert ended.code == 0, ended.err
    assert list(tmp_path.rglob("offline-run-*"))


def test_smoke_experiment(train, tmp_path, scenes):
    ended = train("experiment=smoke", f"data.root={scenes}", "data.batch_size=8", small=False)
    assert ended.code == 0, ended.err
    assert record(tmp_path / "outputs")[1]["budget"]["steps"] == 8


@pytest.mark.slow
def test_two_devices_train_and_evaluate_like_one(tmp_path, scenes):
    """Traps 4, 5, 13: trainer=ddp with two processes gives the numbers of one; the gallery is whole and ranked once."""
    found = {}
    for name, extra in {
        "one": ["data.batch_size=16"],
        "two": ["trainer=ddp", "trainer.accelerator=cpu", "trainer.devices=2", "data.batch_size=8"],
    }.items():
        command = [
            sys.executable, "train.py", f"data.root={scenes}", f"paths.outputs={tmp_path}/{name}",
            "trainer.max_epochs=2",
            "trainer.enable_progress_bar=false", "image_encoder.dim=32", "text_encoder.dim=32", "optimizer.lr=3e-4",
            *extra,
        ]  # fmt: skip
        ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=300)
        assert ended.returncode == 0, ended.stderr
        found[name] = record(tmp_path / name)[1]
    assert found["two"]["gallery"] == found["one"]["gallery"]
    assert found["two"]["budget"] == found["one"]["budget"]
    for key, value in found["one"]["metrics"].items():
        if "median" not in key:
            assert found["two"]["metrics"][key] == pytest.approx(value, abs=4.5), key


def test_a_run_says_first_what_will_happen(train, tmp_path):
    ended = train("alignment=joint", "image_encoder.freeze=true")
    assert ended.code == 0, ended.err
    said = ended.out.splitlines()
    splits = {"training": "96 images with 480 captions (train)", "selection": "16 images with 80 captions (val)",
              "report": "24 images with 120 captions (test)"}  # fmt: skip
    assert f"data: {', '.join(f'{purpose} on {what}' for purpose, what in splits.items())}" in said
    (model,) = [line for line in said if line.startswith("model: ")]
    assert re.fullmatch(
        r"model: image encoder [\d,]+ parameters \(frozen\), text encoder [\d,]+ .*all trained.*", model
    )
    steps = "training: 2 epochs of 6 batches, 16 pairs in a batch, one caption of each image: 15 negatives for each"
    assert steps in said
    assert "device: 1 x cpu, precision 32-true" in said
    assert any(line.startswith(f"results: {tmp_path}/outputs/") for line in said)


def test_what_is_limited_is_said(train):
    said = train("experiment=smoke", "data.batch_size=16").out
    assert "training: 2 epochs of 4 batches (of 6), 16 pairs" in said
    assert "report on 24 images with 120 captions (test, limited to 2 batches)" in said


#: a queue grows by positives, and soft targets have an entropy; sixteen items cannot fill many dimensions
NOT_THE_LOSS = {
    "momentum_contrast": (["alignment.queue_size=0", "alignment.distillation=0"], "train/loss"),
    "non_contrastive": ([], "train/invariance"),
}


@pytest.mark.parametrize(
    "alignment",
    [name if name == "contrastive" else pytest.param(name, marks=pytest.mark.slow) for name in ALIGNMENTS],
)
def test_debug_overfits_one_batch(train, tmp_path, alignment):
    """The loss ends well below where it began, or what of it can be learned does."""
    words, column = NOT_THE_LOSS.get(alignment, ([], "train/loss"))
    ended = train("experiment=debug", f"alignment={alignment}", "data.batch_size=16", "trainer.max_epochs=60", *words)
    assert ended.code == 0, ended.err
    (path,) = tmp_path.rglob("metrics.csv")
    with path.open() as file:
        losses = [float(row[column]) for row in csv.DictReader(file) if row[column]]
    assert len(losses) == 60
    assert losses[-1] < 0.5 * losses[0]
