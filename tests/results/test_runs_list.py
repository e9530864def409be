"""`mmlit runs list` and `best`: which runs there are, and which is best."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from results.made_rows import ALL, HALF, QUARTER, setting

from mmlit.cli import main

MakeRun = Callable[..., Path]


@pytest.fixture
def runs(make_run: MakeRun, tmp_path: Path) -> Path:
    """Three finished runs, one that was interrupted, one with a broken record."""
    make_run("joint0", **HALF, change=setting("metrics", rsum=481.5))
    make_run("joint1", seed=1, **ALL, change=lambda record: record["config"]["optimizer"].update(lr=7e-4))
    make_run("projection0", alignment="projection", **QUARTER)
    unfinished = tmp_path / "runs" / "scenes-contrastive-seed4-0123456789ab"
    unfinished.mkdir()
    status = {"epoch": 3, "epochs": 10, "share": 0.4, "train/loss": 1.5}
    (unfinished / "status.json").write_text(json.dumps(status))
    broken = tmp_path / "runs" / "broken"
    broken.mkdir()
    (broken / "result.json").write_text('{"schema": 1,\n "config": ')
    return tmp_path / "runs"


def listed(capsys: pytest.CaptureFixture[str], *arguments: object) -> list[dict[str, Any]]:
    assert main(["runs", "list", "--json", *map(str, arguments)]) == 0
    return json.loads(capsys.readouterr().out)


def names(found: list[dict[str, Any]]) -> list[str]:
    return [Path(each["run"]).name for each in found]


def test_every_run_has_its_line(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["runs", "list", str(runs)]) == 0
    heading, _, *lines, last = capsys.readouterr().out.splitlines()
    assert heading.split() == ["run", "alignment", "options", "that", "vary", "seed", "split", "rsum", "state"]
    assert [Path(line.split()[0]).name for line in lines] == [
        "broken", "joint0", "joint1", "projection0", "scenes-contrastive-seed4-0123456789ab",
    ]  # fmt: skip
    assert f"broken: {runs}/broken/result.json: broken JSON" in lines[0]
    assert lines[1].split()[1:] == ["joint", "optimizer.lr=0.001", "0", "test", "481.50", "finished"]
    assert lines[2].split()[1:] == ["joint", "optimizer.lr=0.0007", "1", "test", "600.00", "finished"]
    assert lines[4].split()[1:3] == ["contrastive", "4"]
    assert lines[4].rstrip().endswith("unfinished: 40 %, epoch 4 of 10")
    assert last == "5 runs, 1 of them unfinished, 1 broken"


@pytest.mark.parametrize(
    ("conditions", "found"),
    [
        (["alignment=joint"], ["joint0", "joint1"]),
        (["alignment=joint", "seed>=1"], ["joint1"]),
        (["alignment!=joint", "state=finished"], ["projection0"]),
        (["optimizer.lr=0.0007"], ["joint1"]),
        (["optimizer.lr=7e-4"], ["joint1"]),
        (["rsum>481.4", "rsum<600"], ["joint0"]),
        (["rsum<=481.5", "alignment=joint"], ["joint0"]),
        (["cost.fit_seconds>100"], []),
        (["code.dirty=false", "seed=1"], ["joint1"]),
        (["trials=null", "seed=1"], None),
        (["state=unfinished"], ["scenes-contrastive-seed4-0123456789ab"]),
        (["seed=4"], ["scenes-contrastive-seed4-0123456789ab"]),
        (["data=scenes", "alignment=contrastive"], ["scenes-contrastive-seed4-0123456789ab"]),
        (["optimizer.lr!=1"], ["joint0", "joint1", "projection0"]),  # what is not known of a run is no match
    ],
)
def test_runs_are_found_by_option_and_metric(
    runs: Path, capsys: pytest.CaptureFixture[str], conditions: list[str], found: list[str] | None
) -> None:
    words = [word for each in conditions for word in ("--where", each)]
    if found is None:
        with pytest.raises(SystemExit):
            main(["runs", "list", str(runs), *words])
        assert "--where trials: no run has it" in capsys.readouterr().err
    else:
        assert names(listed(capsys, runs, *words)) == found


def test_an_absent_option_is_null_where_another_run_has_it(
    make_run: MakeRun, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    make_run("old")
    make_run("new", change=setting("config", trials=7))
    assert names(listed(capsys, tmp_path, "--where", "trials=null")) == ["old"]
    assert names(listed(capsys, tmp_path, "--where", "trials!=null")) == ["new"]


@pytest.mark.parametrize(
    ("key", "order"),
    [
        ("rsum", ["joint1", "joint0", "projection0"]),
        ("t2i_median_rank", ["joint1", "joint0", "projection0"]),  # less is better
        ("optimizer.lr", ["joint1", "joint0", "projection0"]),
        ("run", ["joint0", "joint1", "projection0"]),
    ],
)
def test_sorted_runs_begin_with_the_best(
    runs: Path, capsys: pytest.CaptureFixture[str], key: str, order: list[str]
) -> None:
    found = names(listed(capsys, runs, "--sort", key))
    assert [name for name in found if name in order] == order
    assert key == "run" or found[:3] == order, "runs without it come last"


def test_runs_are_found_once_and_evaluations_are_none(
    make_run: MakeRun, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = make_run("one")
    make_run("one/evaluations/other")
    (tmp_path / "runs" / "link").symlink_to(run)
    assert names(listed(capsys, tmp_path, tmp_path / "runs", run)) == ["one"]
    assert names(listed(capsys, run / "evaluations")) == ["other"]


def test_broken_folders_stop_nothing(make_run: MakeRun, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make_run("whole")
    contents = {
        "list": b"[]", "deep": b"[" * 200_000, "binary": b"\xff\xfe\x00", "other": b'{"schema": 7}', "empty": b"",
        "number": b'{"schema": 1, "seed": ' + b"9" * 10_000 + b"}",
    }  # fmt: skip
    for name, content in contents.items():
        (tmp_path / "runs" / name).mkdir()
        (tmp_path / "runs" / name / "result.json").write_bytes(content)
    (tmp_path / "runs" / "folder" / "result.json").mkdir(parents=True)
    (tmp_path / "runs" / "dangling").mkdir()
    (tmp_path / "runs" / "dangling" / "result.json").symlink_to(tmp_path / "nowhere")
    status = tmp_path / "runs" / "bell\x1b[31m\n"
    status.mkdir()
    (status / "status.json").write_text('{"share": "x", "epoch": [], "epochs": {}}')
    (tmp_path / "runs" / "cut").mkdir()
    (tmp_path / "runs" / "cut" / "status.json").write_text('{"share"')
    assert main(["runs", "list", str(tmp_path)]) == 0
    out = capsys.readouterr().out
    assert "\x1b[31m" not in out
    *lines, last = out.splitlines()[2:]
    assert len(lines) == 11
    assert last == "11 runs, 2 of them unfinished, 8 broken"
    assert sum("unfinished: not known how far" in line for line in lines) == 2
    assert sum(" broken: " in line for line in lines) == 8


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["list", "{runs}", "--where", "optimiser.lr=1"], "optimiser.lr: no run has it; did you mean optimizer.lr?"),
        (["list", "{runs}", "--where", "joint"], "--where joint: expected KEY=VALUE"),
        (["list", "{runs}", "--where", "rsum>high"], "> compares numbers, and 'high' is none"),
        (["list", "{runs}", "--sort", "rsumm"], "--sort rsumm: no run has it; did you mean rsum?"),
        (["list", "{runs}/nowhere"], "nowhere is not a directory"),
        (["list"], "outputs is not a directory: name the folder of the runs"),
        (["best", "{runs}", "--metric", "alignment"], "--metric alignment: is no number of any run"),
        (["best", "{runs}", "--by", "aligment"], "--by aligment: no run has it; did you mean alignment?"),
        (["best", "{runs}", "--where", "state=unfinished"], "no finished run is there to be the best"),
    ],
)
def test_what_is_wrong_is_one_line(
    runs: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    arguments: list[str],
    message: str,
) -> None:
    monkeypatch.chdir(runs)
    with pytest.raises(SystemExit) as ended:
        main(["runs", *(word.format(runs=runs) for word in arguments)])
    assert ended.value.code == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


def best(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[list[str], list[str]]:
    """The best runs' names, and what is said below them."""
    assert main(["runs", "best", *map(str, arguments)]) == 0
    lines = capsys.readouterr().out.splitlines()[2:]
    rows = [line for line in lines if line.startswith(os.sep)]
    return [Path(line.split()[0]).name for line in rows], [line for line in lines if line not in rows]


