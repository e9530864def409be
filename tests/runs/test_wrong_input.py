"""What a user gets wrong is told in one line that names it, before any data is read."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).resolve().parents[2]

WRONG = [
    (["alignment.temprature=1"], "alignment.temprature: no such option; did you mean alignment.temperature?"),
    (["auxiliary.tags.weight=2"], "auxiliary.tags.weight: no such option without auxiliary=[tags]"),
    (["aligment=joint"], "aligment: no such option; did you mean alignment?"),
    (["alignment=jiont"], "alignment=jiont: no such choice; did you mean joint?; there are: attention_fusion, "),
    (["trainer.limit_test_batches=2"], "what its class takes beside them is added with +trainer.limit_test_batches="),
    (["data.batch_size=many"], "data.batch_size: input should be a valid integer"),
    (["data.batch_size=0"], "data.batch_size must be >= 1, got 0"),
    (["optimizer.lr=-1"], "Invalid learning rate: -1"),
    (["optimizer.lr=fast"], "optimizer.lr: input should be a valid number"),
    (["alignment.temperature=0"], "temperature must be > 0, got 0"),
    (["alignment.temperature=3"], "a learned temperature must start in [0.01, 1], got 3"),
    (["alignment.image_head=conv"], "alignment.image_head: input should be 'identity', 'linear', 'mlp' or 'gated'"),
    (
        ["alignment.image_head=identity"],
        "an identity head keeps the encoder's width 32, but the shared space has dim 16",
    ),
    (["image_encoder.size=33"], "size must be a multiple of 8, got 33"),
    (["schedule.warmup=1.5"], "schedule.warmup must lie in [0, 1), got 1.5"),
    (["trainer.precision=16-mixed"], "trainer.precision=16-mixed does not exist on this accelerator"),
    (["trainer.precision=bf16-true"], "trainer.precision must be 32-true, bf16-mixed, 16-mixed, got bf16-true"),
    (["trainer.max_epochs=ten"], "trainer.max_epochs: input should be a valid integer"),
    (["trainer.check_val_every_n_epoch=9"], "callbacks=best selects on val/rsum"),
    (
        ["callbacks=[last,early_stopping]", "trainer.check_val_every_n_epoch=9"],
        "early_stopping looks at validations, of which trainer.check_val_every_n_epoch=9 makes none",
    ),
    (
        ["callbacks=[last,generalization_gap]", "trainer.check_val_every_n_epoch=9"],
        "generalization_gap looks at validations",
    ),
    (["trainer.max_epochs=0"], "trainer.max_epochs must be >= 1, got 0"),
    (["callbacks=[early_stopping]"], "callbacks must hold best or last"),
    (["callbacks=[best,last]"], "callbacks=[best,last]: best and last both say which checkpoint is reported"),
    (
        ["+callbacks.thawing.image_encoder=[{epoch: 1, last: 1}]"],
        "callbacks.thawing.image_encoder: no such option without callbacks=[thawing]",
    ),
    (["+groups.heads=2"], "groups.heads: no such option without groups=..."),
    (["checkpoint=null", "groups=null"], "groups=null: leave it out, or take it from an experiment with ~groups"),
    (["~towers"], "~towers: no single choice to take away; leave it out, or empty a list with NAME=[]"),
    (
        ["trainer.accumulate_grad_batches=2"],
        "what its class takes beside them is added with +trainer.accumulate_grad_batches=...",
    ),
    (["trainer.devices=2"], "several devices need trainer=ddp"),
    (["seed=-1"], "seed: must be >= 0, got -1"),
    (["features=memory"], "features=memory: no such choice; there are: none, store"),
    (["data.root=nowhere"], "data.root=nowhere is no folder; make it with: mmlit data scenes --root nowhere"),
    (["split=tset"], "split 'tset'"),
    (["split=val"], "split=val is what training or selection uses"),
    (["fit=false"], "fit=false evaluates a checkpoint: name it with checkpoint=..."),
    (["fit=false", "checkpoint=none.ckpt"], "none.ckpt: no such run or checkpoint"),
    (["fit=maybe"], "fit: input should be a valid boolean"),
    (["seed=x"], "seed: input should be a valid integer"),
    (["alignment=joint", "alignment.match_weight=-1"], "match_weight must be >= 0, got -1"),
    (["evaluator.num_candidates=0"], "evaluator.num_candidates must be >= 1, got 0"),
]


@pytest.mark.parametrize(
    ("overrides", "message"), WRONG, ids=lambda value: " ".join(value) if isinstance(value, list) else ""
)
def test_wrong_input_is_one_line_and_leaves_no_folder(train, tmp_path, overrides, message):
    extra = ["alignment.dim=16"] if "identity" in overrides[0] else []
    ended = train(*overrides, *extra)
    assert ended.code == 2
    assert ended.err.startswith("train.py: ")
    assert message in ended.err
    assert ended.err.count("\n") == 1, ended.err
    assert "Traceback" not in ended.out + ended.err
    assert not (tmp_path / "outputs").exists()


def test_a_sweep_that_is_not_there_is_told(train):
    ended = train("--config-dir", str(ROOT / "sweeps"), "--config-name", "alignment", small=False)
    assert ended.code == 2
    assert "did you mean alignments?; there are: alignments, auxiliaries, " in ended.err
    assert ended.err.count("\n") == 1


def test_a_second_run_of_the_same_options_says_that_it_replaces_the_first(train, tmp_path):
    first = train("alignment=projection")
    events = len(list(tmp_path.rglob("events.out.tfevents.*")))
    second = train("alignment=projection")
    assert "is replaced" not in first.out + first.err
    assert "holds a finished run of these options: it is replaced" in second.out + second.err
    assert len(list(tmp_path.rglob("events.out.tfevents.*"))) == events > 0


def test_a_frozen_random_tower_is_told(train):
    ended = train("image_encoder.freeze=true")
    assert "image_encoder is frozen with random weights" in ended.out + ended.err
    assert "random weights" not in (other := train()).out + other.err


def test_a_rate_of_what_does_not_train_is_told(train):
    told = "changes nothing: nothing trains that it is for"
    ended = train("groups=by_part", "groups.image_layer_decay=0.5", "groups.fusion=7", "groups.heads=2",
                  "image_encoder.freeze=true", "trainer.max_epochs=1")  # fmt: skip
    assert ended.code == 0, ended.err
    assert f"groups.image_layer_decay=0.5 {told}" in ended.out + ended.err
    assert f"groups.fusion=7 {told}" in ended.out + ended.err
    assert (ended.out + ended.err).count(told) == 2


def test_fit_false_takes_a_folder_of_a_run_and_a_limit_is_told(train, tmp_path):
    assert train("trainer.max_epochs=1").code == 0
    (folder,) = (path.parent for path in tmp_path.rglob("result.json"))
    ended = train("fit=false", f"checkpoint={folder}", "+trainer.limit_test_batches=1", small=False)
    assert ended.code == 0, ended.err
    assert "limited to 1 batches" in ended.out


def test_a_gpu_that_is_not_there_is_told(train):
    ended = train("trainer=gpu", *(["trainer.devices=64"] if torch.cuda.is_available() else []))
    assert ended.code == 2
    assert ended.err.count("\n") == 1, ended.err


def test_all_wrong_options_are_told_at_once(train):
    ended = train("data.batch_size=many", "optimizer.lr=fast", "trainer.max_epochs=ten")
    assert all(name in ended.err for name in ("data.batch_size", "optimizer.lr", "trainer.max_epochs"))


def test_wrong_key_is_told_without_importing_torch():
    command = [sys.executable, "-X", "importtime", "train.py", "alignment.temprature=1"]
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert ended.returncode == 2
    assert "did you mean alignment.temperature?" in ended.stderr
    assert not [line for line in ended.stderr.splitlines() if line.endswith("| torch")]


def test_mmlit_commands_answer_in_one_line(tmp_path):
    for arguments in (["compare", str(tmp_path)], ["data", "scenes", "--root", str(tmp_path / "x"), "--size", "1"]):
        ended = subprocess.run(
            [sys.executable, "-m", "mmlit.cli", *arguments], cwd=ROOT, capture_output=True, text=True, check=False
        )
        assert ended.returncode == 2
        assert ended.stderr.count("\n") == 1
        assert "Traceback" not in ended.stderr
