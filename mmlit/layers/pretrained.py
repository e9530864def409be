"""Models of the transformers library: from a directory or the hub, whole, without what is not used."""

import logging
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from copy import deepcopy
from difflib import get_close_matches
from hashlib import sha256
from pathlib import Path
from typing import Any, Literal, NamedTuple

import torch
from torch import nn

from mmlit.layers.quick_gelu import quicken
from mmlit.layers.weights import first_line, is_weight_file, read_weights, require_fit

#: what checkpoints hold beside the tower, by the first part of the key: heads of pre-training and of fine-tuning
_HEADS = frozenset(
    {"cls", "lm_head", "head", "decoder", "vocab_transform", "vocab_layer_norm", "vocab_projector"}
    | {"classifier", "pre_classifier", "cls_classifier", "distillation_classifier", "qa_outputs"}
)
#: parts that our paths never use, by any part of the key: dropped, since they would be parameters without gradient.
#: Poolers are trained for another task than retrieval; a mask token stands in for patches hidden in pre-training.
UNUSED = frozenset({"pooler", "mask_token"})
#: tables of constants that checkpoints of old versions hold, by the last part of the key
_CONSTANTS = frozenset({"position_ids", "token_type_ids"})
#: by model type, how the library's classes of a contrastive pair are called
_PAIRS = {"clip": "CLIP", "siglip": "Siglip"}
#: what the file of a pair holds, by the first part of the key
_PAIR_KEYS = frozenset(
    {"vision_model", "text_model", "visual_projection", "text_projection", "logit_scale", "logit_bias"}
)
#: of a configuration, what says nothing of the output
_VOLATILE = frozenset({"_name_or_path", "architectures", "dtype", "torch_dtype", "transformers_version", "use_cache"})


class Half(NamedTuple):
    """One tower of a contrastive pair, its configuration, and its projection into the shared space if asked for."""

    tower: nn.Module
    config: Any
    projection: nn.Linear | None


def is_directory(name: str) -> bool:
    """Whether `name` is a directory; else it means a model on the hub."""
    return Path(name).expanduser().is_dir()


def obtain_config(name: str) -> Any:
    """What `name` says of its model."""
    from transformers import AutoConfig, SiglipTextConfig

    AutoConfig.register("siglip_text_model", SiglipTextConfig, exist_ok=True)  # transformers 4 does not know it
    return obtain(name, AutoConfig.from_pretrained)


def is_pair(config: Any, side: Literal["vision", "text"]) -> bool:
    """Whether a configuration is one of CLIP or SigLIP, of both towers or of this side's alone."""
    return config.model_type in {name for pair in _PAIRS for name in (pair, f"{pair}_{side}_model")}


def obtain_half(
    name: str, config: Any, weights: str | None, *, side: Literal["vision", "text"], projection: bool
) -> Half:
    """This side's tower of a CLIP or SigLIP checkpoint, of both towers or of this one; the other is not kept.

    Raises:
        ValueError: if a projection is asked for and there is none, or as `obtain_tower`.
    """
    pair = config.model_type.partition("_")[0]
    own = deepcopy(getattr(config, f"{side}_config", config))
    alone = own.model_type == config.model_type
    without = alone and f"{_PAIRS[pair]}{side.title()}Model" in (config.architectures or ())
    if projection and (pair != "clip" or without):
        raise ValueError(f"projection=true: name={name} is a {config.model_type} model without a {side} projection")
    if not alone and pair == "clip":
        own.projection_dim = config.projection_dim  # that of the sub-configuration is not maintained
    kind = f"{_PAIRS[pair]}{side.title()}Model{'WithProjection' if projection else ''}"
    key = "visual_projection" if side == "vision" else "text_projection"
    beside = _PAIR_KEYS - {f"{side}_model"} - ({key} if projection else set())
    whole = obtain_tower(name, own, weights, kind=kind, beside=beside)
    quicken(whole)
    return Half(getattr(whole, f"{side}_model", whole), own, getattr(whole, key) if projection else None)


