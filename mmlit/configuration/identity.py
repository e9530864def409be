"""Which run a configuration is."""

import json
from collections.abc import Mapping
from hashlib import sha256
from typing import Any


def config_hash(config: Mapping[str, Any]) -> str:
    """12 hex digits of a resolved configuration: the same options are the same run, whoever watches it where.

    A store of features changes no result unless it is asked for half the precision. What captions tell changes none
    either: augmentations that would contradict it are refused.
    """
    left_out = ("paths", "logger", "resume_minutes", "features")
    kept = {key: value for key, value in config.items() if key not in left_out}
    if "captions_tell" in kept.get("data", {}):
        kept["data"] = {key: value for key, value in kept["data"].items() if key != "captions_tell"}
    if (config.get("features") or {}).get("half"):
        kept["features"] = {"half": True}
    return sha256(json.dumps(kept, sort_keys=True).encode()).hexdigest()[:12]


def run_name(choices: Mapping[str, str | None], config: Mapping[str, Any]) -> str:
    """A folder name that says what the run is, and that no other configuration has."""
    return f"{choices['data']}-{choices['alignment']}-seed{config['seed']}-{config_hash(config)}"
