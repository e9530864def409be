"""The `mmlit` command, and how it and `train.py` tell a user what is wrong."""

import argparse
import difflib
import os
import re
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from textwrap import fill, indent
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mmlit.run.evaluate import Planned

_CONF = Path(__file__).resolve().parents[1] / "conf"
_TRACEBACK_WANTED = os.environ.get("HYDRA_FULL_ERROR") == "1"
#: what a wrong configuration, missing data or a broken file raises; all else is a fault of the program
_USER_ERRORS = (ValueError, OSError)
_USER_ERROR_MODULES = (
    "hydra.",
    "omegaconf.",
    "lightning.fabric.utilities.exceptions",
    "lightning.pytorch.utilities.exceptions",
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command; returns its exit code."""
    chosen = parsed(arguments)
    with one_line_errors("mmlit"):
        return int(chosen.command(chosen))
    return 2


def parsed(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The command with its options; wrong ones end the program as argparse does."""
    parser = _parser()
    chosen, further = parser.parse_known_args(arguments)
    if further and (any(word.startswith("-") for word in further) or not hasattr(chosen, "subjects")):
        parser.error(f"unrecognized arguments: {' '.join(further)}")
    if further:  # of `evaluate`, `data check` and `data shards`: what stands behind an option
        chosen.subjects += further
    return chosen


def training_help() -> str:
    """What `python train.py --help` prints: the axes with their choices, read off the yaml files."""
    from mmlit.configuration.axes import describe

    root = Path(__file__).resolve().parents[1]
    return describe(root / "conf", root / "sweeps")


@contextmanager
def one_line_errors(program: str) -> Iterator[None]:
    """One clear line and exit code 2 for what the user can mend; a traceback for faults, or with HYDRA_FULL_ERROR=1."""
    before = os.environ.get("HYDRA_FULL_ERROR", "0")
    os.environ["HYDRA_FULL_ERROR"] = "1"  # lets errors reach this place instead of being printed by Hydra
    try:
        yield
    except KeyboardInterrupt:
        sys.exit(130)
    except Exception as error:
        if not _can_be_mended(error):
            raise
        sys.stderr.write(f"{program}: {_line(error)}\n")
        sys.exit(2)
    finally:
        os.environ["HYDRA_FULL_ERROR"] = before


def _can_be_mended(error: Exception) -> bool:
    """Whether a line tells a user what to do; a fault of the program needs its traceback."""
    known = isinstance(error, _USER_ERRORS) or f"{type(error).__module__}.".startswith(_USER_ERROR_MODULES)
    return known and not _TRACEBACK_WANTED


def _line(error: Exception) -> str:
    return " ".join(_explain(error).split())


def _explain(error: BaseException) -> str:
    """The message that says most: Hydra's wrappers say less than what they wrap."""
    if type(error).__name__ == "InstantiationException" and error.__cause__ is not None:
        where = re.search(r"full_key: ([\w.]+)", str(error))
        told = _explain(error.__cause__)
        return told if not where or told.startswith(f"{where[1]}.") else f"{where[1]}: {told}"
    wrong = re.search(r"Could not override '([^']+)'|Key '([^']+)' is not in struct", str(error))
    if wrong and type(error).__name__ == "ConfigCompositionException":
        return _no_option(wrong[1] or wrong[2])
    if choice := re.search(
        r"Could not find '([^']+)/([^'/]+)'\s+Available options in '[^']+':(.*?)Config", str(error), re.S
    ):
        return _no_such(f"{choice[1]}={choice[2]}: no such choice", choice[2], choice[3].split())
    if entry := re.search(r"Could not load '(\w+)/(\w+)'", str(error)):  # of a list: Hydra does not say what there is
        there = sorted(path.stem for path in (_CONF / entry[1]).glob("*.yaml"))
        return _no_such(f"{entry[1]}=[{entry[2]}]: no such choice", entry[2], there)
    if sweep := re.search(
        r"Cannot find primary config '([^']+)'.*?provider=command-line, path=file://(\S+)", str(error), re.S
    ):
        there = sorted(path.stem for path in Path(sweep[2]).glob("*.yaml"))
        return _no_such(f"--config-name {sweep[1]}: no such file in {sweep[2]}", sweep[1], there)
    return _no_choice(str(error)) or str(error).partition("Config search path:")[0] or type(error).__name__


def _no_choice(told: str) -> str | None:
    """How to choose nothing, where that was said in a way that Hydra does not take."""
    if "must be a string or a list. Got NoneType" in told:
        axis = next((w[:-5] for w in sys.argv if w.endswith("=null") and (_CONF / w[:-5]).is_dir()), "GROUP")
        return f"{axis}=null: leave it out, or take it from an experiment with ~{axis}"
    gone = re.search(r"Could not delete '(\w+)'", told)
    return f"~{gone[1]}: no single choice to take away; leave it out, or empty a list with NAME=[]" if gone else None


def _no_option(key: str) -> str:
    axis, name = (*key.split("."), "")[:2]
    if name and (_CONF / axis / f"{name}.yaml").is_file():  # an entry of a list that was not taken
        return f"{key}: no such option without {axis}=[{name}]"
    return f"{key}: no such option{_nearest(key)}"


def _no_such(told: str, name: str, known: Sequence[str]) -> str:
    near = difflib.get_close_matches(name, known, n=1)
    return f"{told}{f'; did you mean {near[0]}?' if near else ''}; there are: {', '.join(known)}"


def _nearest(key: str) -> str:
    """The option that is spelt most alike, in the default configuration with this command line's choices of groups."""
    from hydra import compose, initialize_config_dir
    from hydra.core.global_hydra import GlobalHydra
    from hydra.errors import HydraException
    from omegaconf import OmegaConf

    axes = {path.name for path in _CONF.iterdir() if path.is_dir()}
    groups = [
        word for word in sys.argv[1:] if re.fullmatch(r"[a-z_]+=[\w,\[\]]+", word) and word.partition("=")[0] in axes
    ]
    GlobalHydra.instance().clear()
    try:
        with initialize_config_dir(str(_CONF), version_base="1.3"):
            config = OmegaConf.to_container(compose("config", groups), resolve=False)
    except HydraException:  # another option is wrong, too; it is told when this one is mended
        return ""
    known = list(_keys(config)) + sorted(axes)
    parent = key.rpartition(".")[0]
    if near := difflib.get_close_matches(key, known, n=1, cutoff=0.8):
        return f"; did you mean {near[0]}?"
    siblings = ", ".join(each for each in known if each.rpartition(".")[0] == parent)
    further = f"; what its class takes beside them is added with +{key}=..." if parent else ""
    return f"; {parent or 'the top level'} has: {siblings}{further}"


def _keys(config: Any, path: str = "") -> Iterator[str]:
    """Dotted keys that a user may set: not Hydra's own, such as `_target_`."""
    for key, value in config.items():
        if str(key).startswith("_"):
            continue
        yield f"{path}{key}"
        if isinstance(value, dict):
            yield from _keys(value, f"{path}{key}.")


def _parser() -> argparse.ArgumentParser:
    from mmlit.data import command as data
    from mmlit.features import command as features
    from mmlit.results import anchors, tuning
    from mmlit.results import command as compare
    from mmlit.results.runs import command as runs
    from mmlit.run import shards

    parser = argparse.ArgumentParser(prog="mmlit", description="Compare image-text alignment strategies.")
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")
    sets = commands.add_parser(
        "data", help="make, fetch and check data sets", description="Make, fetch and check data sets."
    )
    kinds = sets.add_subparsers(title="commands", required=True, metavar="NAME")
    data.add_commands(kinds)
    kinds.choices["check"].set_defaults(command=_check)
    writing = kinds.add_parser("shards", help="write any data set as webdataset shards", description=shards.ABOUT)
    shards.add_arguments(writing)
    writing.set_defaults(command=shards.run)
    comparison = commands.add_parser(
        "compare",
        help="the table of finished runs",
        description="Compare finished runs: table.md, .csv, .tex and a plot; on request a report.",
    )
    compare.add_arguments(comparison)
    comparison.set_defaults(command=compare.run)
    for name, module, about in (
        ("anchors", anchors, "published figures, and how far a run lies from them"),
        ("tuned", tuning, "what a tuning sweep found for each strategy"),
        ("features", features, "list, check and remove what frozen encoders said, which runs keep for one another"),
        ("runs", runs, "find runs, show and compare them, remove the losers' checkpoints"),
    ):
        command = commands.add_parser(name, help=about, description=f"{about[0].upper()}{about[1:]}.")
        module.add_arguments(command)
        command.set_defaults(command=module.run)
    _add_evaluate(
        commands.add_parser(
            "evaluate",
            help="runs, checkpoints or published pairs on other data or by another evaluator",
            description=fill(_EVALUATE, 120),
            epilog=_choices(),
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
    )
    completion = commands.add_parser("completion", help="TAB in a shell", description="Print a shell's completion.")
    completion.add_argument("shell", choices=("bash", "zsh"), help='eval "$(mmlit completion bash)" switches it on')
    completion.set_defaults(command=_completion)
    return parser


def _completion(arguments: argparse.Namespace) -> int:
    from mmlit.configuration.completion import script

    sys.stdout.write(script(_parser(), shell=arguments.shell))
    return 0


def _check(arguments: argparse.Namespace) -> int:
    from mmlit.run.check import check

    return check(arguments.subjects, json_file=arguments.json, fix=arguments.fix, workers=arguments.workers)


_EVALUATE = (
    "Evaluate finished runs, checkpoints, or a directory with a published CLIP or SigLIP pair. The numbers are added "
    "to a run's record; a published pair gets a record of its own, which `mmlit compare` sets beside trained runs."
)


def _choices() -> str:
    """The evaluators with a line about each, and the names of the data."""
    from mmlit.configuration.axes import listing

    conf = Path(__file__).resolve().parents[1] / "conf"
    data = fill(", ".join(path.stem for path in sorted((conf / "data").glob("*.yaml"))), 116)
    return "\n".join(["--evaluator:", *listing(conf / "evaluator"), "", "--data:", indent(data, "    ")])


def _add_evaluate(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "subjects",
        nargs="+",
        metavar="RUN",
        help="a run's folder, a checkpoint, or a pair's directory; KEY=VALUE may follow as for train.py",
    )
    parser.add_argument("--data", metavar="DATA", help="a choice of the axis data (default: the run's own)")
    parser.add_argument(
        "--split", metavar="SPLIT", help="a split of it (default: the one that the data's yaml reports)"
    )
    parser.add_argument("--evaluator", metavar="NAME", help="a choice of the axis evaluator (default: the run's own)")
    parser.set_defaults(command=_evaluate)


def _evaluate(arguments: argparse.Namespace) -> int:
    import logging

    from mmlit.run.evaluate import planned

    logging.basicConfig(level=logging.INFO, format="%(message)s")
    overrides = [
        f"{axis}={choice}"
        for axis in ("data", "split", "evaluator")
        if (choice := getattr(arguments, axis)) is not None
    ]
    # RUN may be followed by KEY=VALUE as with train.py; a path that holds a "=" exists
    typed = [word for word in arguments.subjects if "=" in word and not Path(word).exists()]
    subjects = [Path(word) for word in arguments.subjects if word not in typed]
    if not subjects:
        raise ValueError("evaluate needs a run's folder, a checkpoint or a published pair's directory")
    asked = planned(subjects, [*overrides, *typed])
    refused = [told for number, each in enumerate(asked, 1) if (told := _evaluated(each, number, len(asked)))]
    if refused:
        sys.stderr.write(f"mmlit: {len(refused)} of {len(asked)} were refused\n{''.join(refused)}")
    return 2 if refused else 0


def _evaluated(each: "Planned", number: int, total: int) -> str:
    """Evaluates and prints one of several subjects; a line if it is refused, which leaves the others alone."""
    import logging

    from mmlit.run.evaluate import evaluate

    logging.getLogger(__name__).info("[%d/%d] %s: %s", number, total, each.subject, each.job.choices["evaluator"])
    try:
        folder, metrics = evaluate(each)
    except Exception as error:
        if total == 1 or not _can_be_mended(error):
            raise
        return f"  {each.subject}: {_line(error)}\n"
    sys.stdout.write("".join([f"{folder}\n", *(f"  {name:<28} {value:8.2f}\n" for name, value in metrics.items())]))
    sys.stdout.flush()
    return ""


if __name__ == "__main__":
    sys.exit(main())
