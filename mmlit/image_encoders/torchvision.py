"""Torchvision's classification backbones without their classifier."""

import inspect
import math
from collections.abc import Callable, Mapping
from typing import Any, Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmlit.contracts import Encoded, ImageEncoder, ImageSpec
from mmlit.layers.weights import is_weight_file, load_exactly, read_weights

Triple = tuple[float, float, float]


class TorchvisionEncoder(ImageEncoder):
    """A torchvision backbone: tokens are its last feature grid, pooled is what its classifier would have seen.

    The classifier is dropped: it would be parameters without gradient.

    Args:
        name: torchvision's name of the model, of a family in `FAMILIES`.
        weights: null for random ones; a name of torchvision's for this model (`IMAGENET1K_V2`, `DEFAULT`), fetched
            once; or a `.safetensors`, `.pt` or `.pth` file with the model's state dict, with or without classifier.
        size: picture side in px, ≥ 32.
        resize: see `mmlit.data.decode`.
        interpolation: of resizing.
        mean: of red, green and blue in 0…1; pixels become (x/255 − mean)/std. Goes with the weights.
        std: of red, green and blue, > 0.
        grid: tokens per side, averaged from the backbone's own grid (1 … its side), or None for that grid; `pooled` is
            not touched. The cost of attending to P tokens falls with P.
        freeze: whether nothing moves, batch-norm statistics included.

    Raises:
        FileNotFoundError: if the weight file does not exist.
        ValueError: if a name is unknown, a number out of range, the weights do not fit the model, or weights of
            torchvision's were trained with another size, interpolation, mean or std.
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
        interpolation: Literal["bilinear", "bicubic"],
        mean: Triple,
        std: Triple,
        grid: int | None,
        freeze: bool,
    ) -> None:
        super().__init__()
        _check_numbers(size, mean, std)
        if grid is not None and not 1 <= grid <= size // 32:
            raise ValueError(f"grid must lie in 1 … {size // 32} for size={size}, or be null; got {grid}")
        self.name, self.grid = name, grid
        self.family, self.backbone = _build(name)
        classifier = getattr(self.backbone, self.family.classifier)
        setattr(self.backbone, self.family.classifier, nn.Identity())
        if weights is not None:
            preprocessing = {"size": size, "interpolation": interpolation, "mean": tuple(mean), "std": tuple(std)}
            tensors = read_weights(weights) if is_weight_file(weights) else _fetch(name, weights, preprocessing)
            dropped = [f"{self.family.classifier}.{key}" for key in classifier.state_dict()]
            load_exactly(self.backbone, tensors, source=f"weights={weights} for name={name}", dropped=dropped)
        # On a CPU convolutions of this layout are faster by a fifth to a third.
        self.backbone.to(memory_format=torch.channels_last)
        self.register_buffer("mean", torch.tensor(mean).view(3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std).view(3, 1, 1), persistent=False)
        dim = next(layer.in_features for layer in classifier.modules() if isinstance(layer, nn.Linear))
        self.spec = ImageSpec(dim=dim, size=size, resize=resize, interpolation=interpolation)
        if freeze:
            self.freeze()

    def extra_repr(self) -> str:
        """The settings that neither the spec nor the weights tell."""
        return f"{self.name}, grid={self.grid}, mean={self.mean.flatten().tolist()}, std={self.std.flatten().tolist()}"

    def forward(self, pixels: Tensor) -> Encoded:
        """See `ImageEncoder.forward`; tokens row by row from the top left, mask all True."""
        pixels = (pixels.to(self.mean.dtype) / 255 - self.mean) / self.std
        tokens, pooled = self.family.encode(self.backbone, pixels.contiguous(memory_format=torch.channels_last))
        if self.grid is not None:
            own = tokens.transpose(1, 2).unflatten(2, (math.isqrt(tokens.shape[1]), -1))
            tokens = F.adaptive_avg_pool2d(own, self.grid).flatten(2).transpose(1, 2)
        return Encoded(tokens, pooled, torch.ones(tokens.shape[:2], dtype=torch.bool, device=tokens.device))


class Family(NamedTuple):
    """How one of torchvision's model classes is used.

    `classifier` is the attribute that holds its head, `encode(model, normalized pixels)` gives tokens (N,P,D) and
    pooled (N,D), D being what the head's first linear layer takes in.
    """

    classifier: str
    encode: Callable[[Any, Tensor], tuple[Tensor, Tensor]]


def _mobilenet(model: Any, pixels: Tensor) -> tuple[Tensor, Tensor]:
    return _flatten(model.features(pixels))


def _resnet(model: Any, pixels: Tensor) -> tuple[Tensor, Tensor]:
    stem = model.maxpool(model.relu(model.bn1(model.conv1(pixels))))
    return _flatten(model.layer4(model.layer3(model.layer2(model.layer1(stem)))))


def _flatten(grid: Tensor) -> tuple[Tensor, Tensor]:
    """(N,D,·,·) → tokens (N,P,D), pooled = their mean."""
    tokens = grid.flatten(2).transpose(1, 2)
    return tokens, tokens.mean(1)


#: by the name of torchvision's class, so that torchvision is imported only where it is used
FAMILIES: Mapping[str, Family] = {"MobileNetV2": Family("classifier", _mobilenet), "ResNet": Family("fc", _resnet)}


def _build(name: str) -> tuple[Family, nn.Module]:
    """A model with random weights and its family."""
    from torchvision import models

    known = {}
    for model in models.list_models(module=models):
        kind = inspect.signature(models.get_model_builder(model)).return_annotation
        if kind.__name__ in FAMILIES:
            known[model] = FAMILIES[kind.__name__]
    if name not in known:
        raise ValueError(f"name={name} is none of torchvision's models that can be used: {', '.join(known)}")
    return known[name], models.get_model(name, weights=None)


def _fetch(name: str, weights: str, preprocessing: Mapping[str, object]) -> Mapping[str, Tensor]:
    """Torchvision's own weights, if the pictures will be prepared as in their training."""
    from torchvision import models

    choices = models.get_model_weights(name).__members__
    if weights not in choices:
        raise ValueError(
            f"weights={weights} is neither a .safetensors, .pt or .pth file nor weights of torchvision's {name}, "
            f"which has {', '.join(choices)}"
        )
    choice = choices[weights]
    asked = choice.transforms()
    theirs = {
        "size": asked.crop_size[0],
        "interpolation": asked.interpolation.value,
        "mean": tuple(asked.mean),
        "std": tuple(asked.std),
    }
    wrong = [f"{key}={value}, got {preprocessing[key]}" for key, value in theirs.items() if preprocessing[key] != value]
    if wrong:
        raise ValueError(f"weights={weights} of {name} were trained with {'; '.join(wrong)}")
    try:
        return choice.get_state_dict(progress=True, check_hash=True, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError) as error:
        raise ValueError(f"weights={weights} of {name} cannot be fetched from {choice.url}: {error}") from error


def _check_numbers(size: int, mean: Triple, std: Triple) -> None:
    if size < 32:
        raise ValueError(f"size must be >= 32, got {size}")
    if len(mean) != 3 or not all(0 <= value <= 1 for value in mean):
        raise ValueError(f"mean must be three numbers in 0...1, got {list(mean)}")
    if len(std) != 3 or not all(0 < value <= 1 for value in std):
        raise ValueError(f"std must be three numbers > 0 and <= 1, got {list(std)}")
