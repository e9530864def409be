"""`mmlit runs prune`: the losers' checkpoints go, after a yes, and nothing else ever."""

import io
import os
from collections.abc import Callable
from pathlib import Path

import pytest
from results.made_rows import ALL, HALF, QUARTER, setting

from mmlit.cli import main
from mmlit.results.runs.pruning import File, remove

MakeRun = Callable[..., Path]


class Terminal(io.StringIO):
    """A user who answers."""

    def isatty(self) -> bool:
        return True


def with_checkpoint(run: Path, name: str = "best.ckpt") -> Path:
    """Gives a run a checkpoint of 1 MiB."""
    (run / "checkpoints").mkdir(exist_ok=True)
    (run / "checkpoints" / name).write_bytes(bytes(2**20))
    return run / "checkpoints" / name


@pytest.fixture
def runs(make_run: MakeRun, tmp_path: Path) -> Path:
    """Two alignments: `joint1` and `projection0` are the best of theirs."""
    for name, seed, ranks in (("joint0", 0, HALF), ("joint1", 1, ALL), ("joint2", 2, QUARTER)):
        with_checkpoint(make_run(name, seed=seed, **ranks))
    with_checkpoint(make_run("projection0", alignment="projection", **QUARTER))
    return tmp_path / "runs"


def files(root: Path) -> set[str]:
    return {path.relative_to(root).as_posix() for path in root.rglob("*") if not path.is_dir()}


def pruned(*arguments: object) -> int:
    return main(["runs", "prune", *map(str, arguments)])


LOSERS = {"joint0/checkpoints/best.ckpt", "joint2/checkpoints/best.ckpt"}


