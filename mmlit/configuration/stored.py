"""The configuration that lies in a checkpoint, made safe to build objects from."""

from copy import deepcopy
from pathlib import Path
from typing import Any

from mmlit.configuration.binding import require_known_targets
from mmlit.results.added import completed

CONF = Path(__file__).resolve().parents[2] / "conf"


def stored_config(checkpoint: dict[str, Any], *, path: str | Path) -> dict[str, Any]:
    """A checkpoint's resolved configuration as plain containers, without the weight files that its towers began with.

    The checkpoint holds all weights, so those files need not be there any more; a Hugging Face tower still needs its
    directory, or the hub, for its configuration and its tokenizer or preprocessing.

    Raises:
        ValueError: if it names a class that no file of `conf/` does: the code of a stranger is not run.
    """
    config: dict[str, Any] = deepcopy(checkpoint["mmlit"]["origin"]["config"])
    if absent := [part for part in ("image_encoder", "text_encoder", "alignment", "evaluator") if not config.get(part)]:
        raise ValueError(f"checkpoint={path}: its configuration has no {', '.join(absent)}")
    # where curves went, on which devices, what frozen towers said: nothing that is read from a checkpoint
    for part in ("logger", "trainer", "features"):
        config.pop(part, None)
    require_known_targets(config, CONF, source=f"checkpoint={path}")
    for tower in ("image_encoder", "text_encoder"):
        if "weights" in config[tower]:
            config[tower]["weights"] = None
        elsewhere = checkpoint["mmlit"]["origin"].get("directories", {}).get(tower)
        if elsewhere and not Path(config[tower]["name"]).expanduser().is_dir():
            config[tower]["name"] = elsewhere  # the name was relative to the folder of the training
    for part in ("image_encoder", "text_encoder", "alignment", "evaluator"):
        config[part] = completed(config[part])
    return config


def local_directories(config: dict[str, Any]) -> dict[str, str]:
    """Where a tower's `name` is a directory: its absolute path, so that a checkpoint is read from anywhere here."""
    names = {tower: config[tower].get("name") for tower in ("image_encoder", "text_encoder")}
    paths = {tower: Path(name).expanduser() for tower, name in names.items() if isinstance(name, str)}
    return {tower: str(path.resolve()) for tower, path in paths.items() if path.is_dir()}
