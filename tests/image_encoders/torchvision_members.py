"""Torchvision's models as tests need them: the original, small members of large families, and the encoder of one."""

from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn
from torchvision import models
from torchvision.models import swin_transformer, vgg

from mmlit.image_encoders.torchvision import TorchvisionEncoder
from mmlit.image_encoders.torchvision_families import find

IMAGENET = {"mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225]}


def torchvision_tower(name: str = "mobilenet_v2", **options: Any) -> TorchvisionEncoder:
    settings = {
        "weights": None,
        "size": 64,
        "resize": "crop",
        "resize_to": None,
        "padding": "symmetric",
        "interpolation": "bilinear",
        "grid": None,
        "freeze": True,
    }
    return TorchvisionEncoder(**({"name": name} | settings | IMAGENET | options))


def original_of(name: str, size: int = 64) -> Any:
    """In no layer the weights of a fresh one: neither in batch norms, nor in layer scales, nor in heads."""
    torch.manual_seed(1)
    model = models.get_model(name, weights=None, **find(name)[0].options(size))
    for module in model.eval().modules():
        module.training = isinstance(module, nn.BatchNorm2d)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.numel() > LARGE:
                parameter.view(len(parameter), -1)[:] = 0.02 * torch.randn(parameter[0].numel())
            elif parameter.numel() > 1 and parameter.std() < 1e-8:
                parameter.add_(0.1 * torch.randn_like(parameter))
        model(torch.randn(4, 3, size, size))
    return model.eval()


def normalized(pixels: Tensor) -> Tensor:
    mean, std = (torch.tensor(IMAGENET[key]).view(3, 1, 1) for key in ("mean", "std"))
    return (pixels / 255 - mean) / std


def pictures(size: int, count: int = 2) -> Tensor:
    return torch.randint(0, 256, (count, 3, size, size), dtype=torch.uint8, generator=torch.Generator().manual_seed(2))


# Small members of torchvision's own classes, for the families whose smallest published member is large.


def vit(*, weights: Any = None, image_size: int = 224) -> models.VisionTransformer:
    return models.VisionTransformer(image_size, 16, num_layers=2, num_heads=2, hidden_dim=32, mlp_dim=64)


def convnext(*, weights: Any = None) -> models.ConvNeXt:
    widths = (8, 16, 24, 32, None)
    block = models.convnext.CNBlockConfig
    return models.ConvNeXt([block(*pair, 1) for pair in pairwise(widths)], 0.1)


def swin(*, weights: Any = None) -> models.SwinTransformer:
    return models.SwinTransformer([4, 4], 16, [2, 2, 2], [2, 2, 4], [4, 4])


def swin_v2(*, weights: Any = None) -> models.SwinTransformer:
    block, merging = swin_transformer.SwinTransformerBlockV2, swin_transformer.PatchMergingV2
    return models.SwinTransformer([4, 4], 16, [2, 2, 2], [2, 2, 4], [4, 4], block=block, downsample_layer=merging)


def maxvit(*, weights: Any = None, input_size: tuple[int, int] = (224, 224)) -> models.MaxVit:
    return models.MaxVit(input_size, 8, 4, [16, 32], [1, 2], head_dim=8, stochastic_depth_prob=0.1)


def densenet(*, weights: Any = None) -> models.DenseNet:
    return models.DenseNet(8, (2, 2, 2, 2), 16)


def vgg_bn(*, weights: Any = None) -> models.VGG:
    return models.VGG(vgg.make_layers([8, "M", 8, "M", 16, "M", 16, "M", 512, "M"], batch_norm=True))


SMALL = {builder.__name__: builder for builder in (vit, convnext, swin, swin_v2, maxvit, densenet, vgg_bn)}
#: layers with more weights are those of the classifiers of AlexNet and VGG
LARGE = 10**7
