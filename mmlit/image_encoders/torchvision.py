"""Torchvision's classification backbones without their classifier."""

import math
import re
from collections.abc import Callable, Mapping
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmlit.contracts import Encoded, ImageEncoder, ImageSpec
from mmlit.image_encoders.dry_run import shapes
from mmlit.image_encoders.same_padding import pad_same
from mmlit.image_encoders.torchvision_families import Family, find
from mmlit.layers.weights import first_line, is_weight_file, load_exactly, read_weights

Triple = tuple[float, float, float]
#: DenseNet's published files spell `norm.1` what its layers have called `norm1` since
_DENSE_LAYER = re.compile(r"(denselayer\d+\.(?:norm|conv))\.([12]\.)")


class TorchvisionEncoder(ImageEncoder):
    """Any of torchvision's classification models: tokens are its last feature grid, pooled is the grid's mean.

    Pooled is what the classifier's first linear layer would have seen, be there one (ResNet, Swin, …) or more
    (MobileNetV3, MaxVit), with two exceptions: the first linear layer of AlexNet and VGG sees the grid laid out in a
    row, and SqueezeNet takes its mean behind the classifier. Where the head begins with a layer norm (ConvNeXt,
    MaxVit), it is applied to tokens and pooled. VisionTransformer: tokens are the patches and pooled is the class
    token, both behind the last norm. Classifier and auxiliary heads are dropped: they would be parameters without
    gradient.

    Args:
        name: torchvision's name of the model.
        weights: null for random ones; a name of torchvision's for this model (`IMAGENET1K_V2`, `DEFAULT`), fetched
            once; or a `.safetensors`, `.pt` or `.pth` file with the model's state dict, with or without classifier.
        size: picture side in px, ≥ 32; weights of a VisionTransformer are of one size.
        resize: see `mmlit.data.decode`.
        resize_to: for `resize=crop`, px of the shorter side before the middle is kept, ≥ `size`; null means `size`.
        interpolation: of resizing.
        mean: of red, green and blue in 0…1; pixels become (x/255 − mean)/std. Goes with the weights.
        std: of red, green and blue, > 0. Torchvision's weights of GoogLeNet and Inception3 need 0.5 in all of both.
        padding: `symmetric`, torchvision's own; or `same`, for weights that come from TensorFlow, whose convolutions
            with a stride pad more at the right and bottom. Goes with the weights.
        grid: tokens per side, averaged from the backbone's own grid (1 … its side), or None for that grid; `pooled` is
            not touched. The cost of attending to P tokens falls with P.
        freeze: whether nothing moves, batch-norm statistics included.

    Raises:
        FileNotFoundError: if the weight file does not exist.
        ValueError: if a name is unknown, a number out of range, the size or the weights do not fit the model, or
            weights of torchvision's were trained with another preprocessing.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        *,
        name: str,
        weights: str | None,
        size: int,
        resize: Literal["squash", "crop"],
        resize_to: int | None,
        interpolation: Literal["bilinear", "bicubic"],
        mean: Triple,
        std: Triple,
        padding: Literal["symmetric", "same"],
        grid: int | None,
        freeze: bool,
    ) -> None:
        super().__init__()
        _check_numbers(size, resize, resize_to, mean, std)
        self.name, self.padding, self.grid = name, padding, None
        self.register_buffer("mean", torch.tensor(mean).view(3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std).view(3, 1, 1), persistent=False)
        family, build = find(name)
        self.encode = family.encode
        spec = ImageSpec(0, size, resize, interpolation, resize_to)
        tensors = _read(name, family, weights, {**spec._asdict(), "mean": tuple(mean), "std": tuple(std)})
        self.backbone, dropped = _build(name, size, family, build)
        if padding == "same":
            pad_same(self.backbone)
        num_tokens, dim = _num_tokens_and_width(self, name, size)
        side = math.isqrt(num_tokens)
        if grid is not None and not 1 <= grid <= side:
            raise ValueError(f"grid must lie in 1 … {side} for size={size}, or be null; got {grid}")
        self.grid = grid
        self.spec = spec._replace(dim=dim)
        if tensors is not None:
            load_exactly(self.backbone, tensors, source=f"weights={weights} for name={name}", dropped=dropped)
        # On a CPU convolutions of this layout are faster by a fifth to a third.
        self.backbone.to(memory_format=torch.channels_last)
        if freeze:
            self.freeze()

    def extra_repr(self) -> str:
        """The settings that neither the spec nor the weights tell."""
        statistics = f"mean={self.mean.flatten().tolist()}, std={self.std.flatten().tolist()}"
        return f"{self.name}, padding={self.padding}, grid={self.grid}, {statistics}"

    def forward(self, pixels: Tensor) -> Encoded:
        """See `ImageEncoder.forward`; tokens row by row from the top left, mask all True."""
        pixels = (pixels.to(self.mean.dtype) / 255 - self.mean) / self.std
        tokens, pooled = self.encode(self.backbone, pixels.contiguous(memory_format=torch.channels_last))
        if self.grid is not None:
            own = tokens.transpose(1, 2).unflatten(2, (math.isqrt(tokens.shape[1]), -1))
            tokens = F.adaptive_avg_pool2d(own, self.grid).flatten(2).transpose(1, 2)
        return Encoded(tokens, pooled, torch.ones(tokens.shape[:2], dtype=torch.bool, device=tokens.device))


def _build(name: str, size: int, family: Family, build: Callable[..., nn.Module]) -> tuple[nn.Module, list[str]]:
    """What is kept of a model, with random weights, and the keys of what is not."""
    try:
        model = build(weights=None, **family.options(size))
    except (AssertionError, ValueError) as error:
        raise ValueError(f"size={size} does not suit name={name}: {first_line(error)}") from error
    keys = set(model.state_dict())
    body = family.body(model)
    return body, sorted(keys - set(body.state_dict()))


def _num_tokens_and_width(encoder: TorchvisionEncoder, name: str, size: int) -> tuple[int, int]:
    try:
        _, num_tokens, dim = shapes(encoder, size).tokens
    except RuntimeError as error:
        raise ValueError(f"size={size} does not suit name={name}: {first_line(error)}") from error
    return num_tokens, dim


def _read(name: str, family: Family, weights: str | None, ours: Mapping[str, object]) -> Mapping[str, Tensor] | None:
    """The tensors that `weights` means, under the names that torchvision's layers have today."""
    if weights is None:
        return None
    tensors = read_weights(weights) if is_weight_file(weights) else _fetch(name, weights, ours, family)
    return {_DENSE_LAYER.sub(r"\1\2", key): value for key, value in tensors.items()}


