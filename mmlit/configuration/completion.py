"""Completion of the `mmlit` command in a shell; that of `train.py` is Hydra's own."""

import argparse
from collections.abc import Iterator
from pathlib import Path

import shtab

_CONF = Path(__file__).resolve().parents[2] / "conf"
#: what an argument is, by how the help names it
_KINDS = {"DIR": shtab.DIRECTORY, "RUN": shtab.FILE}
#: options that take a choice of an axis
_AXES = ("data", "evaluator")


def script(parser: argparse.ArgumentParser, *, shell: str) -> str:
    """What a shell evaluates to complete commands, options, folders and choices of axes.

    Args:
        parser: of the whole command; it is changed, and is of no further use.
        shell: bash or zsh.
    """
    for action in _actions(parser):
        if action.metavar in _KINDS:
            action.complete = _KINDS[action.metavar]  # type: ignore[attr-defined]
        elif action.dest in _AXES and action.option_strings:
            action.choices = sorted(path.stem for path in (_CONF / action.dest).glob("*.yaml"))
    return str(shtab.complete(parser, shell=shell))


def _actions(parser: argparse.ArgumentParser) -> Iterator[argparse.Action]:
    """The arguments of a command and of those below it."""
    for action in parser._actions:  # argparse offers no other way to walk through
        yield action
        if isinstance(action, argparse._SubParsersAction):
            for command in action.choices.values():
                yield from _actions(command)