def test_the_losers_checkpoints_go_and_nothing_else(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with_checkpoint(runs / "joint0", "last.ckpt")
    (runs / "joint0" / "checkpoints" / "notes.txt").write_text("mine")
    before = files(runs)
    assert pruned(runs, "--yes") == 0
    assert before - files(runs) == LOSERS | {"joint0/checkpoints/last.ckpt"}
    out = capsys.readouterr().out
    assert f"{runs}/joint2  (rsum " in out
    assert "in joint, scenes, 600.00 is kept)" in out
    assert "1.0 MiB  best.ckpt" in out
    assert "Removed 3 checkpoints of 2 runs, 3.0 MiB." in out
    assert pruned(runs, "--yes") == 0
    assert capsys.readouterr().out == "Nothing to remove.\n"


@pytest.mark.parametrize(
    ("answer", "gone"), [("y\n", LOSERS), ("Yes\n", LOSERS), ("n\n", set()), ("\n", set()), ("", set())]
)
def test_it_asks_first(
    runs: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, answer: str, gone: set[str]
) -> None:
    monkeypatch.setattr("sys.stdin", Terminal(answer))
    before = files(runs)
    assert pruned(runs) == 0
    assert before - files(runs) == gone
    out = capsys.readouterr().out
    assert "Remove 2 checkpoints of 2 runs, 2.0 MiB? Records and ranks stay. [y/N] " in out
    assert ("Nothing removed." in out) == (not gone)


def test_without_a_terminal_nothing_is_removed(
    runs: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO("y\n"))
    before = files(runs)
    with pytest.raises(SystemExit) as ended:
        pruned(runs)
    assert ended.value.code == 2
    captured = capsys.readouterr()
    assert "joint2" in captured.out, "what would go is shown all the same"
    assert captured.err.startswith("mmlit: nothing removed (2 checkpoints of 2 runs, 2.0 MiB): this is no terminal")
    assert files(runs) == before


@pytest.mark.parametrize(
    ("arguments", "gone"),
    [
        (["--keep", "2"], {"joint2/checkpoints/best.ckpt"}),
        (["--keep", "3"], set()),
        (["--by", "data"], LOSERS | {"projection0/checkpoints/best.ckpt"}),
        (["--by", "alignment,seed"], set()),
        (["--where", "seed!=1"], {"joint2/checkpoints/best.ckpt"}),
        (["--where", "alignment=projection"], set()),
    ],
)
def test_how_many_of_what_are_kept(runs: Path, arguments: list[str], gone: set[str]) -> None:
    before = files(runs)
    assert pruned(runs, "--yes", *arguments) == 0
    assert before - files(runs) == gone


def test_a_run_is_not_weighed_against_another_measure(runs: Path, make_run: MakeRun) -> None:
    """Trap 11: its number is of another split or gallery, so neither of them loses."""
    changes = (lambda record: record.update(split="val"), setting("gallery", hash="b"), setting("protocol", folds=5))
    for seed, change in enumerate(changes, start=3):
        with_checkpoint(make_run(f"joint{seed}", seed=seed, **QUARTER, change=change))
    before = files(runs)
    assert pruned(runs, "--yes") == 0
    assert before - files(runs) == LOSERS


def test_a_run_without_checkpoints_takes_nobodys_place(runs: Path, make_run: MakeRun) -> None:
    """An evaluation of `joint1` with fit=false is as good, and holds no weights."""
    (runs / "joint1" / "checkpoints" / "best.ckpt").rename(runs / "joint0" / "checkpoints" / "other.ckpt")
    before = files(runs)
    assert pruned(runs, "--yes") == 0
    assert before - files(runs) == {"joint2/checkpoints/best.ckpt"}


def test_what_another_run_was_trained_from_stays(runs: Path, make_run: MakeRun) -> None:
    start = str(runs / "joint2" / "checkpoints" / "best.ckpt")
    with_checkpoint(
        make_run("projection1", alignment="projection", change=setting("config", checkpoint=start, fit=True))
    )
    assert pruned(runs, "--yes", "--where", "alignment=joint") == 0
    assert Path(start).is_file()
    assert not (runs / "joint0" / "checkpoints" / "best.ckpt").exists()


def test_unfinished_and_broken_runs_are_left_alone(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    unfinished, broken = with_checkpoint(runs / "joint0"), with_checkpoint(runs / "projection0")
    (runs / "joint0" / "result.json").unlink()
    (runs / "projection0" / "result.json").write_text("{")
    assert pruned(runs, "--yes") == 0
    assert unfinished.is_file()
    assert broken.is_file()
    assert f"left alone: {broken.parents[1]}/result.json: broken JSON" in capsys.readouterr().out


def test_an_unfinished_run_goes_only_by_name_and_when_it_is_quiet(
    runs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = runs / "joint1"
    (run / "result.json").unlink()
    before = files(runs)
    with pytest.raises(SystemExit):
        pruned(run, "--yes")
    assert "joint1 wrote something in the last 10 minutes: it may be running" in capsys.readouterr().err
    assert files(runs) == before
    for path in (run, *run.rglob("*")):
        os.utime(path, (1e9, 1e9))
    assert pruned(run, "--yes") == 0
    assert before - files(runs) == {"joint1/checkpoints/best.ckpt"}
    assert "unfinished, not known how far: starts anew" in capsys.readouterr().out


def test_links_lead_nowhere(runs: Path, make_run: MakeRun, tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "precious.ckpt").write_bytes(b"weights")
    (runs / "joint0" / "checkpoints" / "linked.ckpt").symlink_to(elsewhere / "precious.ckpt")
    (runs / "joint0" / "checkpoints" / "folder.ckpt").mkdir()
    (runs / "joint0" / "checkpoints" / "folder.ckpt" / "shard").write_bytes(b"weights")
    linked = make_run("joint5", seed=5, **QUARTER)
    (linked / "checkpoints").symlink_to(elsewhere)
    away = make_run("away", seed=6, **QUARTER).rename(tmp_path / "away")
    with_checkpoint(away)
    (runs / "joint6").symlink_to(away)
    before, outside = files(runs), files(elsewhere) | files(away)
    assert pruned(runs, "--yes") == 0
    assert before - files(runs) == LOSERS
    assert files(elsewhere) | files(away) == outside


@pytest.mark.parametrize(
    "change",
    [
        lambda file, _: file.write_bytes(b"newer"),
        lambda file, other: (file.unlink(), file.symlink_to(other)),
        lambda file, other: (file.parent.rename(file.parents[1] / "old"), file.parent.symlink_to(other.parent)),
        lambda file, _: file.unlink(),
    ],
)
def test_what_changed_while_the_user_thought_is_not_removed(
    tmp_path: Path, change: Callable[[Path, Path], object]
) -> None:
    for name in ("run", "other"):
        (tmp_path / name).mkdir()
    file, other = with_checkpoint(tmp_path / "run"), with_checkpoint(tmp_path / "other")
    status = file.stat()
    seen = File(file, status.st_size, status.st_mtime_ns)
    change(file, other)
    before = files(tmp_path)
    assert remove(seen)
    assert files(tmp_path) == before
    assert other.is_file()


def test_only_checkpoints_of_runs_are_removed(tmp_path: Path) -> None:
    for path in (tmp_path / "result.json", tmp_path / "best.ckpt", tmp_path / "checkpoints" / "ranks.npz"):
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"x")
        status = path.stat()
        assert "is no checkpoint of a run" in remove(File(path, status.st_size, status.st_mtime_ns))
        assert path.is_file()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [(["--keep", "0"], "--keep must be >= 1, got 0"), (["--metric", "rsumm"], "--metric rsumm: no run has it")],
)
def test_what_is_wrong_removes_nothing(
    runs: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    before = files(runs)
    with pytest.raises(SystemExit):
        pruned(runs, "--yes", *arguments)
    assert message in capsys.readouterr().err
    assert files(runs) == before
