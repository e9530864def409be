"""One run in full, as lines to read."""

import json
from collections.abc import Mapping
from typing import Any

from mmlit.results.entries import told_counts
from mmlit.results.report.commands import line
from mmlit.results.runs.folders import Folder
from mmlit.results.runs.listing import printable, progress
from mmlit.results.runs.options import flat
from mmlit.results.schema import Evaluation, Record


def sheet(folder: Folder) -> list[str]:
    """Everything that is known of a run.

    Raises:
        ValueError: its record is broken.
    """
    if folder.fault:
        raise ValueError(folder.fault)
    own = _finished(folder.record) if folder.record else section("status", folder.status)
    state = f"finished {folder.record.finished}" if folder.record else f"unfinished, {progress(folder)}"
    sizes = {file.name: size(file.stat().st_size) for file in folder.checkpoints()}
    return [f"{printable(str(folder.directory))}: {state}", *own, *section("checkpoints", sizes)]


def _finished(record: Record) -> list[str]:
    parts = record.model_dump(by_alias=True)
    lines = ["", "command", f"  {printable(line(record, [record.seed]))}"]
    lines += section(f"metrics ({record.split}, scored {record.scored})", rounded(parts["metrics"]))
    about = {key: parts[key] for key in ("selection", "protocol", "gallery")}
    lines += section("what was measured", about)
    for part in ("data", "budget", "parameters"):
        lines += section(part, parts[part])
    lines += section("cost", rounded(parts["cost"]))
    for part in ("environment", "code", "choices"):
        lines += section(part, parts[part])
    lines += section(f"options (hash {record.config_hash})", flat(parts["config"]))
    lines += section("diagnostics", rounded(parts["diagnostics"]))
    for entry in record.evaluations:
        lines += section(_about(entry), rounded(entry.metrics))
    return lines


def section(title: str, values: Mapping[str, Any]) -> list[str]:
    """A title and a line for each value, after an empty line; nothing if there are none."""
    if not values:
        return []
    width = max(len(key) for key in values)
    return ["", printable(title), *(f"  {printable(key):<{width}}  {told(value)}" for key, value in values.items())]


def told(value: Any) -> str:
    """A value as yaml would have it, numbers with their thousands apart."""
    if isinstance(value, str):
        return printable(value)
    return f"{value:,}" if type(value) is int else printable(json.dumps(value, ensure_ascii=False))


def rounded(values: Mapping[str, float]) -> dict[str, float]:
    """Two digits behind the point."""
    return {key: round(value, 2) if isinstance(value, float) else value for key, value in values.items()}


def size(number: int) -> str:
    """Bytes for a reader."""
    return f"{number / 2**20:,.1f} MiB"


def _about(entry: Evaluation) -> str:
    on = " ".join(part for part in (entry.data, entry.split) if part) or "its own data"
    return f"evaluation {entry.evaluator} on {on} ({told_counts(entry.counts)}, scored {entry.scored})"
