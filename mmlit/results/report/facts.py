"""What the rows share, in what they differ, and what they were made with."""

import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from mmlit.results.comparison import Comparison
from mmlit.results.labels import ABSENT, FIRST_AXIS, differing_axes
from mmlit.results.rows import Group
from mmlit.results.schema import Record

_CHOICES = Path(__file__).resolve().parents[3] / "conf" / FIRST_AXIS
_SHARED_AXES = ("data", "image_encoder", "text_encoder", "optimizer", "schedule")
_VERSIONS = ("python", "torch", "lightning", "transformers", "mmlit", "platform", "device", "threads")


class Fact(NamedTuple):
    """A setting or a fact, and its values with the labels of the rows that have each."""

    key: str
    values: tuple[tuple[str, tuple[str, ...]], ...]


def differing_settings(comparison: Comparison) -> tuple[list[Fact], list[Fact]]:
    """Choices and settings that are not the same in all rows.

    Returns:
        Those that a reader should mind, and those that follow from another choice (`alignment.margin`).
    """
    groups, labels = comparison.groups, [row.label for row in comparison.rows]
    identities = [group.identity for group in groups]
    axes = differing_axes(identities)
    minded = [_fact(axis, [one.choices.get(axis, ABSENT) for one in identities], labels) for axis in axes]
    below = tuple(f"{axis.replace('/', '.')}." for axis in axes)
    following: list[Fact] = []
    for key in sorted({key for one in identities for key in one.settings}):
        values = [one.settings.get(key, ABSENT) for one in identities]
        if len(set(values)) > 1:
            (following if key.startswith(below) else minded).append(_fact(key, values, labels))
    return [fact for fact in minded if any(rows != (value,) for value, rows in fact.values)], following


def shortened(comparison: Comparison) -> Comparison:
    """Labels with `lr=0.001` for `optimizer.lr=0.001`, where no two options would then have one name."""
    option = re.compile(r"(?:(?<=^)|(?<=, ))[\w/]+(?:\.[\w/]+)*(?==)")
    long = sorted({key for row in comparison.rows for key in option.findall(row.label)})
    short = [key.rpartition(".")[2] for key in long]
    names = {key: own if short.count(own) == 1 else key for key, own in zip(long, short, strict=True)}
    labels = [option.sub(lambda found: names[found[0]], row.label) for row in comparison.rows]
    rows = tuple(row._replace(label=label) for row, label in zip(comparison.rows, labels, strict=True))
    return comparison._replace(rows=rows, baseline=rows[0].label)


def strategies(groups: Sequence[Group]) -> dict[str, str]:
    """What each strategy is, in the words of its yaml file; of one that this mmlit does not have, nothing."""
    chosen = dict.fromkeys(str(group.identity.choices.get(FIRST_AXIS)) for group in groups)
    files = {name: _CHOICES / f"{Path(name).name}.yaml" for name in chosen}
    told = {name: file.read_text(encoding="utf-8").splitlines()[0] for name, file in files.items() if file.is_file()}
    return {name: line.lstrip("# ") for name, line in told.items() if line.startswith("#")}


def shared_choices(groups: Sequence[Group]) -> dict[str, str]:
    """The choices that all rows share and a reader asks for first."""
    first = groups[0].identity.choices
    names = [axis for axis in _SHARED_AXES if first.get(axis) not in (None, "null")]
    return {
        axis: first[axis] for axis in names if all(group.identity.choices.get(axis) == first[axis] for group in groups)
    }


def sources(comparison: Comparison) -> list[Fact]:
    """Code, versions, machine, data and selection of the runs."""
    labels = [row.label for row in comparison.rows]
    wanted: dict[str, Callable[[Record], str]] = {
        "commit": _commit,
        "code": lambda record: record.code.hash,
        "data": lambda record: record.data.hash,
        "gallery": lambda record: record.gallery.hash,
        "selection": lambda record: record.selection.partition(",")[0],
        **{name: _environment(name) for name in _VERSIONS},
    }
    return [_told(key, of, comparison.groups, labels) for key, of in wanted.items()]


def _environment(name: str) -> Callable[[Record], str]:
    return lambda record: str(record.environment.model_dump().get(name, ABSENT))


def _commit(record: Record) -> str:
    if record.code.commit is None:
        return "no commit"
    return f"{record.code.commit}{' with uncommitted changes' if record.code.dirty else ''}"


def _told(key: str, of: Callable[[Record], str], groups: Sequence[Group], labels: Sequence[str]) -> Fact:
    values: dict[str, dict[str, None]] = {}
    for group, label in zip(groups, labels, strict=True):
        for record in group.records:
            values.setdefault(of(record), {})[label] = None
    return _joined(key, values)


def _fact(key: str, values: Sequence[str], labels: Sequence[str]) -> Fact:
    where: dict[str, dict[str, None]] = {}
    for value, label in zip(values, labels, strict=True):
        where.setdefault(value, {})[label] = None
    return _joined(key, where)


def _joined(key: str, values: Mapping[str, Mapping[str, None]]) -> Fact:
    return Fact(key, tuple((value, tuple(rows)) for value, rows in values.items()))
