"""What rows must share to be compared, and what a reader should know where they do not."""

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from mmlit.results.schema import Record
from mmlit.results.settings import facts

Rows = Mapping[str, Sequence[Record]]
"""A row's label → the records of its seeds."""

UNLIKE = "Unlike rows"
"""How a note begins that says in what rows are unlike."""

_NAMED = 5
"""How many rows, and how many values, a message names."""

_WIDTH = 60
"""Characters of a label that a message shows."""


class Matter(NamedTuple):
    """Something that may differ between runs, and the words for it when it does.

    What is `of_training` does not concern rows that were not trained here, such as published weights.
    """

    words: str
    of: Callable[[Record], str]
    of_training: bool = False


_MUST_AGREE = (
    Matter("split", lambda record: facts(record)["split"]),
    Matter("gallery", lambda record: facts(record)["gallery"]),
    Matter("protocol", lambda record: facts(record)["protocol"]),
    Matter("data", lambda record: facts(record)["data"], of_training=True),
    Matter("pairs seen", lambda record: f"{record.budget.pairs_seen:,}", of_training=True),
)

_WORTH_A_NOTE = (
    Matter("Selection rule", lambda record: record.selection.partition(",")[0], of_training=True),
    Matter("Code", lambda record: f"{record.code.hash} ({_commit(record)})"),
    Matter(
        "Machine (mind the seconds)",
        lambda record: f"{record.environment.device}, {record.environment.threads} threads",
    ),
)


def unlike(rows: Rows) -> list[str]:
    """Say in which respects rows are unlike: split, gallery, protocol and, of those trained here, data and budget.

    Seeds of one row that saw different numbers of pairs (early stopping) are unlike too: their mean is of
    no one budget.

    Returns:
        One phrase per respect, naming the rows; empty if all are alike.
    """
    return [phrase for matter in _MUST_AGREE if (phrase := _difference(matter, rows))]


def notes_on_runs(rows: Rows) -> list[str]:
    """Say what else differs: rows not trained here, selection rule, code, machine, uncommitted changes, seeds."""
    given = [label for label, records in rows.items() if untrained(records)]
    notes = []
    if given:
        notes.append(
            f"Not trained here (0 pairs seen), so that data and pairs seen need not agree: {_named(given)}. Such a "
            "row of one run is one fixed model: there is no other seed of it."
        )
    notes += [f"{phrase}." for matter in _WORTH_A_NOTE if (phrase := _difference(matter, rows))]
    dirty = [label for label, records in rows.items() if any(record.code.dirty for record in records)]
    if dirty:
        notes.append(f"Run with uncommitted changes: {_named(dirty)}.")
    seeds: dict[str, list[str]] = {}
    for label, records in _trained(rows).items():
        seeds.setdefault(", ".join(str(record.seed) for record in records), []).append(label)
    if len(seeds) > 1:
        notes.append(f"Seeds differ: {_having(seeds)}.")
    return notes


def untrained(records: Sequence[Record]) -> bool:
    """Whether a row was not trained here: none of its runs saw a pair."""
    return all(record.budget.pairs_seen == 0 for record in records)


def differs(words: str, having: Mapping[str, Sequence[str]]) -> str:
    """Put "words differs: 1 in this row; 2 in that row" from value → the rows that have it; of many it names some."""
    return f"{words} differs: {_having(having)}"


def _having(having: Mapping[str, Sequence[str]]) -> str:
    parts = [f"{value} in {_named(labels)}" for value, labels in list(having.items())[:_NAMED]]
    if len(having) > _NAMED:
        parts.append(f"and {len(having) - _NAMED:,} more values")
    return "; ".join(parts)


def _named(labels: Sequence[str]) -> str:
    """Some of the rows, their labels cut."""
    names = [label if len(label) <= _WIDTH else f"{label[: _WIDTH - 1]}…" for label in labels[:_NAMED]]
    return ", ".join(names) + (f" and {len(labels) - _NAMED:,} more" if len(labels) > _NAMED else "")


def budget(records: Sequence[Record]) -> tuple[int, int]:
    """The least and the most pairs that a row's runs saw."""
    seen = [record.budget.pairs_seen for record in records]
    return min(seen), max(seen)


def _difference(matter: Matter, rows: Rows) -> str | None:
    having: dict[str, list[str]] = {}
    for label, records in (_trained(rows) if matter.of_training else rows).items():
        for value in dict.fromkeys(matter.of(record) for record in records):
            having.setdefault(value, []).append(label)
    return differs(matter.words, having) if len(having) > 1 else None


def _trained(rows: Rows) -> Rows:
    return {label: records for label, records in rows.items() if not untrained(records)}


def _commit(record: Record) -> str:
    return f"commit {record.code.commit}" if record.code.commit else "no commit"
