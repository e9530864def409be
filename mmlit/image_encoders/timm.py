"""Image models of the timm library without their classifier."""

import difflib
import math
from typing import Any

import torch
from torch import Tensor

from mmlit.contracts import Encoded, ImageEncoder, ImageSpec
from mmlit.image_encoders.dry_run import shapes, unreached
from mmlit.layers.pretrained import quiet
from mmlit.layers.weights import first_line, is_weight_file, load_exactly, read_weights


class TimmEncoder(ImageEncoder):
    """A timm model: tokens are its features without class and register tokens, pooled is what its classifier would see.

    Size, resizing, mean and std are those that timm keeps with the weights that `name` means. The classifier is
    dropped, and what the pooled vector does not depend on is not trained: they would be parameters without gradient.

    Args:
        name: timm's name of the model; its tag says which weights: `vit_small_patch16_224.augreg_in21k_ft_in1k`.
        weights: null for random ones; `pretrained` for those that `name` means, fetched once; or a `.safetensors`,
            `.pt` or `.pth` file with the model's state dict in timm's own spelling, with or without classifier.
        freeze: whether nothing moves, batch-norm statistics included.

    Raises:
        FileNotFoundError: if the weight file does not exist.
        ValueError: if timm is not installed, does not know the name or cannot obtain the weights, they do not fit, the
            model has no square grid of tokens as wide as its pooled vector, or its preprocessing cannot be followed.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, *, name: str, weights: str | None, freeze: bool) -> None:
        super().__init__()
        self.name = name
        self.backbone, preprocessing = _build(name, weights)
        spec = _spec(name, preprocessing)
        self.register_buffer("mean", torch.tensor(preprocessing["mean"]).view(3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(preprocessing["std"]).view(3, 1, 1), persistent=False)
        self.spec = spec._replace(dim=_width(self, name, spec.size))
        if freeze:
            self.freeze()
            self.backbone.to(memory_format=torch.channels_last)
        else:
            # Several devices fail on a trained parameter that an alignment of pooled vectors gives no gradient.
            idle = unreached(self, spec.size)
            for key, parameter in self.named_parameters():
                parameter.requires_grad_(key not in idle)

    def extra_repr(self) -> str:
        """The settings that neither the spec nor the weights tell."""
        return f"{self.name}, mean={self.mean.flatten().tolist()}, std={self.std.flatten().tolist()}"

    def forward(self, pixels: Tensor) -> Encoded:
        """See `ImageEncoder.forward`; tokens row by row from the top left, mask all True."""
        pixels = (pixels.to(self.mean.dtype) / 255 - self.mean) / self.std
        # Convolutions of this layout are faster; but with it, on a CPU, torch 2.15 corrupts memory in the backward pass
        # of a 1 × 1 convolution of three channels (FastViT).
        if self.frozen or pixels.is_cuda:
            pixels = pixels.contiguous(memory_format=torch.channels_last)
        features = self.backbone.forward_features(pixels)
        tokens = _tokens(self.backbone, features)
        pooled = self.backbone.forward_head(features, pre_logits=True)
        return Encoded(tokens, pooled, torch.ones(tokens.shape[:2], dtype=torch.bool, device=tokens.device))


def _build(name: str, weights: str | None) -> tuple[Any, dict[str, Any]]:
    """A model without its classifier, and how timm prepares pictures for it."""
    try:
        import timm
        from timm.data import resolve_model_data_config
    except ImportError as error:
        raise ValueError(f"name={name} needs the timm library: pip install -e '.[timm]'") from error
    if weights not in (None, "pretrained") and not is_weight_file(weights):
        raise ValueError(f"weights must be null, pretrained, or a .safetensors, .pt or .pth file, got {weights}")
    tensors = read_weights(weights) if weights not in (None, "pretrained") else None
    if ":" not in name and not timm.is_model(name):  # with a colon: from the hub or a directory
        near = difflib.get_close_matches(name, timm.list_models(), n=3)
        raise ValueError(f"name={name}: timm has no such model{'; near: ' + ', '.join(near) if near else ''}")
    try:
        with quiet(name):
            model = timm.create_model(name, pretrained=weights == "pretrained")
    except Exception as error:  # of timm, the hub's client and readers of several formats
        raise ValueError(f"name={name}, weights={weights}: timm cannot make it: {first_line(error)}") from error
    keys = set(model.state_dict())
    model.reset_classifier(0)
    if tensors is not None:
        dropped = keys - set(model.state_dict())
        load_exactly(model, tensors, source=f"weights={weights} for name={name}", dropped=dropped)
    return model, resolve_model_data_config(model)


def _spec(name: str, preprocessing: dict[str, Any]) -> ImageSpec:
    """Timm's evaluation transform as a spec whose `dim` is not known yet.

    Source: `timm.data.transforms_factory.transforms_imagenet_eval`.
    """
    channels, height, width = preprocessing["input_size"]
    interpolation, mode = preprocessing["interpolation"], preprocessing["crop_mode"]
    resize_to = math.floor(height / preprocessing["crop_pct"])
    followed = (
        (channels == 3 and height == width)
        and interpolation in ("bilinear", "bicubic", "lanczos")
        and ((mode == "center" and resize_to >= height) or (mode == "squash" and resize_to == height))
    )
    if not followed:
        raise ValueError(f"name={name}: pictures cannot be prepared as timm does: {preprocessing}")
    if mode == "squash":
        return ImageSpec(0, height, "squash", interpolation)
    return ImageSpec(0, height, "crop", interpolation, resize_to)


def _width(encoder: TimmEncoder, name: str, size: int) -> int:
    """D, the same for tokens and pooled."""
    try:
        (_, num_tokens, width), pooled = shapes(encoder, size)
    except RuntimeError as error:
        raise ValueError(f"name={name} cannot take pictures of {size} px: {first_line(error)}") from error
    if num_tokens < 4 or math.isqrt(num_tokens) ** 2 != num_tokens:
        raise ValueError(f"name={name} gives {num_tokens} tokens, no square grid of patches")
    if pooled != (1, width):
        raise ValueError(f"name={name}: its tokens are {width} wide, but pooled is {pooled[-1]}")
    return width


def _tokens(model: Any, features: Any) -> Tensor:
    """What `forward_features` gives, a grid or a sequence, as patches (N,P,D)."""
    if not isinstance(features, Tensor) or features.ndim not in (3, 4):
        raise ValueError(f"{type(model).__name__} of timm gives no single grid of tokens")
    if features.ndim == 3:
        return features[:, getattr(model, "num_prefix_tokens", 0) :]
    if getattr(model, "output_fmt", "NCHW") == "NHWC":
        return features.flatten(1, 2)
    return features.flatten(2).transpose(1, 2)
