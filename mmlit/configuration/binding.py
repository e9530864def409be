"""Checks a configuration against the classes it names, before anything is read or built."""

import importlib
import inspect
import re
import typing
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from pydantic import ConfigDict, TypeAdapter, ValidationError

#: what `run` passes to each group's class beside its yaml
RUNTIME: dict[str, frozenset[str]] = {
    "alignment": frozenset({"image", "text"}),
    "auxiliary.*": frozenset({"image", "width"}),
    "data": frozenset({"seed", "split", "image", "text", "batching", "reading", "cache", "further"}),
    "data.source": frozenset({"root"}),
    "evaluator": frozenset({"score", "coarse", "max_text_tokens"}),
    "evaluator.truths.*": frozenset({"root", "split"}),
    "optimizer": frozenset({"params"}),
    "schedule": frozenset({"optimizer", "total_steps"}),
    "trainer": frozenset({"logger", "callbacks", "default_root_dir"}),
    "logger.csv": frozenset({"run"}),
    "logger.tensorboard": frozenset({"run"}),
    "logger.wandb": frozenset({"run"}),
    "logger.mlflow": frozenset({"run"}),
    "callbacks.checkpoint": frozenset({"dirpath"}),
}
#: types of the options that belong to no class
TOP_LEVEL: dict[str, Any] = {
    "seed": int,
    "fit": bool,
    "checkpoint": str | None,
    "split": str | None,
    "trials": int | None,
    "resume_minutes": float,
}
#: keys of Hydra's own in a node that names a class
SPECIAL = ("_target_", "_partial_", "_convert_", "_args_", "_recursive_")


_TARGET = re.compile(r"^\s*(?:- )?_target_:\s*([\w.]+)\s*$", re.MULTILINE)


def problems(config: Mapping[str, Any]) -> list[str]:
    """Every wrong key, missing value and wrong type of a configuration, one line each."""
    found = [
        f"{key}: {wrong}, got {config[key]!r}"
        for key, hint in TOP_LEVEL.items()
        if key in config and (wrong := _wrong_type(hint, config[key]))
    ]
    if type(config.get("seed")) is int and config["seed"] < 0:
        found.append(f"seed: must be >= 0, got {config['seed']}")
    if type(config.get("resume_minutes")) in (int, float) and not config["resume_minutes"] > 0:
        found.append(f"resume_minutes: must be > 0, got {config['resume_minutes']}")
    for path, node in targets(config):
        try:
            found += _check(path, node)
        except (ImportError, AttributeError) as error:
            found.append(f"{path}._target_: {node['_target_']} cannot be found: {error}")
    return found


def targets(config: Mapping[str, Any], path: str = "") -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Every node with a `_target_`, with its dotted path."""
    if "_target_" in config:
        yield path, config
    for key, value in config.items():
        yield from _targets_in(value, f"{path}.{key}" if path else str(key))


def _targets_in(value: Any, path: str) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Also inside lists: Hydra looks there, too."""
    if isinstance(value, Mapping):
        yield from targets(value, path)
    elif isinstance(value, list | tuple):
        for place, entry in enumerate(value):
            yield from _targets_in(entry, f"{path}.{place}")


def locate(target: str) -> Any:
    """The class or function that a dotted path names."""
    module, _, name = target.rpartition(".")
    return getattr(importlib.import_module(module), name)


def require_known_targets(config: Mapping[str, Any], conf: Path, *, source: str) -> None:
    """A configuration that came with weights may only name classes that the project's own yaml files name.

    Raises:
        ValueError: naming the first class that none of them does; or if there are unnamed arguments or interpolations.
    """
    if "${" in repr(config):  # it was resolved when it was stored; a resolver could make a node out of a string
        raise ValueError(f"{source} holds an interpolation (${{...}}) in its configuration: refused")
    known = {target for file in conf.rglob("*.yaml") for target in _TARGET.findall(file.read_text())}
    for path, node in targets(config):
        if "_args_" in node:
            raise ValueError(f"{source} gives {path} arguments without names (_args_): refused")
        if node["_target_"] not in known:
            raise ValueError(
                f"{source} names {path}._target_={node['_target_']}, which no file of {conf.name}/ does: refused"
            )


def _check(path: str, node: Mapping[str, Any]) -> Iterator[str]:
    callable_ = locate(node["_target_"])
    parameters = inspect.signature(callable_).parameters
    # entries of a list, and auxiliaries, are passed the same
    runtime = RUNTIME.get(re.sub(r"\.\d+|(?<=^auxiliary)\.\w+$", ".*", path), frozenset())
    given = {key: value for key, value in node.items() if key not in SPECIAL}
    takes_any = any(parameter.kind is inspect.Parameter.VAR_KEYWORD for parameter in parameters.values())
    unknown = [key for key in given if key in runtime or (key not in parameters and not takes_any)]
    if len(unknown) > 3:  # those of another class, which an experiment sets
        yield f"{path}: {node['_target_']} has no options {', '.join(unknown)}"
    else:
        yield from (f"{path}.{key}: {node['_target_']} has no such option" for key in unknown)
    for key, parameter in parameters.items():
        variadic = parameter.kind in (inspect.Parameter.VAR_KEYWORD, inspect.Parameter.VAR_POSITIONAL)
        if parameter.default is inspect.Parameter.empty and not variadic and key not in given and key not in runtime:
            yield f"{path}.{key}: missing, {node['_target_']} needs it"
    hints = _hints(callable_)
    for key, value in given.items():
        if key in hints and (wrong := _wrong_type(hints[key], value)):
            yield f"{path}.{key}: {wrong}, got {value!r}"


def _hints(callable_: Any) -> dict[str, Any]:
    """Types of a signature. Some third-party signatures name types that exist only for type checkers: no types then."""
    try:
        return typing.get_type_hints(callable_.__init__ if inspect.isclass(callable_) else callable_)
    except NameError:
        return {}


def _wrong_type(hint: Any, value: Any) -> str | None:
    if isinstance(value, Mapping) and "_target_" in value:
        return None  # becomes an object
    if value == "???":
        return "must be given"
    adapter = TypeAdapter(hint, config=ConfigDict(arbitrary_types_allowed=True, strict=True))
    if isinstance(value, list):
        value = [entry for entry in value if not (isinstance(entry, Mapping) and "_target_" in entry)]
    # a list in yaml may stand for a list or for a tuple
    candidates = [value, tuple(value)] if isinstance(value, list) else [value]
    for candidate in candidates:
        try:
            adapter.validate_python(candidate)
        except ValidationError as error:
            wrong = "; or ".join(sorted({problem["msg"][0].lower() + problem["msg"][1:] for problem in error.errors()}))
        else:
            return None
    return wrong
