"""`mmlit runs show` and `diff`: one run in full, two side by side."""

import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest
from results.made_rows import ALL, HALF, setting

from mmlit.cli import main

MakeRun = Callable[..., Path]


def said(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    assert main(["runs", *map(str, arguments)]) == 0
    return capsys.readouterr().out


def sections(text: str) -> dict[str, dict[str, str]]:
    """Title → name → the rest of its line."""
    found = {}
    for block in text.split("\n\n")[1:]:
        title, *lines = block.splitlines()
        found[title] = {line.split()[0]: re.sub(r"\s+", " ", line.strip().partition(" ")[2].strip()) for line in lines}
    return found


def test_a_run_is_shown_in_full(make_run: MakeRun, capsys: pytest.CaptureFixture[str]) -> None:
    entry = {
        "evaluator": "coco_5k", "data": "coco_karpathy", "split": "test", "scored": "full", "protocol": {},
        "counts": {"images": 5000, "texts": 25000}, "fingerprint": "f", "metrics": {"rsum": 123.456}, "seconds": 1.0,
        "options": {}, "finished": "2026-11-21T05:10:11+00:00", "folder": "evaluations/x",
    }  # fmt: skip

    def change(record: dict) -> None:
        record["diagnostics"] = {"modality_gap": 0.25}
        record["overrides"] = ["alignment=joint", "seed=0", "data.root=a folder"]
        record["evaluations"] = [entry | {key: record[key] for key in ("environment", "code")}]

    run = make_run("one", **HALF, change=change)
    (run / "checkpoints").mkdir()
    (run / "checkpoints" / "best.ckpt").write_bytes(bytes(2**20))
    text = said(capsys, "show", run)
    assert text.splitlines()[0] == f"{run}: finished 2026-11-21T05:10:11+00:00"
    assert "  python train.py alignment=joint 'data.root=a folder' seed=0\n" in text
    found = sections(text)
    assert found["metrics (test, scored full)"]["i2t_r1"] == "50.0"
    assert found["what was measured"]["selection"] == "best val/rsum, epoch 7"
    assert found["data"]["train_pairs"] == "20,480"
    assert found["budget"]["pairs_seen"] == "40,960"
    assert found["cost"]["fit_seconds"] == "61.2"
    assert found["environment"]["torch"] == "2.8.0"
    assert found["code"] == {"commit": "abc123", "dirty": "false", "hash": "code-a"}
    assert found["options (hash 0123456789ab)"]["optimizer.lr"] == "0.001"
    assert found["diagnostics"] == {"modality_gap": "0.25"}
    title = "evaluation coco_5k on coco_karpathy test (5,000 images, 25,000 texts, scored full)"
    assert found[title] == {"rsum": "123.46"}
    assert found["checkpoints"] == {"best.ckpt": "1.0 MiB"}


def test_an_unfinished_run_is_shown_as_far_as_it_got(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "status.json").write_text(json.dumps({"epoch": 0, "epochs": 2, "share": 0.25, "val/rsum": 30.5}))
    text = said(capsys, "show", tmp_path)
    assert text.startswith(f"{tmp_path}: unfinished, 25 %, epoch 1 of 2\n")
    assert sections(text)["status"]["val/rsum"] == "30.5"


def test_two_runs_side_by_side(make_run: MakeRun, capsys: pytest.CaptureFixture[str]) -> None:
    def change(record: dict) -> None:
        record["config"]["optimizer"]["lr"] = 7e-4
        record["config"]["data"]["num_workers"] = 8
        record["environment"]["torch"] = "2.9.0"
        record["code"]["commit"] = "def456"
        record["budget"]["steps"] = 400

    one, other = make_run("one", **HALF), make_run("other", seed=1, **ALL, change=change)
    found = sections(said(capsys, "diff", one, other))
    assert found["settings that differ"] == {"optimizer.lr": "0.001 0.0007"}
    assert found["what was measured differs"] == {"seed": "0 1"}
    assert found["other options that differ"]["data.num_workers"] == "2 8"
    assert found["environment and code differ"] == {"environment.torch": "2.8.0 2.9.0", "code.commit": "abc123 def456"}
    assert found["metrics, and B − A"]["i2t_r1"] == "50.0 100.0 +50.00"
    assert found["budget and cost, and B − A"]["budget.steps"] == "320 400 +80"
    assert set(sections(said(capsys, "diff", one, one))) == {"metrics, and B − A", "budget and cost, and B − A"}


def test_another_alignment_is_a_setting(make_run: MakeRun, capsys: pytest.CaptureFixture[str]) -> None:
    one, other = make_run("one"), make_run("other", alignment="projection", change=setting("config", trials=3))
    settings = sections(said(capsys, "diff", one, other))["settings that differ"]
    assert settings["alignment"] == "joint projection"
    assert settings["trials"] == "– 3"


def test_a_command_of_a_sweep_names_the_sweep(make_run: MakeRun, capsys: pytest.CaptureFixture[str]) -> None:
    """The job is the sweep narrowed to it: its own options alone would make another run."""
    assert "  python train.py alignment=joint seed=0\n" in said(capsys, "show", make_run("one"))
    launched = {"config_name": "alignments", "config_dirs": ["sweeps"]}
    of_sweep = said(capsys, "show", make_run("other", change=lambda record: record.update(launch=launched)))
    assert "  python train.py --config-dir sweeps --config-name alignments alignment=joint seed=0\n" in of_sweep


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda run: (run / "result.json").write_text("{"), "result.json: broken JSON"),
        (lambda run: (run / "result.json").rename(run / "status.json"), "is unfinished: there is no record to compare"),
        (lambda run: [path.unlink() for path in run.iterdir()], "is no run's folder"),
        (lambda run: run.rename(run.with_name("away")), "is not a directory"),
    ],
)
def test_what_cannot_be_shown_is_one_line(
    make_run: MakeRun, capsys: pytest.CaptureFixture[str], make: Callable[[Path], object], message: str
) -> None:
    one, other = make_run("one"), make_run("other")
    make(other)
    commands = [["diff", one, other]] + ([["show", other]] if "unfinished" not in message else [])
    for words in commands:
        with pytest.raises(SystemExit) as ended:
            main(["runs", *map(str, words)])
        assert ended.value.code == 2
        error = capsys.readouterr().err
        assert message in error
        assert error.count("\n") == 1
