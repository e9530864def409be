"""What can be asked of a run by name: its choices, options, metrics and costs; and the conditions of `--where`."""

import difflib
import json
import re
from collections.abc import Callable, Sequence
from operator import ge, gt, le, lt
from typing import Any, NamedTuple, TypeGuard

from mmlit.results.runs.folders import Folder

#: parts of a record whose entries are asked for with the part's name, e.g. `cost.fit_seconds`
_PARTS = ("budget", "code", "cost", "data", "environment", "gallery", "parameters", "protocol")
_TOP_LEVEL = ("config_hash", "finished", "scored", "seed", "selection", "split")
#: how a run's folder is named: see mmlit/configuration/identity.py
_NAME = re.compile(r"(?P<data>\w+)-(?P<alignment>\w+)-seed(?P<seed>\d+)-[0-9a-f]{12}")
_CONDITION = re.compile(r"\s*(?P<key>[^\s=!<>]+)\s*(?P<sign>!=|<=|>=|=|<|>)\s*(?P<value>.*?)\s*", re.DOTALL)
_ORDERS: dict[str, Callable[[float, float], bool]] = {"<": lt, "<=": le, ">": gt, ">=": ge}
_WORDS = {"null": None, "none": None, "true": True, "false": False}


class Condition(NamedTuple):
    """`key` against `value` by one of = != < <= > >=."""

    key: str
    sign: str
    value: str

    def holds(self, options: dict[str, Any]) -> bool:
        """Whether a run's options meet it; what a run does not have is as good as null."""
        own = options.get(self.key)
        if self.sign in _ORDERS:
            return is_number(own) and _ORDERS[self.sign](own, float(self.value))
        return _equal(own, self.value) == (self.sign == "=")


def options_of(folder: Folder) -> dict[str, Any]:
    """Everything that `--where`, `--sort` and `--metric` know of a run, by the name that a user types.

    An unfinished run has no record: what its folder's name and its status say is all that is known.
    """
    known: dict[str, Any] = {"run": folder.directory.name, "state": folder.state}
    if folder.record is None:
        name = _NAME.fullmatch(folder.directory.name)
        parts: dict[str, Any] = name.groupdict() if name else {}
        return folder.status | parts | ({"seed": int(parts["seed"])} if parts else {}) | known
    record = folder.record.model_dump(by_alias=True)
    options = flat(record["config"])
    for part in _PARTS:
        options |= flat(record[part], part)
    options |= {f"diagnostics.{name}": value for name, value in record["diagnostics"].items()}
    return options | record["choices"] | record["metrics"] | {key: record[key] for key in _TOP_LEVEL} | known


def flat(value: Any, key: str = "") -> dict[str, Any]:
    """The leaves of nested dicts by dotted key; lists are leaves."""
    if not isinstance(value, dict) or not value:
        return {key: value} if key else {}
    leaves: dict[str, Any] = {}
    for name, part in value.items():
        leaves |= flat(part, f"{key}.{name}" if key else str(name))
    return leaves


def condition(text: str) -> Condition:
    """Read one `--where`.

    Raises:
        ValueError: there is no comparison in it, or an order with what is no number.
    """
    found = _CONDITION.fullmatch(text)
    if not found:
        raise ValueError(f"--where {text}: expected KEY=VALUE, or one of != < <= > >= instead of the =")
    if found["sign"] in _ORDERS and not is_number(_value(found["value"])):
        raise ValueError(f"--where {text}: {found['sign']} compares numbers, and {found['value']!r} is none")
    return Condition(**found.groupdict())


def chosen(folders: Sequence[Folder], conditions: Sequence[Condition]) -> list[Folder]:
    """The runs that meet all conditions; of an unfinished one, a condition on what is not known of it is not met.

    Raises:
        ValueError: no run has an option or a metric of that name.
    """
    table = [options_of(folder) for folder in folders]
    for each in conditions:
        check_known(each.key, table, option="--where")
    return [
        folder
        for folder, options in zip(folders, table, strict=True)
        if all((each.key in options or folder.record) and each.holds(options) for each in conditions)
    ]


def check_known(key: str, table: Sequence[dict[str, Any]], *, option: str) -> None:
    """Refuse a name that no run knows.

    Raises:
        ValueError: with the most similar name.
    """
    known = {name for options in table for name in options}
    if table and key not in known:
        near = difflib.get_close_matches(key, sorted(known), n=1)
        raise ValueError(f"{option} {key}: no run has it{f'; did you mean {near[0]}?' if near else ''}")


def falls(key: str) -> bool:
    """Whether less of it is better: ranks, seconds, memory, parameters."""
    return key.endswith("_rank") or key.startswith(("cost.", "budget.", "parameters."))


def is_number(value: Any) -> TypeGuard[float]:
    """Whether it can be ordered: numbers, but no booleans."""
    return isinstance(value, int | float) and not isinstance(value, bool)


def _equal(own: Any, asked: str) -> bool:
    value = _value(asked)
    if isinstance(own, bool) or isinstance(value, bool) or own is None:
        return own is value
    return bool(own == value) or str(own) == asked


def _value(text: str) -> Any:
    """A number, a list, a word of yaml, or the text itself."""
    if text.lower() in _WORDS:
        return _WORDS[text.lower()]
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return text
