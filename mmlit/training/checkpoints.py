"""Reading checkpoints that this project wrote; weights and plain containers, never code."""

from pathlib import Path
from typing import Any

import torch
from torch import nn

from mmlit.layers.weights import load_exactly
from mmlit.training.module import CHECKPOINT_VERSION

_AUXILIARIES = "auxiliaries."


class DamagedCheckpointError(ValueError):
    """The file is truncated, or holds more than weights and plain containers."""


def read_checkpoint(path: str | Path) -> dict[str, Any]:
    """A checkpoint as plain containers, its `mmlit` part checked.

    Raises:
        FileNotFoundError: if there is none.
        DamagedCheckpointError: if it is truncated, or holds more than weights and plain containers.
        ValueError: if mmlit did not write it, or another version of it.
    """
    if not Path(path).is_file():
        raise FileNotFoundError(f"checkpoint={path}: no such file")
    try:
        checkpoint = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a damaged or foreign file can raise anything, and torch's advice is to trust it
        raise DamagedCheckpointError(
            f"checkpoint={path} cannot be read: it is damaged, or holds more than weights and plain containers"
        ) from error
    own = checkpoint.get("mmlit") if isinstance(checkpoint, dict) else None
    if not isinstance(own, dict):
        raise ValueError(f"checkpoint={path} was not written by mmlit (no entry 'mmlit' in it)")
    if own.get("version") != CHECKPOINT_VERSION:
        raise ValueError(
            f"checkpoint={path} has format version {own.get('version')}, this mmlit reads version {CHECKPOINT_VERSION}"
        )
    return checkpoint


def load_weights(module: nn.Module, checkpoint: dict[str, Any], *, path: str | Path) -> None:
    """Loads all weights of a run into a module of the same make; auxiliaries, which only train, stay as they are.

    Raises:
        ValueError: listing missing, unexpected and wrongly shaped keys.
    """
    own = {key: value for key, value in module.state_dict().items() if key.startswith(_AUXILIARIES)}
    weights = {key: value for key, value in checkpoint["state_dict"].items() if not key.startswith(_AUXILIARIES)}
    load_exactly(module, weights | own, source=f"checkpoint={path}", dropped=())
