"""What a tracker is told of the run that it shows."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

Leaf = bool | int | float | str


class TrackedRun(NamedTuple):
    """A run as dashboards name it.

    `directory` is its folder, whose name is the run's; `group` the sweep's name; `job_type` the alignment; `choices`
    say what was chosen on each axis of comparison; `parameters` are the resolved configuration and the code, flat. A
    run that goes on where it was killed has done `resumed_step` optimizer steps; None: it begins anew, and what an
    earlier run of this folder left is removed.
    """

    directory: Path
    group: str
    job_type: str
    choices: dict[str, str]
    parameters: dict[str, Leaf]
    resumed_step: int | None

    @property
    def name(self) -> str:
        """The folder's name, which no other configuration has."""
        return self.directory.name


def flattened(config: Mapping[str, Any]) -> dict[str, Leaf]:
    """The leaves of nested containers under dotted keys; lists and null as JSON, classes (`_target_`) left out."""
    found: dict[str, Leaf] = {}
    for key, value in config.items():
        if str(key).startswith("_"):
            continue
        if isinstance(value, Mapping) and value:
            found |= {f"{key}.{below}": leaf for below, leaf in flattened(value).items()}
        else:
            found[str(key)] = value if isinstance(value, Leaf) else json.dumps(value)
    return found
