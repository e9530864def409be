"""Two runs side by side, as lines to read."""

from collections.abc import Mapping
from typing import Any

from mmlit.results.runs.folders import Folder
from mmlit.results.runs.listing import printable
from mmlit.results.runs.options import flat, is_number
from mmlit.results.runs.sheet import rounded, told
from mmlit.results.schema import Record
from mmlit.results.settings import identity

_ABSENT = "–"

Both = dict[str, tuple[Any, Any]]
"""By name, what the one run has and what the other has."""


def sides(one: Folder, other: Folder) -> list[str]:
    """What differs between two finished runs, and their metrics and costs.

    Settings make a row of `mmlit compare`; other options only say where and how a run ran.

    Raises:
        ValueError: one of them is not finished, or its record is broken.
    """
    records = [_record(one), _record(other)]
    parts = [record.model_dump(by_alias=True) for record in records]
    rows = [identity(record) for record in records]
    settings = _unlike(*({**row.choices, **row.settings} for row in rows))
    options = _unlike(*(flat(part["config"]) for part in parts))
    measured = [
        row.facts | {key: part[key] for key in ("seed", "selection")} for row, part in zip(rows, parts, strict=True)
    ]
    machine = [flat({key: part[key] for key in ("environment", "code")}) for part in parts]
    sums = [rounded(flat({key: part[key] for key in ("budget", "parameters", "cost")})) for part in parts]
    return [
        f"A  {printable(str(one.directory))}",
        f"B  {printable(str(other.directory))}",
        *_lines("settings that differ", settings),
        *_lines("what was measured differs", _unlike(*measured)),
        *_lines("other options that differ", {key: options[key] for key in options if key not in {*settings, "seed"}}),
        *_lines("environment and code differ", _unlike(*machine)),
        *_lines("metrics, and B − A", _beside(*(rounded(part["metrics"]) for part in parts)), gain=True),
        *_lines("budget and cost, and B − A", _beside(*sums), gain=True),
    ]


def _record(folder: Folder) -> Record:
    if folder.record is None:
        raise ValueError(folder.fault or f"{folder.directory} is unfinished: there is no record to compare")
    return folder.record


def _beside(one: Mapping[str, Any], other: Mapping[str, Any]) -> Both:
    return {key: (one.get(key, _ABSENT), other.get(key, _ABSENT)) for key in {**one, **other}}


def _unlike(one: Mapping[str, Any], other: Mapping[str, Any]) -> Both:
    return {key: both for key, both in sorted(_beside(one, other).items()) if both[0] != both[1]}


def _lines(title: str, values: Both, *, gain: bool = False) -> list[str]:
    """A title and a line for each value, after an empty line, in columns; nothing if there are none."""
    rows = [
        [printable(key), told(one), told(other), _gain(one, other) if gain else ""]
        for key, (one, other) in values.items()
    ]
    widths = [max((len(row[place]) for row in rows), default=0) for place in range(4)]
    lines = ["  ".join(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True)) for row in rows]
    return ["", title, *(f"  {line.rstrip()}" for line in lines)] if rows else []


def _gain(one: Any, other: Any) -> str:
    if not (is_number(one) and is_number(other)):
        return ""
    return f"{other - one:+,}" if isinstance(one, int) and isinstance(other, int) else f"{other - one:+,.2f}"
