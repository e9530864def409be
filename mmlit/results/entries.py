"""What `mmlit evaluate` adds to a record: which entries may be compared, and which of several counts."""

import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from hashlib import sha256
from typing import Any

from mmlit.results.schema import Evaluation, Record


def fingerprint(
    *, evaluator: str, split: str | None, protocol: Mapping[str, Any], counts: Mapping[str, int], asked: str
) -> str:
    """16 hex digits, equal for numbers that may be compared; how they were scored is no part of it.

    Args:
        evaluator: the choice of the axis.
        split: the split, None where an evaluator brings its own pictures.
        protocol: how ranks or answers became numbers, plain.
        counts: how much was ranked or asked.
        asked: a digest of what was ranked or asked.
    """
    rules = {"evaluator": evaluator, "split": split, "protocol": dict(protocol), "counts": dict(counts)}
    return sha256(json.dumps([rules, asked], sort_keys=True).encode()).hexdigest()[:16]


def own_entry(record: Record) -> Evaluation:
    """The numbers that a run was reported with, as if `mmlit evaluate` had found them."""
    evaluator, data, protocol = str(record.choices.get("evaluator")), record.choices.get("data"), record.protocol
    counts = {"images": record.gallery.images, "texts": record.gallery.texts}
    return Evaluation(
        evaluator=evaluator,
        data=None if data is None else str(data),
        split=record.split,
        scored=record.scored,
        protocol=protocol.model_dump(),
        counts=counts,
        fingerprint=fingerprint(
            evaluator=evaluator,
            split=record.split,
            protocol=protocol.model_dump(),
            counts=counts,
            asked=record.gallery.hash,
        ),
        metrics=record.metrics.model_dump(),
        seconds=record.cost.evaluation_seconds,
        options={},
        environment=record.environment,
        code=record.code,
        finished=record.finished,
        folder=".",
    )


def entries_of(record: Record) -> list[Evaluation]:
    """A record's own numbers and what was added later, the newest last."""
    return sorted([own_entry(record), *record.evaluations], key=finished_at)


def finished_at(entry: Evaluation) -> datetime:
    """When an evaluation ended; comparable between time zones."""
    return datetime.fromisoformat(entry.finished)


def chosen(runs: Mapping[str, Sequence[Sequence[Evaluation]]]) -> dict[str, list[Evaluation]]:
    """One entry of each run: the newest of what all runs of all rows were asked, and of that the newest.

    Args:
        runs: by row label, for each of its runs (seeds) the entries of one evaluator, at least one, the newest last.

    Raises:
        ValueError: naming what differs, if there is nothing that all runs were asked.
    """
    every = [entries for row in runs.values() for entries in row]
    shared = set.intersection(*({entry.fingerprint for entry in entries} for entries in every))
    if not shared:
        newest = {name: [entries[-1] for entries in row] for name, row in runs.items()}
        raise ValueError(f"rows were asked different things: {'; '.join(_differences(newest))}")
    newest_first = sorted((entry for entries in every for entry in entries), key=finished_at, reverse=True)
    mark = next(entry.fingerprint for entry in newest_first if entry.fingerprint in shared)
    return {
        name: [[entry for entry in entries if entry.fingerprint == mark][-1] for entries in row]
        for name, row in runs.items()
    }


def _differences(rows: Mapping[str, Sequence[Evaluation]]) -> list[str]:
    """What differs between entries of unlike fingerprints, e.g. `split test in joint, val in contrastive`."""
    facts = [
        (label, {"data": entry.data or "its own", "split": entry.split or "none", **entry.protocol})
        for label, row in rows.items()
        for entry in row
    ]
    counts = [(label, {"counts": told_counts(entry.counts)}) for label, row in rows.items() for entry in row]
    # where data or rules differ, counts follow from them
    return _unlike(facts) or _unlike(counts) or ["equally much, but not the same images and texts"]


def _unlike(facts: Sequence[tuple[str, Mapping[str, Any]]]) -> list[str]:
    """For each key whose value is not the same everywhere: its values with the labels that have them."""
    told = []
    for key in dict.fromkeys(key for _, own in facts for key in own):
        where: dict[str, list[str]] = {}
        for label, own in facts:
            value = own.get(key, "none")
            where.setdefault(value if isinstance(value, str) else json.dumps(value), []).append(label)
        if len(where) > 1:
            each = (f"{value} in {' and '.join(dict.fromkeys(labels))}" for value, labels in where.items())
            told.append(f"{key} {', '.join(each)}")
    return told


def told_counts(counts: Mapping[str, int]) -> str:
    """E.g. `5,000 images, 25,000 texts`."""
    return ", ".join(f"{count:,} {what}" for what, count in counts.items())
