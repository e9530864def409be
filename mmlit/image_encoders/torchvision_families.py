"""How each of torchvision's classification models becomes tokens and a pooled vector."""

import difflib
import inspect
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Family(NamedTuple):
    """How one of torchvision's model classes is used.

    `body(model)` is what is kept of it, each parameter under torchvision's own name; what is left over, the classifier
    and auxiliary heads, would be parameters without gradient. `encode(body, normalized pixels)` gives tokens (N,P,D),
    row by row from the top left, and pooled (N,D). `options(size)` goes to the model's constructor. A family that
    `converts` takes pixels in [−1, 1]: with its own weights torchvision's model makes them of pixels with ImageNet's
    mean and std, for which its preset asks; here the mean and std that reach the weights are given.
    """

    body: Callable[[Any], nn.Module]
    encode: Callable[[Any, Tensor], tuple[Tensor, Tensor]]
    options: Callable[[int], Mapping[str, Any]] = lambda _: {}
    converts: bool = False


def find(name: str) -> tuple[Family, Callable[..., nn.Module]]:
    """The family of a model and torchvision's function that builds it.

    Raises:
        ValueError: if torchvision has no such model for classification, or it is of a class not known here.
    """
    from torchvision import models

    builders = {model: models.get_model_builder(model) for model in models.list_models(module=models)}
    kinds = {model: inspect.signature(build).return_annotation.__name__ for model, build in builders.items()}
    known = [model for model, kind in kinds.items() if kind in FAMILIES]
    if name not in known:
        nearest = ", ".join(difflib.get_close_matches(name, known, n=5, cutoff=0))
        raise ValueError(f"name={name} is none of torchvision's {len(known)} classification models; nearest: {nearest}")
    return FAMILIES[kinds[name]], builders[name]


def _parts(*names: str) -> Callable[[Any], nn.Module]:
    """Children of a model that are to run in this order."""
    return lambda model: nn.ModuleDict({name: getattr(model, name) for name in names})


def _grid(body: nn.ModuleDict, pixels: Tensor) -> tuple[Tensor, Tensor]:
    """The parts in their order give a grid (N,D,·,·); pooled is its mean."""
    for part in body.values():
        pixels = part(pixels)
    tokens = pixels.flatten(2).transpose(1, 2)
    return tokens, tokens.mean(1)


def _densenet(model: Any) -> nn.Module:
    """The model's forward has one more ReLU behind its last part."""
    return nn.ModuleDict({"features": model.features, "relu": nn.ReLU()})


def _convnext(model: Any) -> nn.Module:
    return nn.ModuleDict({"features": model.features, "classifier": model.classifier[:1]})


def _maxvit(model: Any) -> nn.Module:
    return nn.ModuleDict(
        {"stem": model.stem, "blocks": nn.Sequential(*model.blocks), "classifier": model.classifier[:3]}
    )


def _normalized_grid(body: Any, pixels: Tensor) -> tuple[Tensor, Tensor]:
    """As `_grid`; the head begins with a layer norm of the pooled vector, and the tokens go through it too."""
    *parts, head = body.values()
    for part in parts:
        pixels = part(pixels)
    tokens, norm = pixels.flatten(2).transpose(1, 2), head[-1]
    both = torch.cat([tokens, tokens.mean(1, keepdim=True)], 1)
    both = F.layer_norm(both, norm.normalized_shape, norm.weight, norm.bias, norm.eps)
    return both[:, :-1], both[:, -1]


def _vit_body(model: Any) -> nn.Module:
    del model.heads
    return model


def _vit(model: Any, pixels: Tensor) -> tuple[Tensor, Tensor]:
    """Patches and class token behind the last norm."""
    patches = model.conv_proj(pixels).flatten(2).transpose(1, 2)
    tokens = model.encoder(torch.cat([model.class_token.expand(len(patches), -1, -1), patches], 1))
    return tokens[:, 1:], tokens[:, 0]


_FEATURES = Family(_parts("features"), _grid)
_GOOGLENET = (
    *("conv1", "maxpool1", "conv2", "conv3", "maxpool2", "inception3a", "inception3b", "maxpool3", "inception4a"),
    *("inception4b", "inception4c", "inception4d", "inception4e", "maxpool4", "inception5a", "inception5b"),
)
_INCEPTION3 = (
    *("Conv2d_1a_3x3", "Conv2d_2a_3x3", "Conv2d_2b_3x3", "maxpool1", "Conv2d_3b_1x1", "Conv2d_4a_3x3", "maxpool2"),
    *("Mixed_5b", "Mixed_5c", "Mixed_5d", "Mixed_6a", "Mixed_6b", "Mixed_6c", "Mixed_6d", "Mixed_6e"),
    *("Mixed_7a", "Mixed_7b", "Mixed_7c"),
)
_RESNET = ("conv1", "bn1", "relu", "maxpool", "layer1", "layer2", "layer3", "layer4")

#: by the name of torchvision's class, so that torchvision is imported only where it is used
FAMILIES: Mapping[str, Family] = {
    "AlexNet": _FEATURES,
    "ConvNeXt": Family(_convnext, _normalized_grid),
    "DenseNet": Family(_densenet, _grid),
    "EfficientNet": _FEATURES,
    # without the option torchvision warns that its way of drawing weights will change
    "GoogLeNet": Family(_parts(*_GOOGLENET), _grid, lambda _: {"init_weights": True}, converts=True),
    "Inception3": Family(_parts(*_INCEPTION3), _grid, lambda _: {"init_weights": True}, converts=True),
    "MNASNet": Family(_parts("layers"), _grid),
    "MaxVit": Family(_maxvit, _normalized_grid, lambda size: {"input_size": (size, size)}),
    "MobileNetV2": _FEATURES,
    "MobileNetV3": _FEATURES,
    "RegNet": Family(_parts("stem", "trunk_output"), _grid),
    "ResNet": Family(_parts(*_RESNET), _grid),
    "ShuffleNetV2": Family(_parts("conv1", "maxpool", "stage2", "stage3", "stage4", "conv5"), _grid),
    "SqueezeNet": _FEATURES,
    "SwinTransformer": Family(_parts("features", "norm", "permute"), _grid),
    "VGG": _FEATURES,
    "VisionTransformer": Family(_vit_body, _vit, lambda size: {"image_size": size}),
}