def _fetch(name: str, weights: str, ours: Mapping[str, object], family: Family) -> Mapping[str, Tensor]:
    """Torchvision's own weights, if the pictures will be prepared as its preset for them does."""
    from torchvision import models

    choices = models.get_model_weights(name).__members__
    if weights not in choices:
        raise ValueError(
            f"weights={weights} is neither a .safetensors, .pt or .pth file nor weights of torchvision's {name}, "
            f"which has {', '.join(choices)}"
        )
    choice = choices[weights]
    preset = choice.transforms()
    theirs = {
        "size": preset.crop_size[0],
        "resize": "crop",
        "resize_to": preset.resize_size[0],
        "interpolation": preset.interpolation.value,
        "mean": (0.5, 0.5, 0.5) if family.converts else tuple(preset.mean),
        "std": (0.5, 0.5, 0.5) if family.converts else tuple(preset.std),
    }
    ours = {**ours, "resize_to": ours["resize_to"] or ours["size"]}
    wrong = [f"{key}={value}, got {ours[key]}" for key, value in theirs.items() if ours[key] != value]
    if wrong:
        raise ValueError(f"weights={weights} of {name} were trained with {'; '.join(wrong)}")
    try:
        return choice.get_state_dict(progress=True, check_hash=True, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError) as error:
        raise ValueError(f"weights={weights} of {name} cannot be fetched from {choice.url}: {error}") from error


def _check_numbers(size: int, resize: str, resize_to: int | None, mean: Triple, std: Triple) -> None:
    if size < 32:
        raise ValueError(f"size must be >= 32, got {size}")
    if resize_to is not None and resize != "crop":
        raise ValueError(f"resize_to={resize_to} goes with resize=crop, got resize={resize}")
    if resize_to is not None and resize_to < size:
        raise ValueError(f"resize_to must be >= size={size}, got {resize_to}")
    if len(mean) != 3 or not all(0 <= value <= 1 for value in mean):
        raise ValueError(f"mean must be three numbers in 0...1, got {list(mean)}")
    if len(std) != 3 or not all(0 < value <= 1 for value in std):
        raise ValueError(f"std must be three numbers > 0 and <= 1, got {list(std)}")
