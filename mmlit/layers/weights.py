"""Weight files: read without running code in them, loaded whole or refused by name."""

import pickle
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from textwrap import shorten

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

_SUFFIXES = (".safetensors", ".pt", ".pth")
#: keys that a message spells out
_NUM_SPELT = 5


def is_weight_file(weights: str) -> bool:
    """Whether `weights` means a file rather than a name."""
    return weights.endswith(_SUFFIXES)


def read_weights(path: str) -> dict[str, Tensor]:
    """The tensors of a `.safetensors`, `.pt` or `.pth` file by key, on the CPU.

    Raises:
        FileNotFoundError: if there is none.
        ValueError: if it cannot be read, or is not a flat table of tensors.
    """
    file = Path(path).expanduser()
    if not file.is_file():
        raise FileNotFoundError(f"weights={path}: no such file")
    try:
        weights = load_file(file) if file.suffix == ".safetensors" else _read_pickle(file)
    except (SafetensorError, RuntimeError, EOFError, OSError, ValueError) as error:
        raise ValueError(f"weights={path} cannot be read: {first_line(error)}") from error
    if not (isinstance(weights, dict) and weights and all(isinstance(value, Tensor) for value in weights.values())):
        found = f"entries {spell(weights)}" if isinstance(weights, dict) else f"a {type(weights).__name__}"
        raise ValueError(f"weights={path} must be a state dict, keys to tensors; it holds {found}")
    return weights


def load_exactly(module: nn.Module, weights: Mapping[str, Tensor], *, source: str, dropped: Collection[str]) -> None:
    """Loads all of `weights` but the keys `dropped` into `module`, in the module's own precision.

    Raises:
        ValueError: naming `source` and the keys that are missing, unexpected or of another shape.
    """
    own = module.state_dict()
    kept = {key: value for key, value in weights.items() if key not in dropped}
    misshapen = [
        f"{key} {list(value.shape)} instead of {list(own[key].shape)}"
        for key, value in kept.items()
        if key in own and value.shape != own[key].shape
    ]
    require_fit(source, missing=(), unexpected=(), misshapen=misshapen)
    # Not strict, because what it returns can be told better; batch norm fills in the step count of old files itself.
    result = module.load_state_dict(kept, strict=False)
    require_fit(source, missing=result.missing_keys, unexpected=result.unexpected_keys, misshapen=())


def require_fit(
    source: str, *, missing: Collection[str], unexpected: Collection[str], misshapen: Collection[str]
) -> None:
    """Refuses weights that are not exactly those of the model.

    Raises:
        ValueError: naming `source`, and of each kind how many keys there are and the first of them.
    """
    kinds = {"missing": missing, "unexpected": unexpected, "of another shape": misshapen}
    told = [f"{len(keys)} {kind} ({spell(keys)})" for kind, keys in kinds.items() if keys]
    if told:
        raise ValueError(f"{source} does not fit the model, keys: {'; '.join(told)}")


def spell(keys: Iterable[object]) -> str:
    """The first keys in alphabetical order; `…` stands for the rest."""
    names = sorted(map(str, keys))
    return ", ".join(names[:_NUM_SPELT]) + (", …" if len(names) > _NUM_SPELT else "")


def first_line(error: Exception) -> str:
    """What went wrong, in so few words that it fits into a line of ours."""
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return shorten(lines[0], 200, placeholder=" …")


def _read_pickle(file: Path) -> object:
    try:
        return torch.load(file, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, KeyError, AttributeError, IndexError) as error:
        # torch's own messages advise to load the file unsafely, or are the bare number of an opcode
        raise ValueError("it is damaged or holds more than tensors and plain containers") from error
