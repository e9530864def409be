"""The command that makes a row again, from what its records say was typed."""

import shlex
from collections.abc import Sequence
from typing import NamedTuple

from mmlit.results.rows import Group
from mmlit.results.schema import Record

_PUBLISHED = (
    "image_encoder=",
    "text_encoder=",
    "alignment=contrastive",
    "alignment.image_head=identity",
    "alignment.text_head=identity",
)
"""What `mmlit evaluate` adds for a published pair."""


class Command(NamedTuple):
    """One row's commands; `whole` is False if its records do not say which configuration file they stand on."""

    lines: tuple[str, ...]
    whole: bool


def command(group: Group) -> Command:
    """One command for all seeds where they differ in the seed only, else one for each run."""
    records = group.records
    whole = all(record.launch is not None or record.config.get("fit") is False for record in records)
    lines = dict.fromkeys(line(record, [record.seed]) for record in records)
    together = {line(record, [each.seed for each in records]) for record in records}
    return Command(tuple(together) if len(together) == 1 else tuple(lines), whole)


def line(record: Record, seeds: Sequence[int]) -> str:
    """The command that makes a run with these seeds; of a sweep's job, the sweep narrowed to it."""
    if record.config.get("fit") is False:
        return _evaluation(record)
    words = ["python", "train.py"]
    launch = record.launch
    if launch is not None and (launch.config_dirs or launch.config_name != "config"):
        for folder in launch.config_dirs:
            words += ["--config-dir", folder]
        words += ["--config-name", launch.config_name]
    if len(seeds) > 1:
        words.append("-m")
    typed = [override for override in record.overrides if not override.startswith("seed=")]
    return shlex.join([*words, *typed, f"seed={','.join(map(str, seeds))}"])


def _evaluation(record: Record) -> str:
    """What was not trained: a checkpoint or a published pair, evaluated."""
    subject = record.config.get("checkpoint") or (record.config.get("image_encoder") or {}).get("name") or "RUN"
    left = ("fit=", "logger=", "checkpoint=", *(() if record.config.get("checkpoint") else _PUBLISHED))
    return shlex.join(["mmlit", "evaluate", str(subject), *(o for o in record.overrides if not o.startswith(left))])
