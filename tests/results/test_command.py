"""`mmlit compare` from its arguments to its files."""

import argparse
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from mmlit.results.command import add_arguments, run, write_comparison

MakeRun = Callable[..., Path]


def called(*arguments: object) -> int:
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    return run(parser.parse_args([str(each) for each in arguments]))


def test_prints_and_leaves_its_files(make_run: MakeRun, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for seed in (0, 1, 2):
        make_run(f"p{seed}", alignment="projection", seed=seed, i2t_rank=(1, 2, 2, 2))
        make_run(f"j{seed}", seed=seed)
    assert called(tmp_path / "runs") == 0
    printed = capsys.readouterr().out
    assert "(a) These checkpoints, rsum against projection: joint (+75.0) does not hold." in printed
    assert "(b) The methods, rsum against projection: joint (+75.0, would need " in printed
    assert f"Written: {tmp_path}/runs/table.md, table.csv, table.tex, comparison.png" in printed
    files = {path.name: path.read_bytes() for path in (tmp_path / "runs").iterdir() if path.is_file()}
    assert set(files) == {"table.md", "table.csv", "table.tex", "comparison.png"}
    assert called(tmp_path / "runs", "--output", tmp_path / "new" / "place", "--baseline", "joint") == 0
    assert (tmp_path / "new" / "place" / "comparison.png").stat().st_size > 10_000
    assert "against joint" in (tmp_path / "new" / "place" / "table.md").read_text()


def test_the_same_records_give_the_same_files(make_run: MakeRun, tmp_path: Path) -> None:
    make_run("p", alignment="projection")
    make_run("j")
    for name in ("one", "two"):
        folder = tmp_path / name
        write_comparison([tmp_path / "runs"], output=folder, report=folder / "report.html")
    assert (tmp_path / "one" / "report.html").is_file()
    for path in (tmp_path / "one").iterdir():
        assert path.read_bytes() == (tmp_path / "two" / path.name).read_bytes()


def test_the_report_is_named_at_the_end(make_run: MakeRun, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make_run("p", alignment="projection")
    make_run("j")
    page = tmp_path / "new" / "page.html"
    assert called(tmp_path / "runs", "--report", page) == 0
    assert capsys.readouterr().out.endswith(f"Report: {page}\n")
    assert page.read_text().startswith("<!doctype html>")
    assert called(tmp_path / "runs", "--report", page, "--evaluation", "coco_5k") == 2
    assert "leave --evaluation out" in capsys.readouterr().err


def test_what_cannot_be_compared_is_one_line_and_an_exit_code(
    make_run: MakeRun, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Trap 11, on the command line."""
    make_run("p", alignment="projection")
    make_run("j", change=lambda record: record.update(split="val"))
    for arguments, message in (
        ([tmp_path / "runs"], "unlike rows: split differs: val in joint; test in projection"),
        ([tmp_path / "runs", "--allow-unlike", "--baseline", "x"], "no row 'x' to be the baseline"),
        ([tmp_path / "nowhere"], "is not a directory"),
    ):
        assert called(*arguments) == 2
        error = capsys.readouterr().err
        assert error.startswith("mmlit compare: ")
        assert message in error
        assert error.count("\n") == 1
    assert not (tmp_path / "runs" / "table.md").exists()
    assert called(tmp_path / "runs", "--allow-unlike") == 0


def test_the_room_needs_no_torch_and_the_command_no_matplotlib() -> None:
    code = (
        "import sys, mmlit.results.command as c; print('matplotlib' in sys.modules);"
        "import mmlit.results.plot; print({'torch', 'lightning', 'hydra'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "set()"]
