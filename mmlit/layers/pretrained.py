"""Models of the transformers library: from a directory or the hub, whole, without what is not used."""

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import nn

from mmlit.layers.weights import first_line, is_weight_file, read_weights, require_fit

#: what checkpoints hold beside the tower, by the first part of the key: heads of pre-training, dropped knowingly
_HEADS = frozenset({"pooler", "cls", "lm_head"})
#: tables of constants that checkpoints of old versions hold, by the last part of the key
_CONSTANTS = frozenset({"position_ids", "token_type_ids"})


def is_directory(name: str) -> bool:
    """Whether `name` is a directory; else it means a model on the hub."""
    return Path(name).expanduser().is_dir()


def obtain_tower(name: str, config: Any, weights: str) -> nn.Module:
    """The tower in fp32 without its pooler."""
    from transformers import AutoModel

    if weights == "random":
        tower = AutoModel.from_config(config).float()
    elif weights == "pretrained":
        tower = _loaded(f"name={name}", lambda **options: obtain(name, AutoModel.from_pretrained, **options), config)
    elif is_weight_file(weights):
        tensors = read_weights(weights)
        with torch.device("meta"):  # only its class is wanted: it knows how keys of older files are spelt today
            kind = type(AutoModel.from_config(config))
        source = f"weights={weights} for name={name}"
        tower = _loaded(source, lambda **options: kind.from_pretrained(None, state_dict=tensors, **options), config)
    else:
        raise ValueError(f"weights must be pretrained, random, or a .safetensors, .pt or .pth file, got {weights}")
    if getattr(tower, "pooler", None) is not None:
        tower.pooler = None
    return tower


def _loaded(source: str, load: Callable[..., Any], config: Any) -> nn.Module:
    """What `load` gives, if it used every weight and every weight was there."""
    tower, told = load(config=config, dtype=torch.float32, output_loading_info=True, ignore_mismatched_sizes=True)
    missing = [key for key in told["missing_keys"] if key.partition(".")[0] != "pooler"]
    unexpected = [
        key
        for key in told["unexpected_keys"]
        if key.partition(".")[0] not in _HEADS and key.rpartition(".")[2] not in _CONSTANTS
    ]
    # transformers 4 tells the key only, transformers 5 the key and both shapes
    misshapen = [
        entry if isinstance(entry, str) else f"{entry[0]} {list(entry[1])} instead of {list(entry[2])}"
        for entry in told["mismatched_keys"]
    ]
    require_fit(source, missing=missing, unexpected=unexpected, misshapen=misshapen)
    return tower


def obtain(name: str, load: Callable[..., Any], **options: Any) -> Any:
    """`load`, from the directory `name` or else from the hub, failing with one line."""
    local = is_directory(name)
    try:
        return load(str(Path(name).expanduser()) if local else name, local_files_only=local, **options)
    except Exception as error:  # readers of several libraries, and of other languages, with errors of their own
        reason = first_line(error)
        where = "cannot be read" if local else "is neither a directory nor obtainable from the Hugging Face hub"
        raise ValueError(f"name={name} {where}: {reason}") from error


@contextmanager
def quiet(name: str) -> Iterator[None]:
    """Keeps the libraries from reporting keys, retries and progress of their own: what is wrong is raised.

    The bar of a download stays.
    """
    from transformers.utils import logging as library

    hub, level, bars = logging.getLogger("huggingface_hub"), library.get_verbosity(), library.is_progress_bar_enabled()
    hub_level = hub.level
    library.set_verbosity_error()
    if is_directory(name):
        library.disable_progress_bar()
    hub.setLevel(logging.ERROR)
    try:
        yield
    finally:
        library.set_verbosity(level)
        hub.setLevel(hub_level)
        if bars:
            library.enable_progress_bar()
