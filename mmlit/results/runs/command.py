"""`mmlit runs list|show|diff|best|prune`."""

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from mmlit.results.runs.folders import BROKEN, DEFAULT, UNFINISHED, Folder, find_folders
from mmlit.results.runs.listing import described, printable, table, told_options
from mmlit.results.runs.options import chosen, condition
from mmlit.results.runs.pruning import Loss, given_up, losers, needed_by, remove
from mmlit.results.runs.ranking import best, sorted_by
from mmlit.results.runs.sheet import sheet, size
from mmlit.results.runs.sides import sides
from mmlit.results.settings import facts

_METRIC = "rsum"
_GROUP = "alignment,data"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the commands of `mmlit runs` and their arguments."""
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")
    for name, act, about in (
        ("list", _list, "one line for each run, finished or not"),
        ("show", _show, "one run in full"),
        ("diff", _diff, "in what two runs differ, their metrics side by side"),
        ("best", _best, "the best run by a metric"),
        ("prune", _prune, "remove the checkpoints of runs that are not the best; asks first"),
    ):
        command = commands.add_parser(name, help=about, description=f"{about[0].upper()}{about[1:]}.")
        command.set_defaults(act=act)
        _declare(name, command)


def _declare(name: str, command: argparse.ArgumentParser) -> None:
    if name in ("show", "diff"):
        number = {"show": 1, "diff": 2}[name]
        command.add_argument("runs", nargs=number, type=Path, metavar="RUN", help="a run's folder")
        return
    command.add_argument(
        "directories", nargs="*", type=Path, metavar="DIR", help=f"searched recursively for runs (default: {DEFAULT})"
    )
    command.add_argument(
        "--where",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="only runs with this choice, option, metric or cost; also != < <= > >=; several: all must hold",
    )
    if name == "list":
        command.add_argument("--sort", metavar="METRIC", help="the best first (default: by path)")
        command.add_argument("--json", action="store_true", help="for other programs")
        return
    command.add_argument("--metric", default=_METRIC, help="what decides (default: %(default)s)")
    command.add_argument(
        "--by",
        default="" if name == "best" else _GROUP,
        metavar="KEY[,KEY]",
        help=f"each group of equal values by itself (default: {'all runs are one' if name == 'best' else _GROUP})",
    )
    if name == "prune":
        command.add_argument(
            "--keep", type=int, default=1, metavar="N", help="runs of each group that keep theirs (default: 1)"
        )
        command.add_argument("--yes", action="store_true", help="do not ask")


def run(arguments: argparse.Namespace) -> int:
    """Carry out one of the commands.

    Returns:
        The exit code: 0; 2 if a checkpoint could not be removed.

    Raises:
        OSError: a directory is missing.
        ValueError: whatever a command refuses.
    """
    return int(arguments.act(arguments))


def _list(arguments: argparse.Namespace) -> int:
    folders = _found(arguments)
    if arguments.sort:
        folders = sorted_by(folders, arguments.sort)
    if arguments.json:
        told = told_options(folders)
        runs = [described(folder, own) for folder, own in zip(folders, told, strict=True)]
        sys.stdout.write(f"{json.dumps(runs, indent=2, ensure_ascii=False)}\n")
        return 0
    metrics = [_METRIC] + [arguments.sort] * (arguments.sort not in (None, _METRIC, "seed", "alignment", "split"))
    _console().print(table(folders, metrics=metrics))
    states = [folder.state for folder in folders]
    _say(f"{len(folders)} runs, {states.count(UNFINISHED)} of them unfinished, {states.count(BROKEN)} broken")
    return 0


def _show(arguments: argparse.Namespace) -> int:
    _say(*sheet(_run(arguments.runs[0])))
    return 0


def _diff(arguments: argparse.Namespace) -> int:
    _say(*sides(*(_run(path) for path in arguments.runs)))
    return 0


def _best(arguments: argparse.Namespace) -> int:
    groups = best(_found(arguments), metric=arguments.metric, by=_keys(arguments))
    if not groups:
        raise ValueError("no finished run is there to be the best")
    folders = [folder for runs in groups.values() for folder in runs]
    _console().print(table(folders, metrics=[arguments.metric]))
    about = {(own["split"], own["gallery"]) for folder in folders if folder.record for own in [facts(folder.record)]}
    _say(*(f"{arguments.metric} on {split}: {gallery}" for split, gallery in sorted(about)))
    return 0


def _prune(arguments: argparse.Namespace) -> int:
    folders, needed = _found(arguments), needed_by(find_folders(_directories(arguments)))
    named = {path.resolve() for path in arguments.directories}
    lost = losers(folders, metric=arguments.metric, by=_keys(arguments), keep=arguments.keep, needed=needed)
    lost += given_up([folder for folder in folders if folder.directory.resolve() in named])
    _say(*(printable(f"left alone: {folder.fault}") for folder in folders if folder.state == BROKEN))
    if not lost:
        _say("Nothing to remove.")
        return 0
    for loss in lost:
        _say(f"{loss.folder.directory}  ({loss.why})")
        _say(*(f"  {size(file.size):>12}  {file.path.name}" for file in loss.files))
    return _removed(lost) if arguments.yes or _agreed(lost) else 0


def _agreed(lost: Sequence[Loss]) -> bool:
    """Whether the user says yes.

    Raises:
        ValueError: there is nobody to ask.
    """
    if not sys.stdin.isatty():
        raise ValueError(f"nothing removed ({_sum(lost)}): this is no terminal to ask on; --yes does not ask")
    sys.stdout.write(f"Remove {_sum(lost)}? Records and ranks stay. [y/N] ")
    sys.stdout.flush()
    if sys.stdin.readline().strip().lower() in ("y", "yes"):
        return True
    _say("Nothing removed.")
    return False


def _removed(lost: Sequence[Loss]) -> int:
    hindered = [told for loss in lost for file in loss.files if (told := remove(file))]
    sys.stderr.write("".join(f"mmlit: not removed: {printable(told)}\n" for told in hindered))
    _say(f"Removed {_sum(lost)}." if not hindered else f"{len(hindered)} of {_sum(lost)} not removed.")
    return 2 if hindered else 0


def _sum(lost: Sequence[Loss]) -> str:
    files = [file for loss in lost for file in loss.files]
    return f"{len(files)} checkpoints of {len(lost)} runs, {size(sum(file.size for file in files))}"


def _found(arguments: argparse.Namespace) -> list[Folder]:
    return chosen(find_folders(_directories(arguments)), [condition(text) for text in arguments.where])


def _directories(arguments: argparse.Namespace) -> list[Path]:
    if not arguments.directories and not DEFAULT.is_dir():
        raise FileNotFoundError(f"{DEFAULT} is not a directory: name the folder of the runs")
    return arguments.directories or [DEFAULT]


def _run(path: Path) -> Folder:
    """The run in a folder that the user named."""
    if not (found := [folder for folder in find_folders([path]) if folder.directory == path]):
        raise FileNotFoundError(f"{path} is no run's folder: there is no record, status or checkpoint in it")
    return found[0]


def _keys(arguments: argparse.Namespace) -> list[str]:
    return [key for key in arguments.by.split(",") if key]


def _console() -> Console:
    # Rich takes a file or a pipe for 80 columns wide, where a run's line should stay one line.
    return Console(highlight=False, width=None if sys.stdout.isatty() else 1000)


def _say(*lines: str) -> None:
    sys.stdout.write("".join(f"{line}\n" for line in lines))
