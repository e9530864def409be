"""Which of a run's settings make a row of the comparison, and which only say where and how it ran."""

import json
from pathlib import Path
from typing import Any, NamedTuple

from mmlit.results.added import completed
from mmlit.results.schema import Record

NOT_COMPARED = frozenset({"seed", "paths", "logger", "resume_minutes", "features"})
"""Top-level parts of the config, and axes of choice, that do not make a row."""

NOT_COMPARED_ANYWHERE = frozenset(
    {
        "captions_tell",
        "default_root_dir",
        "enable_model_summary",
        "enable_progress_bar",
        "image_block",
        "log_every_n_steps",
        "num_threads",
        "num_workers",
        "persistent_workers",
        "pin_memory",
        "prefetch_factor",
        "root",
        "seed",
        "text_block",
        "threads",
    }
)
"""Keys that do not make a row, at any depth: machine matters; of `root` the data's hash says more."""


TRIALS = "trials"
"""The option that says how many settings were tried before; it makes a row, but its absence is as good as null."""


_PROFILER = "trainer.profiler"
"""A profiler makes a row, for its seconds say something else; its absence is as good as null."""


class Identity(NamedTuple):
    """What two runs must share to be one row.

    `choices` axis → option; `settings` dotted key → value, JSON-encoded unless a string; `facts` what was
    measured on what, by the name that a reader sees.
    """

    choices: dict[str, str]
    settings: dict[str, str]
    facts: dict[str, str]


def identity(record: Record) -> Identity:
    """Take from a record what makes its row."""
    choices = {
        axis: _text(option)
        for axis, option in record.choices.items()
        # nothing chosen is what records say, too, that are older than the axis
        if axis not in NOT_COMPARED and not axis.startswith("hydra/") and option is not None
    }
    paths = record.config.get("paths") or {}
    config = {key: value for key, value in record.config.items() if key not in NOT_COMPARED}
    if trials(record) is None:
        config.pop(TRIALS, None)
    if (record.config.get("features") or {}).get("half"):
        config["features"] = {"half": True}  # all else about a store of features changes no number
    if record.config.get("fit") is False and config.get("checkpoint"):
        config["checkpoint"] = Path(config["checkpoint"]).name  # its folder is the seed's own
    settings: dict[str, str] = {}
    _flatten(config, "", _prefixes(paths), settings)
    if settings.get(_PROFILER) == "null":
        del settings[_PROFILER]
    return Identity(choices, settings, facts(record))


def trials(record: Record) -> int | None:
    """How many settings were tried on the selection split before this run's were chosen; None for defaults.

    Raises:
        ValueError: the option is neither a whole number nor null.
    """
    number = record.config.get(TRIALS)
    if number is not None and (isinstance(number, bool) or not isinstance(number, int)):
        raise ValueError(f"{TRIALS} must be a whole number or null, got {number!r}")
    return number


def facts(record: Record) -> dict[str, str]:
    """What the numbers of a run are about, apart from the budget; rows may differ in `scored` only."""
    gallery, data = record.gallery, record.data
    protocol = record.protocol.model_dump()
    return {
        "scored": record.scored,
        "split": record.split,
        "gallery": f"{gallery.images:,} images, {gallery.texts:,} texts ({gallery.hash})",
        "protocol": ", ".join(f"{key} {_text(protocol[key])}" for key in sorted(protocol)),
        "data": f"{data.hash}, trained on {data.train_pairs:,} pairs of {data.train_images:,} images",
    }


def _flatten(value: Any, key: str, prefixes: list[tuple[str, str]], into: dict[str, str]) -> None:
    """Collect the leaves of nested dicts under dotted keys; lists are leaves."""
    if not isinstance(value, dict) or not value:
        into[key] = _text(_without_paths(value, prefixes))
        return
    for name, part in completed(value).items():
        # Seeds are interpolated into other places (`data.split_seed`): fixed ones are in the data's hash.
        if name not in NOT_COMPARED_ANYWHERE and not str(name).endswith("_seed"):
            _flatten(part, f"{key}.{name}" if key else str(name), prefixes, into)


def _prefixes(paths: dict[str, Any]) -> list[tuple[str, str]]:
    """Every value of `paths` with the interpolation that it came from, the longest first."""
    found = [(value, f"${{paths.{key}}}") for key, value in paths.items() if isinstance(value, str) and value]
    return sorted(found, key=lambda pair: (-len(pair[0]), pair[1]))


def _without_paths(value: Any, prefixes: list[tuple[str, str]]) -> Any:
    """Undo the interpolation of `paths`, which may differ from job to job and says nothing of the method."""
    if isinstance(value, list):
        return [_without_paths(part, prefixes) for part in value]
    if isinstance(value, str):
        for path, name in prefixes:
            if value == path or value.startswith(f"{path.rstrip('/')}/"):
                return name + value[len(path.rstrip("/")) :]
    return value


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, sort_keys=True, ensure_ascii=False)
