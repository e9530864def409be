"""Reads what wandb wrote offline: a log of blocks as LevelDB lays them out, each record a protobuf message."""

import json
import struct
from pathlib import Path
from typing import Any, NamedTuple

_HEADER, _BLOCK = 7, 32768
_WHOLE, _FIRST, _LAST = 1, 2, 4


class OfflineRun(NamedTuple):
    """The parts of a run that tests look at: `history` as one dict per row, `artifacts` as (type, names of files)."""

    run: Any
    config: dict[str, Any]
    history: list[dict[str, Any]]
    artifacts: list[tuple[str, list[str]]]
    exit_codes: list[int]


def read_offline(path: Path) -> OfflineRun:
    """A `.wandb` file."""
    from wandb.proto import wandb_internal_pb2 as messages

    run, config, history, artifacts, exits = None, {}, [], [], []
    for content in _records(path.read_bytes()):
        record = messages.Record()
        record.ParseFromString(content)
        kind = record.WhichOneof("record_type")
        if kind == "run":
            run = record.run
            config |= _items(record.run.config.update)
        elif kind == "config":
            config |= _items(record.config.update)
        elif kind == "history":
            history.append(_items(record.history.item))
        elif kind == "artifact" or (kind == "request" and record.request.HasField("log_artifact")):
            artifact = record.artifact if kind == "artifact" else record.request.log_artifact.artifact
            artifacts.append((artifact.type, sorted(entry.path for entry in artifact.manifest.contents)))
        elif kind == "exit":
            exits.append(record.exit.exit_code)
    return OfflineRun(run, config, history, artifacts, exits)


def _items(items) -> dict[str, Any]:
    return {item.key or ".".join(item.nested_key): json.loads(item.value_json) for item in items}


def _records(data: bytes):
    place, parts = _HEADER, b""
    while place + _HEADER <= len(data):
        if _BLOCK - place % _BLOCK < _HEADER:  # a rest too short for a header is filled up
            place += _BLOCK - place % _BLOCK
            continue
        _, length, kind = struct.unpack("<IHB", data[place : place + _HEADER])
        parts += data[place + _HEADER : place + _HEADER + length]
        place += _HEADER + length
        if kind in (_WHOLE, _LAST):
            yield parts
            parts = b""