def test_best_says_on_which_split_and_takes_equals(
    runs: Path, make_run: MakeRun, capsys: pytest.CaptureFixture[str]
) -> None:
    assert best(capsys, runs) == (["joint1"], ["rsum on test: 4 images, 8 texts (gallery-a)"])
    assert best(capsys, runs, "--by", "alignment")[0] == ["joint1", "projection0"]
    assert best(capsys, runs, "--by", "alignment,seed")[0] == ["joint0", "joint1", "projection0"]
    assert best(capsys, runs, "--metric", "t2i_median_rank", "--where", "seed=0")[0] == ["joint0"], "less is better"
    make_run("equal", seed=2, **ALL)
    assert best(capsys, runs)[0] == ["equal", "joint1"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda record: record.update(split="val"), "split differs: test in joint1, joint0, projection0; val in other"),
        (setting("gallery", hash="gallery-b"), "gallery differs: 4 images, 8 texts (gallery-a) in joint1, "),
        (setting("protocol", folds=5), "protocol differs: "),
    ],
)
def test_the_best_of_unlike_runs_is_refused(
    runs: Path, make_run: MakeRun, capsys: pytest.CaptureFixture[str], change: Any, message: str
) -> None:
    """Trap 11, for a single run."""
    make_run("other", alignment="contrastive", **QUARTER, change=change)
    with pytest.raises(SystemExit):
        main(["runs", "best", str(runs)])
    error = capsys.readouterr().err
    assert "the best would be of unlike runs: " in error
    assert message in error
    assert "other" in error
    assert best(capsys, runs, "--by", "alignment")[0] == ["other", "joint1", "projection0"]
    assert best(capsys, runs, "--where", "alignment=joint")[0] == ["joint1"]


def test_the_command_needs_no_torch(runs: Path) -> None:
    code = (
        "import sys; from mmlit.cli import main\n"
        f"main(['runs', 'list', {str(runs)!r}])\n"
        "print({'torch', 'lightning', 'hydra', 'matplotlib'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "set()"
