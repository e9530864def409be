"""The command that makes a row again."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from mmlit.results.report.commands import command
from mmlit.results.rows import find_runs, group_runs

MakeRun = Callable[..., Path]


def lines(tmp_path: Path) -> list[tuple[tuple[str, ...], bool]]:
    return [tuple(command(group)) for group in group_runs(find_runs([tmp_path / "runs"]))[0]]  # type: ignore[misc]


def typed(*overrides: str, **more: Any) -> Callable[[dict[str, Any]], object]:
    return lambda record: record.update(overrides=list(overrides), **more)


def test_seeds_share_a_command(make_run: MakeRun, tmp_path: Path) -> None:
    launch = {"config_name": "alignments", "config_dirs": ["my sweeps"]}
    for seed in (0, 1):
        make_run(f"j{seed}", seed=seed, change=typed("alignment=joint", f"seed={seed}", launch=launch))
    told = "python train.py --config-dir 'my sweeps' --config-name alignments -m alignment=joint seed=0,1"
    assert lines(tmp_path) == [((told,), True)]


def test_a_seed_that_nobody_typed_is_told(make_run: MakeRun, tmp_path: Path) -> None:
    make_run("j", change=typed("data.root=/a b; rm", launch={"config_name": "config", "config_dirs": []}))
    assert lines(tmp_path) == [(("python train.py 'data.root=/a b; rm' seed=0",), True)]


def test_other_overrides_need_other_commands_and_old_records_are_not_whole(make_run: MakeRun, tmp_path: Path) -> None:
    for seed, root in ((0, "/a"), (1, "/b")):
        make_run(f"j{seed}", seed=seed, change=typed(f"data.root={root}", f"seed={seed}"))
    commands = ("python train.py data.root=/a seed=0", "python train.py data.root=/b seed=1")
    assert lines(tmp_path) == [(commands, False)]


def test_a_published_pair_is_evaluated(make_run: MakeRun, tmp_path: Path) -> None:
    def change(record: dict[str, Any]) -> None:
        record["config"] |= {"fit": False, "checkpoint": None, "image_encoder": {"name": "models/clip"}}
        record["overrides"] = ["image_encoder=clip", "alignment=contrastive", "data=flickr8k", "fit=false", "logger=[]"]

    make_run("z", change=change)
    assert lines(tmp_path) == [(("mmlit evaluate models/clip data=flickr8k",), True)]
