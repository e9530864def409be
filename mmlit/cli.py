"""The `mmlit` command, and how it and `train.py` tell a user what is wrong."""

import argparse
import difflib
import os
import re
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

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
    if further:  # of `evaluate`: what stands behind an option
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
        module = f"{type(error).__module__}."
        if _TRACEBACK_WANTED or not (isinstance(error, _USER_ERRORS) or module.startswith(_USER_ERROR_MODULES)):
            raise
        sys.stderr.write(f"{program}: {' '.join(_explain(error).split())}\n")
        sys.exit(2)
    finally:
        os.environ["HYDRA_FULL_ERROR"] = before


def _explain(error: BaseException) -> str:
    """The message that says most: Hydra's wrappers say less than what they wrap."""
    if type(error).__name__ == "InstantiationException" and error.__cause__ is not None:
        where = re.search(r"full_key: ([\w.]+)", str(error))
        return f"{where[1] + ': ' if where else ''}{_explain(error.__cause__)}"
    wrong = re.search(r"Could not override '([^']+)'|Key '([^']+)' is not in struct", str(error))
    if wrong and type(error).__name__ == "ConfigCompositionException":
        return f"{wrong[1] or wrong[2]}: no such option{_nearest(wrong[1] or wrong[2])}"
    return str(error) or type(error).__name__


def _nearest(key: str) -> str:
    """The option that is spelt most alike, in the default configuration with this command line's choices of groups."""
    from hydra import compose, initialize_config_dir
    from hydra.core.global_hydra import GlobalHydra
    from hydra.errors import HydraException
    from omegaconf import OmegaConf

    groups = [
        word for word in sys.argv[1:] if re.fullmatch(r"[a-z_]+=[\w,\[\]]+", word) and not word.startswith("seed=")
    ]
    GlobalHydra.instance().clear()
    conf = Path(__file__).resolve().parents[1] / "conf"
    try:
        with initialize_config_dir(str(conf), version_base="1.3"):
            known = list(_keys(OmegaConf.to_container(compose("config", groups), resolve=False)))
    except HydraException:  # another option is wrong, too; it is told when this one is mended
        return ""
    near = difflib.get_close_matches(key, known, n=1)
    return (
        f"; did you mean {near[0]}?"
        if near
        else f"; {key.rpartition('.')[0] or 'the top level'} has: "
        + ", ".join(name for name in known if name.rpartition(".")[0] == key.rpartition(".")[0])
    )


def _keys(config: Any, path: str = "") -> Iterator[str]:
    for key, value in config.items():
        yield f"{path}{key}"
        if isinstance(value, dict):
            yield from _keys(value, f"{path}{key}.")


def _parser() -> argparse.ArgumentParser:
    from mmlit.results import anchors, tuning
    from mmlit.results import command as compare

    parser = argparse.ArgumentParser(prog="mmlit", description="Compare image-text alignment strategies.")
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")
    data = commands.add_parser("data", help="make data sets", description="Make data sets.")
    kinds = data.add_subparsers(title="data sets", required=True, metavar="NAME")
    _add_scenes(kinds.add_parser("scenes", help="render the embedded data set", description=_SCENES))
    comparison = commands.add_parser(
        "compare",
        help="the table of finished runs",
        description="Compare finished runs: table.md, table.csv and a plot.",
    )
    compare.add_arguments(comparison)
    comparison.set_defaults(command=compare.run)
    for name, module, about in (
        ("anchors", anchors, "published figures, and how far a run lies from them"),
        ("tuned", tuning, "what a tuning sweep found for each strategy"),
    ):
        command = commands.add_parser(name, help=about, description=f"{about[0].upper()}{about[1:]}.")
        module.add_arguments(command)
        command.set_defaults(command=module.run)
    _add_evaluate(
        commands.add_parser(
            "evaluate",
            help="runs, checkpoints or published pairs on other data or by another evaluator",
            description=_EVALUATE,
        )
    )
    return parser


_EVALUATE = (
    "Evaluate finished runs, checkpoints, or a directory with a published CLIP or SigLIP pair. The numbers are added "
    "to a run's record; a published pair gets a record of its own, which `mmlit compare` sets beside trained runs."
)


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

    from mmlit.run.evaluate import evaluate

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
    for folder, metrics in evaluate(subjects, [*overrides, *typed]):
        sys.stdout.write(f"{folder}\n")
        for name, value in metrics.items():
            sys.stdout.write(f"  {name:<28} {value:8.2f}\n")
    return 0


_SCENES = (
    "Render compositional scenes with true and false captions, in the layout of COCO 2017. Deterministic for a seed."
)


def _add_scenes(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--root", type=Path, required=True, metavar="DIR", help="folder to make")
    parser.add_argument("--train", type=int, default=8192, metavar="N", help="training images (default: %(default)s)")
    parser.add_argument("--val", type=int, default=250, metavar="N", help="validation images (default: %(default)s)")
    parser.add_argument("--test", type=int, default=1200, metavar="N", help="test images (default: %(default)s)")
    parser.add_argument(
        "--size", type=int, default=32, metavar="PX", help="side of a picture in px (default: %(default)s)"
    )
    parser.add_argument("--seed", type=int, default=0, metavar="S", help="of everything random (default: %(default)s)")
    parser.set_defaults(command=_scenes)


def _scenes(arguments: argparse.Namespace) -> int:
    from mmlit.data.scenes.write import write_scenes

    names = ("root", "train", "val", "test", "size", "seed")
    write_scenes(**{name: getattr(arguments, name) for name in names})
    return 0


if __name__ == "__main__":
    sys.exit(main())
