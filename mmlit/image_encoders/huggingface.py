"""Vision towers of the Hugging Face hub, or of a directory in its layout, with the preprocessing that lies beside."""

import math
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn

from mmlit.contracts import Encoded, ImageEncoder, ImageSpec
from mmlit.layers.clip_pooling import can_pool, pooled_state
from mmlit.layers.pretrained import (
    UNUSED,
    Half,
    digest,
    is_directory,
    is_pair,
    obtain,
    obtain_config,
    obtain_half,
    obtain_tower,
    quiet,
)
from mmlit.layers.similarity import pooled_only


class HuggingFaceImageEncoder(ImageEncoder):
    """A vision tower; size, resizing, interpolation, mean and standard deviation are read, never set.

    Tokens are the patches behind the tower's final norm, without class, distillation and register tokens. Pooled is
    what the authors use: the class token behind that norm (ViT, DINOv2, CLIP, …), SigLIP's attention pooling, or the
    mean of the grid (Swin, ConvNeXT, ResNet). Of a CLIP or SigLIP checkpoint the text half is not kept.

    Args:
        name: a directory (nothing is fetched then), or a name on the Hugging Face hub; of a model type in `FAMILIES`.
        weights: `pretrained` for those that belong to `name`; null for random ones; or a `.safetensors`, `.pt` or
            `.pth` file with a state dict for the model that `name` describes.
        projection: whether tokens and pooled go through CLIP's own visual projection; no other family has one.
        freeze: whether nothing moves, batch-norm statistics included.

    Raises:
        FileNotFoundError: if the weight file does not exist.
        ValueError: if `name` is neither a directory nor obtainable, or of another model type; its preprocessing is
            missing, cannot be had from an `ImageSpec`, or is of another size than the tower; the weights do not fit;
            or a projection is asked for and there is none.

    Differs: a picture is cropped by `mmlit.data.decode`, as by torchvision, with which CLIP and DINOv2 were trained;
    where an odd number of pixels is cut, the library's processors may begin one pixel earlier.
    """

    mean: Tensor
    std: Tensor
    projection: nn.Linear | None

    def __init__(self, *, name: str, weights: str | None, projection: bool, freeze: bool) -> None:
        super().__init__()
        with quiet(name):
            config = _obtain_config(name)
            self.family = FAMILIES[config.model_type]
            preprocessing = _read_preprocessing(name, self.family)
            half = _obtain(name, config, weights, self.family, projection)
        self.tower, config, self.projection = half
        self._pool = self.family.pool if self.family.pool and can_pool(self.tower.encoder) else None
        _check_size(config, preprocessing.size, self.family, name=name)
        self.register_buffer("mean", torch.tensor(preprocessing.mean).view(3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(preprocessing.std).view(3, 1, 1), persistent=False)
        self._settings = digest(config)
        dim = config.hidden_size if hasattr(config, "hidden_size") else config.hidden_sizes[-1]
        self.spec = ImageSpec(
            dim=dim if self.projection is None else self.projection.out_features,
            size=preprocessing.size,
            resize=preprocessing.resize,
            interpolation=preprocessing.interpolation,
            resize_to=preprocessing.resize_to,
        )
        self.train()  # the library hands towers over in evaluation mode, and Lightning leaves modes as they are
        if freeze:
            self.freeze()

    def extra_repr(self) -> str:
        """The settings that neither the spec nor the weights tell; those of the tower as a digest."""
        statistics = f"mean={self.mean.flatten().tolist()}, std={self.std.flatten().tolist()}"
        return f"projection={self.projection is not None}, {statistics}, settings={self._settings}"

    def forward(self, pixels: Tensor) -> Encoded:
        """See `ImageEncoder.forward`; tokens row by row from the top left, mask all True."""
        pixels = (pixels.to(self.mean.dtype) / 255 - self.mean) / self.std
        if self._pool is not None and not self.needs_tokens:
            pooled = self._pool(self.tower, pixels)
            return pooled_only(pooled if self.projection is None else self.projection(pooled))
        tokens, pooled = self.family.encode(self.tower, pixels)
        if self.projection is not None:
            tokens, pooled = self.projection(tokens), self.projection(pooled)
        return Encoded(tokens, pooled, torch.ones(tokens.shape[:2], dtype=torch.bool, device=tokens.device))


class Family(NamedTuple):
    """How the towers of one model type are used.

    `encode(tower, normalized pixels)` gives tokens (N,P,D) and pooled (N,D). `processor` is the kind of preprocessing
    where its file does not tell. `any_size`: the tower takes pictures of other sizes than the one in its
    configuration, by design. `unused` are parts that are dropped. `pool` gives pooled alone, where that is less work.
    """

    encode: Callable[[Any, Tensor], tuple[Tensor, Tensor]]
    processor: str
    any_size: bool = False
    unused: frozenset[str] = UNUSED
    pool: Callable[[Any, Tensor], Tensor] | None = None


def _class_token(tower: Any, pixels: Tensor) -> tuple[Tensor, Tensor]:
    states = tower(pixel_values=pixels).last_hidden_state
    return states[:, 1 + getattr(tower.config, "num_register_tokens", 0) :], states[:, 0]


def _deit(tower: Any, pixels: Tensor) -> tuple[Tensor, Tensor]:
    states = tower(pixel_values=pixels).last_hidden_state
    return states[:, 2:], states[:, 0]  # the second is the distillation token


def _beit(tower: Any, pixels: Tensor) -> tuple[Tensor, Tensor]:
    """Where the norm stands behind the mean of the patches, patches go through it, too."""
    output, norm = tower(pixel_values=pixels), tower.pooler.layernorm
    patches = output.last_hidden_state[:, 1:]
    return patches if norm is None else norm(patches), output.pooler_output


def _clip(tower: Any, pixels: Tensor) -> tuple[Tensor, Tensor]:
    """The final norm is made for the class token; patches go through it, too."""
    states = tower.post_layernorm(tower(pixel_values=pixels).last_hidden_state)
    return states[:, 1:], states[:, 0]


def _clip_class_token(tower: Any, pixels: Tensor) -> Tensor:
    states = tower.pre_layrnorm(tower.embeddings(pixels))
    place = torch.zeros(len(states), dtype=torch.int64, device=states.device)
    return tower.post_layernorm(pooled_state(tower.encoder, states, place, causal=False))


def _siglip(tower: Any, pixels: Tensor) -> tuple[Tensor, Tensor]:
    output = tower(pixel_values=pixels)
    return output.last_hidden_state, output.pooler_output


def _swin(tower: Any, pixels: Tensor) -> tuple[Tensor, Tensor]:
    tokens = tower(pixel_values=pixels).last_hidden_state
    return tokens, tokens.mean(1)


def _convolutional(tower: Any, pixels: Tensor) -> tuple[Tensor, Tensor]:
    """ConvNeXT's norm stands behind the mean of the grid; tokens go through it, too."""
    tokens = tower(pixel_values=pixels).last_hidden_state.flatten(2).transpose(1, 2)
    norm = getattr(tower, "layernorm", None)
    return (tokens, tokens.mean(1)) if norm is None else (norm(tokens), norm(tokens.mean(1)))


#: by model type
FAMILIES: Mapping[str, Family] = {
    "vit": Family(_class_token, "ViT"),
    "vit_msn": Family(_class_token, "ViT"),
    "deit": Family(_deit, "DeiT"),
    "dinov2": Family(_class_token, "Bit", any_size=True),
    "dinov2_with_registers": Family(_class_token, "Bit", any_size=True),
    "beit": Family(_beit, "Beit", unused=frozenset({"mask_token"})),
    "swin": Family(_swin, "ViT"),
    "convnext": Family(_convolutional, "ConvNext", any_size=True),
    "convnextv2": Family(_convolutional, "ConvNext", any_size=True),
    "resnet": Family(_convolutional, "ConvNext", any_size=True, unused=frozenset()),
    "clip": Family(_clip, "CLIP", pool=_clip_class_token),
    "clip_vision_model": Family(_clip, "CLIP", pool=_clip_class_token),
    "siglip": Family(_siglip, "Siglip"),
    "siglip_vision_model": Family(_siglip, "Siglip"),
}


def _obtain_config(name: str) -> Any:
    config = obtain_config(name)
    if config.model_type not in FAMILIES:
        raise ValueError(
            f"name={name} is a {config.model_type} model: none of the vision towers that can be used, "
            f"{', '.join(FAMILIES)}"
        )
    return config


def _obtain(name: str, config: Any, weights: str | None, family: Family, projection: bool) -> Half:
    if is_pair(config, "vision"):
        half = obtain_half(name, config, weights, side="vision", projection=projection)
        if not getattr(half.config, "vision_use_head", True):
            raise ValueError(f"name={name} has no head that pools its patches")
        return half
    if projection:
        raise ValueError(f"projection=true: name={name} is a {config.model_type} model without a visual projection")
    return Half(obtain_tower(name, config, weights, unused=family.unused), config, None)


def _check_size(config: Any, size: int, family: Family, *, name: str) -> None:
    """Refuses preprocessing for pictures that the tower was not made for."""
    if config.num_channels != 3:
        raise ValueError(f"name={name}: the tower takes pictures of {config.num_channels} channels, not 3")
    own = getattr(config, "image_size", None)
    sides = {*own} if isinstance(own, list | tuple) else {own}
    if not family.any_size and sides != {size}:
        raise ValueError(
            f"name={name}: its preprocessing makes pictures of {size} px, its tower takes {own}; "
            "they do not belong together"
        )
    patch = getattr(config, "patch_size", 1)
    if isinstance(patch, int) and size % patch:
        raise ValueError(f"name={name}: its preprocessing makes pictures of {size} px, its patches have {patch}")


class Preprocessing(NamedTuple):
    """What a directory says of the pictures that its weights have seen; the fields are those of `ImageSpec`."""

    size: int
    resize: Literal["squash", "crop"]
    resize_to: int | None
    interpolation: Literal["bilinear", "bicubic", "lanczos"]
    mean: tuple[float, float, float]
    std: tuple[float, float, float]


#: the library's processors whose settings mean what is read here
_PROCESSORS = frozenset({"Beit", "Bit", "CLIP", "ConvNext", "DeiT", "Siglip", "ViT"})
_KIND = re.compile(r"(\w+?)(?:ImageProcessor|FeatureExtractor)(?:Fast|Pil)?")
_INTERPOLATION: Mapping[Any, Any] = {1: "lanczos", 2: "bilinear", 3: "bicubic"}


def _read_preprocessing(name: str, family: Family) -> Preprocessing:
    """From the settings beside the weights, completed by the defaults of the processor that they are for."""
    import transformers

    files = ("preprocessor_config.json", "processor_config.json")
    if is_directory(name) and not any((Path(name).expanduser() / file).is_file() for file in files):
        raise ValueError(f"name={name} has no preprocessor_config.json: how its pictures were prepared is not known")
    settings, _ = obtain(name, transformers.ImageProcessingMixin.get_image_processor_dict)
    told = settings.get("image_processor_type") or settings.get("feature_extractor_type")
    found = _KIND.fullmatch(told or f"{family.processor}ImageProcessor")
    if found is None or found[1] not in _PROCESSORS:
        raise ValueError(f"name={name}: preprocessing by {told} is none of {', '.join(sorted(_PROCESSORS))}")
    processor = getattr(transformers, f"{found[1]}ImageProcessor").from_dict(settings)
    problem = _problem(settings, processor)
    if problem:
        raise ValueError(f"name={name}: its preprocessing cannot be had here: {problem}")
    size, resize, resize_to = _geometry(name, processor, found[1])
    mean, std = (processor.image_mean, processor.image_std) if processor.do_normalize else ((0.0,) * 3, (1.0,) * 3)
    return Preprocessing(size, resize, resize_to, _INTERPOLATION[int(processor.resample)], (*mean,), (*std,))


def _problem(settings: Mapping[str, Any], processor: Any) -> str | None:
    """What an `ImageSpec` and a mean and standard deviation of three colours do not say."""
    if "size" not in settings:
        return "it names no size"
    if not processor.do_resize:
        return "do_resize=false"
    if not processor.do_rescale or not math.isclose(processor.rescale_factor, 1 / 255, rel_tol=1e-4):
        return f"do_rescale={processor.do_rescale}, rescale_factor={processor.rescale_factor} instead of 1/255"
    if int(processor.resample) not in _INTERPOLATION:
        return f"resample={int(processor.resample)}"
    statistics = (processor.image_mean, processor.image_std)
    if processor.do_normalize and not all(isinstance(part, list | tuple) and len(part) == 3 for part in statistics):
        return f"image_mean={statistics[0]}, image_std={statistics[1]}"
    return "do_pad=true" if getattr(processor, "do_pad", None) else None


def _geometry(name: str, processor: Any, kind: str) -> tuple[int, Literal["squash", "crop"], int | None]:
    """Size, resize and resize_to of an `ImageSpec`."""
    given: dict[str, int] = dict(processor.size)
    crop: dict[str, int] | None = dict(processor.crop_size) if getattr(processor, "do_center_crop", None) else None
    if [*given] == ["shortest_edge"]:
        shorter = given["shortest_edge"]
        if kind == "ConvNext" and crop is None:
            if shorter >= 384:  # the library's rule
                return shorter, "squash", None
            crop, shorter = {"height": shorter, "width": shorter}, int(shorter / processor.crop_pct)
        if crop is not None and crop["width"] == crop["height"] <= shorter:
            return crop["height"], "crop", None if shorter == crop["height"] else shorter
    elif {*given} == {"height", "width"} and given["height"] == given["width"] and crop in (None, given):
        return given["height"], "squash", None
    raise ValueError(f"name={name}: its preprocessing cannot be had here: size={given}, center crop to {crop}")
