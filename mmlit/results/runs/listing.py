"""Runs as lines: for a terminal, and for other programs."""

from collections.abc import Sequence
from typing import Any

from rich import box
from rich.table import Table
from rich.text import Text

from mmlit.results.labels import FIRST_AXIS, differing_axes, varying_settings
from mmlit.results.runs.folders import BROKEN, FINISHED, Folder
from mmlit.results.runs.options import is_number, options_of
from mmlit.results.settings import Identity, identity


def told_options(folders: Sequence[Folder]) -> list[dict[str, str]]:
    """For each run its choices and settings that are not the same in all of them, apart from alignment and seed."""
    identities = [identity(folder.record) if folder.record else None for folder in folders]
    known = [one for one in identities if one is not None]
    axes = [axis for axis in differing_axes(known) if axis != FIRST_AXIS]
    keys = varying_settings(known)
    return [_told(one, axes, keys) if one is not None else {} for one in identities]


def _told(one: Identity, axes: Sequence[str], keys: Sequence[str]) -> dict[str, str]:
    choices = {axis: one.choices[axis] for axis in axes if axis in one.choices}
    return choices | {key: one.settings[key] for key in keys if key in one.settings}


def described(folder: Folder, told: dict[str, str]) -> dict[str, Any]:
    """One run for other programs: `mmlit runs list --json`."""
    options, record = options_of(folder), folder.record
    return {
        "run": str(folder.directory),
        "state": folder.state,
        "alignment": options.get(FIRST_AXIS),
        "seed": options.get("seed"),
        "split": record.split if record else None,
        "choices": record.choices if record else {},
        "options": told,
        "metrics": record.metrics.model_dump() if record else {},
        "finished": record.finished if record else None,
        "status": folder.status,
        "fault": folder.fault,
    }


def table(folders: Sequence[Folder], *, metrics: Sequence[str]) -> Table:
    """One line for each run."""
    told = told_options(folders)
    grid = Table(box=box.SIMPLE_HEAD, show_edge=False, padding=(0, 2, 0, 0))
    for heading in ("run", "alignment", "options that vary", "seed", "split"):
        grid.add_column(heading, overflow="fold")
    for metric in metrics:
        grid.add_column(metric, justify="right")
    grid.add_column("state", overflow="fold")
    for folder, own in zip(folders, told, strict=True):
        options = options_of(folder)
        cells = [
            str(folder.directory),
            shown(options.get(FIRST_AXIS)),
            ", ".join(f"{key}={value}" for key, value in own.items()),
            shown(options.get("seed")),
            folder.record.split if folder.record else "",
            *(shown(options.get(metric)) for metric in metrics),
            _state(folder),
        ]
        grid.add_row(*(Text(printable(cell)) for cell in cells))
    return grid


def _state(folder: Folder) -> str:
    if folder.state == FINISHED:
        return FINISHED
    return f"{folder.state}: {folder.fault if folder.state == BROKEN else progress(folder)}"


def progress(folder: Folder) -> str:
    """How far an unfinished run got, e.g. `40 %, epoch 4 of 10`."""
    if error := folder.status.get("error"):
        return printable(f"failed, {error}")
    share, epoch, epochs = (folder.status.get(key) for key in ("share", "epoch", "epochs"))
    if not (is_number(share) and is_number(epoch) and is_number(epochs)):
        return "not known how far"
    return f"{100 * share:.0f} %, epoch {epoch + 1} of {epochs}"


def shown(value: Any) -> str:
    """A value for a reader: two digits behind the point."""
    return "" if value is None else f"{value:.2f}" if isinstance(value, float) and abs(value) >= 0.01 else str(value)


def printable(text: str) -> str:
    """Text that stays on its line and leaves the terminal alone: names of folders and records are data."""
    return "".join(character if character.isprintable() else "�" for character in text)
