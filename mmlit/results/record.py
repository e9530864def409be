"""The record of one run, `result.json`: how it is written and read."""

import json
import re
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from mmlit.results.atomic import write_atomically
from mmlit.results.schema import Record

SCHEMA_VERSION = 1
FILE_NAME = "result.json"

_NUMBERS = re.compile(r"\[\n\s+-?\d[-+.\deE,\s]*\]")
"""A list of numbers; no string can match, for a line break stands in none."""


def write_record(directory: Path, record: dict[str, Any]) -> Path:
    """Check a record and write it as `result.json`, atomically.

    Args:
        directory: the run's directory, made if missing.
        record: plain dicts, lists, strings and numbers in the schema of `Record`.

    Returns:
        The file's path.

    Raises:
        ValueError: a key is missing, unknown, of a wrong type or out of range (metrics: not finite), or a
            value is not plain JSON; the message names the file and the key. Nothing is written.
    """
    path = directory / FILE_NAME
    _checked(record, path)
    try:
        text = json.dumps(record, indent=2, ensure_ascii=False, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{path}: not plain JSON: {error}") from error
    return write_atomically(path, f"{_NUMBERS.sub(_on_one_line, text)}\n".encode())


def read_record(path: Path) -> Record:
    """Read one `result.json`.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is no JSON object, of another schema version, or breaks the schema; the message names
            the file and the key.
    """
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path}: broken JSON: {error}") from error
    return _checked(record, path)


def append_evaluation(directory: Path, evaluation: dict[str, Any]) -> Path:
    """Add what `mmlit evaluate` found to a run's record; one of the same folder gives way.

    Args:
        directory: the run's directory.
        evaluation: in the schema of `Evaluation`.

    Raises:
        FileNotFoundError: the run has no record.
        ValueError: the record or the evaluation breaks the schema. Nothing is written.
    """
    read_record(directory / FILE_NAME)
    record = json.loads((directory / FILE_NAME).read_text(encoding="utf-8"))
    others = [each for each in record.get("evaluations", []) if each["folder"] != evaluation["folder"]]
    return write_record(directory, {**record, "evaluations": [*others, evaluation]})


def _on_one_line(numbers: re.Match[str]) -> str:
    """A curve of two hundred points shall not be two hundred lines."""
    return " ".join(numbers[0].split()).replace("[ ", "[").replace(" ]", "]")


def _checked(record: object, path: Path) -> Record:
    if not isinstance(record, dict):
        raise ValueError(f"{path}: expected a JSON object, got {type(record).__name__}")
    # Before the rest: a record of another version breaks the schema in ways that explain nothing.
    if "schema" in record and record["schema"] != SCHEMA_VERSION:
        raise ValueError(f"{path} of version {record['schema']}; this mmlit reads version {SCHEMA_VERSION}")
    try:
        return Record.model_validate(record)
    except ValidationError as error:
        faults = [f"{'.'.join(map(str, fault['loc']))}: {fault['msg']}" for fault in error.errors()]
        raise ValueError(f"{path}: {'; '.join(faults)}") from error
