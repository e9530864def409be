"""Rows are named by what differs between them, in the words of the command line."""

from collections.abc import Iterable, Mapping, Sequence

from mmlit.results.settings import Identity

ABSENT = "none"
FIRST_AXIS = "alignment"
"""The axis this project exists for: named first, and without its key."""


def labels(identities: Sequence[Identity], usual: Mapping[str, str] | None = None) -> list[str]:
    """Name rows by the choices that differ, then the settings, then what was measured.

    The alignment, or the only axis that differs, stands as its bare value; the rest is `key=value`. Settings
    are named where rows of equal choices differ in them: an option's own settings follow from its name.

    Args:
        identities: one per row, all different.
        usual: axis → the option that goes without saying; the alignment is always named.

    Returns:
        One label per row, all different.
    """
    axes = differing_axes(identities)
    # a bare value that some rows lack would say nothing of what it is
    whole = [axis for axis in axes if all(axis in one.choices for one in identities)]
    bare = {FIRST_AXIS} if len(axes) > 1 else set(whole)
    names = [_choices(one, axes, bare, usual or {}) for one in identities]
    settings = [one.settings for one in identities]
    names = _extended(names, settings, _differing_among_equals(settings, names))
    facts = [one.facts for one in identities]
    for fact in ("scored", "split", "data", "protocol", "gallery"):
        if fact in _differing_among_equals(facts, names):
            names = _extended(names, facts, [fact])
    return _numbered([name or one.choices.get(FIRST_AXIS, "run") for one, name in zip(identities, names, strict=True)])


def differing_axes(identities: Sequence[Identity]) -> list[str]:
    """The axes in which rows chose differently, the alignment first."""
    return sorted(_differing([one.choices for one in identities]), key=lambda axis: (axis != FIRST_AXIS, axis))


def silent_settings(identities: Sequence[Identity], names: Sequence[str]) -> dict[str, dict[str, list[str]]]:
    """Settings that differ between rows though no label says so: key → value → the labels that have it.

    Settings below a differing axis (`alignment.temperature`) follow from the choice and are left out.
    """
    axes = tuple(f"{axis.replace('/', '.')}." for axis in differing_axes(identities))
    found: dict[str, dict[str, list[str]]] = {}
    for key in _differing([one.settings for one in identities]):
        if f"{key}.".startswith(axes) or any(f"{key}=" in name for name in names):
            continue
        values = found.setdefault(key, {})
        for one, name in zip(identities, names, strict=True):
            values.setdefault(one.settings.get(key, ABSENT), []).append(name)
    return found


def varying_settings(identities: Sequence[Identity]) -> list[str]:
    """The settings that differ between runs, but for those that follow from a choice which differs."""
    settings = [one.settings for one in identities]
    axes = tuple(f"{axis.replace('/', '.')}." for axis in differing_axes(identities))
    names = [str(sorted(one.choices.items())) for one in identities]
    own = _differing_among_equals(settings, names)
    return [key for key in _differing(settings) if key in own or not f"{key}.".startswith(axes)]


def _differing(tables: Iterable[dict[str, str]]) -> list[str]:
    """The keys whose value is not the same (or not present) in all tables, sorted."""
    tables = list(tables)
    keys = sorted({key for table in tables for key in table})
    return [key for key in keys if len({table.get(key) for table in tables}) > 1]


def _choices(one: Identity, axes: list[str], bare: set[str], usual: Mapping[str, str]) -> str:
    values = [(axis, one.choices[axis]) for axis in axes if axis in one.choices]
    values = [(axis, value) for axis, value in values if axis == FIRST_AXIS or usual.get(axis) != value]
    return ", ".join(value if axis in bare else f"{axis}={value}" for axis, value in values)


def _differing_among_equals(tables: Sequence[dict[str, str]], names: Sequence[str]) -> list[str]:
    """The keys in which rows of one and the same name differ."""
    groups: dict[str, list[dict[str, str]]] = {}
    for table, name in zip(tables, names, strict=True):
        groups.setdefault(name, []).append(table)
    return sorted({key for group in groups.values() for key in _differing(group)})


def _extended(names: list[str], tables: Sequence[dict[str, str]], keys: list[str]) -> list[str]:
    """Append `key=value` for those of the keys that a row has."""
    return [
        ", ".join([*([name] if name else []), *(f"{key}={table[key]}" for key in keys if key in table)])
        for name, table in zip(names, tables, strict=True)
    ]


def _numbered(names: list[str]) -> list[str]:
    """Settings may differ in what a label cannot show (1 and "1", a key that is absent): then count."""
    seen: dict[str, int] = {}
    numbered = []
    for name in names:
        seen[name] = seen.get(name, 0) + 1
        numbered.append(name if seen[name] == 1 else f"{name} #{seen[name]}")
    return numbered