def obtain_tower(
    name: str,
    config: Any,
    weights: str | None,
    *,
    kind: str | None = None,
    beside: Collection[str] = _HEADS,
    unused: Collection[str] = UNUSED,
) -> nn.Module:
    """The tower in fp32.

    Args:
        name: a directory, or a name on the hub.
        config: the tower's configuration.
        weights: `pretrained`, a file, or None for random ones.
        kind: the library's class; None: the one that belongs to `config`.
        beside: what the weights may hold beside the tower, by the first part of the key.
        unused: parts of the tower that are dropped, by name; they need not be among the weights.
    """
    import transformers

    given: Any = transformers.AutoModel if kind is None else getattr(transformers, kind)
    options: dict[str, Any] = {}
    if config.model_type == "modernbert":  # else it takes flash attention where that is installed, which has no CPU
        options["attn_implementation"] = "sdpa"
        config.reference_compile = False
    build: Any = given.from_config if kind is None else given
    strict = {"config": config, "dtype": torch.float32, "output_loading_info": True, "ignore_mismatched_sizes": True}
    if weights is None:
        tower = build(config, **options).float()
    elif weights == "pretrained":
        told = obtain(name, given.from_pretrained, **strict, **options)
        tower = _checked(told, f"name={name}", beside, unused)
    elif is_weight_file(weights):
        tensors = read_weights(weights)
        with torch.device("meta"):  # only its class is wanted: it knows how keys of older files are spelt today
            given = type(build(config, **options))
        told = given.from_pretrained(None, state_dict=tensors, **strict, **options)
        tower = _checked(told, f"weights={weights} for name={name}", beside, unused)
    else:
        raise ValueError(f"weights must be pretrained, null, or a .safetensors, .pt or .pth file, got {weights}")
    for module in list(tower.modules()):
        for part in unused:
            if getattr(module, part, None) is not None:
                setattr(module, part, None)
    return tower


def _checked(
    loaded: tuple[nn.Module, dict[str, Any]], source: str, beside: Collection[str], unused: Collection[str]
) -> nn.Module:
    """The tower, if every weight was used and every weight was there."""
    tower, told = loaded
    missing = [key for key in told["missing_keys"] if not set(key.split(".")) & set(unused)]
    unexpected = [
        key
        for key in told["unexpected_keys"]
        if key.partition(".")[0] not in beside
        and key.rpartition(".")[2] not in _CONSTANTS
        and not set(key.split(".")) & set(unused)
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
    if not local and _is_path(name):
        raise ValueError(f"name={name} is no directory{_nearest(name)}")
    try:
        # Said by name: left open, the library asks on a terminal whether it may run code that lies beside the weights.
        return load(
            str(Path(name).expanduser()) if local else name, local_files_only=local, trust_remote_code=False, **options
        )
    except Exception as error:  # readers of several libraries, and of other languages, with errors of their own
        reason = first_line(error)
        where = "cannot be read" if local else "is neither a directory nor obtainable from the Hugging Face hub"
        raise ValueError(f"name={name} {where}: {reason}") from error


def _is_path(name: str) -> bool:
    """Whether a name can only mean a directory: the hub has no such names, or its first part is a folder here."""
    return (
        name.startswith(("/", ".", "~")) or name.count("/") > 1 or ("/" in name and Path(name).parts[0] in _folders())
    )


def _folders() -> set[str]:
    return {path.name for path in Path().iterdir() if path.is_dir()}


def _nearest(name: str) -> str:
    parent = Path(name).expanduser().parent
    there = [path.name for path in parent.iterdir() if path.is_dir()] if parent.is_dir() else []
    near = get_close_matches(Path(name).name, there, n=1)
    return f"; did you mean {parent / near[0]}?" if near else ""


def digest(config: Any, *rules: bytes) -> str:
    """Of a tower's configuration and further rules: they change the output, and are no weights."""
    settings = {key: value for key, value in config.to_dict().items() if key not in _VOLATILE}
    return sha256(b"|".join([*rules, str(sorted(settings.items())).encode()])).hexdigest()[:16]


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
