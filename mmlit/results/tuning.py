"""`mmlit tuned`: what a tuning sweep found for each strategy, and the commands that report it."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from rich.console import Console
from rich.table import Table

from mmlit.results.rows import Run, find_runs
from mmlit.results.settings import identity

AXIS = "alignment"


class Choice(NamedTuple):
    """The best of a strategy's trials on the selection split; `options` are those that its trials differ in."""

    strategy: str
    num_trials: int
    options: dict[str, str]
    rsum: float
    at_edge: tuple[str, ...]


def choose(directories: Sequence[Path]) -> list[Choice]:
    """The best trial of each strategy, by rsum.

    Raises:
        FileNotFoundError: a directory or any record is missing.
        ValueError: a trial was reported on the split that final numbers are reported on, strategies had different
            numbers of trials, or were not given the same budget.
    """
    runs = find_runs(directories)
    for run in runs:
        if run.record.split == (run.record.config.get("data") or {}).get("test"):
            raise ValueError(f"{run.directory} was reported on split {run.record.split}: nothing may be chosen there")
    if len({run.record.budget.pairs_seen for run in runs}) > 1:
        raise ValueError("trials saw different numbers of pairs: the same budget for every trial, or none is fair")
    strategies: dict[str, list[Run]] = {}
    for run in runs:
        strategies.setdefault(str(run.record.choices[AXIS]), []).append(run)
    counts = {strategy: len(trials) for strategy, trials in strategies.items()}
    if len(set(counts.values())) > 1:
        told = ", ".join(f"{strategy} {count}" for strategy, count in sorted(counts.items()))
        raise ValueError(f"strategies had different numbers of trials ({told}): finish or equal them first")
    return [_best(strategy, trials) for strategy, trials in sorted(strategies.items())]


def command(choice: Choice) -> str:
    """What reports the chosen options on the test split, three seeds."""
    options = " ".join(f"{key}={value}" for key, value in choice.options.items())
    return (
        f"python train.py --config-dir sweeps --config-name tuned {AXIS}={choice.strategy} {options} "
        f"trials={choice.num_trials}"
    )


def _best(strategy: str, trials: list[Run]) -> Choice:
    settings = [identity(run.record).settings for run in trials]  # seeds and folders are no part of them
    varied = [key for key in settings[0] if len({each.get(key) for each in settings}) > 1]
    number = max(range(len(trials)), key=lambda n: trials[n].record.metrics.rsum)
    own = {key: settings[number][key] for key in varied}
    edge = [key for key in varied if _at_edge(own[key], [each[key] for each in settings])]
    return Choice(strategy, len(trials), own, trials[number].record.metrics.rsum, tuple(edge))


def _at_edge(value: str, tried: Sequence[str]) -> bool:
    """Whether a number is the least or the greatest that was tried: a better one may lie beyond."""
    try:
        numbers = sorted({float(each) for each in tried})
    except ValueError:
        return False
    return float(value) in (numbers[0], numbers[-1])


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of `mmlit tuned`."""
    parser.add_argument("directories", nargs="+", type=Path, metavar="DIR", help="searched recursively for result.json")


def run(arguments: argparse.Namespace) -> int:
    """Print each strategy's best options and the commands that report them."""
    choices = choose(arguments.directories)
    console = Console(highlight=False, width=None if sys.stdout.isatty() else 120)
    table = Table("strategy", "trials", "best options", "rsum on the selection split")
    for each in choices:
        table.add_row(each.strategy, str(each.num_trials), _told(each.options), f"{each.rsum:.1f}")
    console.print(table)
    for each in choices:
        if each.at_edge:
            console.print(f"Note: {each.strategy}: {', '.join(each.at_edge)} is best at the edge of what was tried.")
    console.print("Report them on the test split with:")
    for each in choices:
        console.print(f"  {command(each)}", markup=False, soft_wrap=True)
    return 0


def _told(options: dict[str, Any]) -> str:
    return ", ".join(f"{key}={value}" for key, value in options.items())
