"""Torchvision's backbones: equal to the original, loaded from real files, refused where something does not match."""

import math
import re
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
import yaml
from contract.alignment_checks import TEXT, batch_of, pairs_of, total
from hydra.utils import instantiate
from omegaconf import OmegaConf
from safetensors.torch import save_file
from torch import Tensor, nn
from torchvision import models
from torchvision.models import swin_transformer, vgg

from mmlit.contracts import Encoded, ImageSpec
from mmlit.image_encoders.torchvision import TorchvisionEncoder
from mmlit.image_encoders.torchvision_families import FAMILIES, find

CONF = Path(__file__).parents[2] / "conf"
IMAGENET = {"mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225]}


def _encoder(name: str = "mobilenet_v2", **options: Any) -> TorchvisionEncoder:
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


def _original(name: str, size: int = 64) -> Any:
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


def _normalized(pixels: Tensor) -> Tensor:
    mean, std = (torch.tensor(IMAGENET[key]).view(3, 1, 1) for key in ("mean", "std"))
    return (pixels / 255 - mean) / std


def _pictures(size: int, count: int = 2) -> Tensor:
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


@pytest.fixture(autouse=True, scope="module")
def small_members() -> Iterator[None]:
    """Registered as torchvision's own are; the large layers, which nothing of ours keeps, are not filled with draws."""
    with pytest.MonkeyPatch.context() as patch:
        for name, builder in SMALL.items():
            patch.setattr(builder, "__module__", "torchvision.models.small")
            patch.setitem(models._api.BUILTIN_MODELS, name, builder)
        for name in ("kaiming_uniform_", "normal_"):
            patch.setattr(nn.init, name, _only_small(getattr(nn.init, name)))
        yield


def _only_small(draw: Callable[..., Tensor]) -> Callable[..., Tensor]:
    return lambda tensor, *rest, **options: tensor if tensor.numel() > LARGE else draw(tensor, *rest, **options)


def _grid(encoded: Encoded) -> Tensor:
    return encoded.tokens.transpose(1, 2).unflatten(2, (math.isqrt(encoded.tokens.shape[1]), -1))


class Member(NamedTuple):
    """`logits(original, encoded)` continues the original's own forward from what the encoder returned."""

    size: int
    dim: int
    logits: Callable[[Any, Encoded], Tensor]


def _fc(original: Any, encoded: Encoded) -> Tensor:
    return original.fc(encoded.pooled)


def _classifier(original: Any, encoded: Encoded) -> Tensor:
    return original.classifier(encoded.pooled)


def _laid_out(original: Any, encoded: Encoded) -> Tensor:
    return original.classifier(original.avgpool(_grid(encoded)).flatten(1))


MEMBERS = {
    "alexnet": Member(96, 256, _laid_out),
    "vgg_bn": Member(64, 512, _laid_out),
    "squeezenet1_1": Member(64, 512, lambda original, encoded: original.classifier(_grid(encoded)).flatten(1)),
    "resnet18": Member(64, 512, _fc),
    "densenet": Member(64, 32, _classifier),
    "googlenet": Member(64, 1024, _fc),
    "inception_v3": Member(96, 2048, _fc),
    "mnasnet0_5": Member(64, 1280, _classifier),
    "mobilenet_v2": Member(64, 1280, _classifier),
    "mobilenet_v3_small": Member(64, 576, _classifier),
    "shufflenet_v2_x0_5": Member(64, 1024, _fc),
    "efficientnet_b0": Member(64, 1280, _classifier),
    "regnet_y_400mf": Member(64, 440, _fc),
    "convnext": Member(64, 32, lambda original, encoded: original.classifier[2](encoded.pooled)),
    "swin": Member(64, 64, lambda original, encoded: original.head(encoded.pooled)),
    "swin_v2": Member(64, 64, lambda original, encoded: original.head(encoded.pooled)),
    "vit": Member(64, 32, lambda original, encoded: original.heads(encoded.pooled)),
    "maxvit": Member(64, 32, lambda original, encoded: original.classifier[3:](encoded.pooled)),
}


class Tower(NamedTuple):
    """A member of a family, the original, and the encoder that a file of the original's weights made."""

    member: Member
    original: Any
    encoder: TorchvisionEncoder


@pytest.fixture(scope="module", params=MEMBERS)
def tower(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Tower:
    """Loaded from the whole state dict, classifier and auxiliary heads included, but for layers of over 40 MB."""
    name, member = request.param, MEMBERS[request.param]
    original, path = _original(name, member.size), tmp_path_factory.mktemp("weights") / "weights.safetensors"
    save_file({key: value for key, value in original.state_dict().items() if value.numel() <= LARGE}, path)
    return Tower(member, original, _encoder(name, weights=str(path), size=member.size, freeze=False))


def test_every_family_has_a_member() -> None:
    kinds = {models.get_model_builder(name).__annotations__["return"].__name__ for name in MEMBERS}
    assert kinds == set(FAMILIES)


@torch.no_grad()
def test_equals_the_original(tower: Tower) -> None:
    """The original's classifier makes the original's logits of what the encoder returns."""
    member, original, encoder = tower
    pixels = _pictures(member.size)
    encoded = encoder.eval()(pixels)
    assert encoder.spec == ImageSpec(member.dim, member.size, "crop", "bilinear", None)
    assert encoded.tokens.shape[2] == encoded.pooled.shape[1] == member.dim
    assert encoded.mask.shape == encoded.tokens.shape[:2]
    assert encoded.mask.all()
    expected = original(_normalized(pixels))
    assert expected.std() > 1e-3
    atol = 1e-4 * float(expected.abs().max())
    torch.testing.assert_close(member.logits(original, encoded), expected, rtol=1e-3, atol=atol)


@torch.no_grad()
def test_pooled_belongs_to_the_tokens(tower: Tower) -> None:
    """The mean of the grid, or else both lie behind one layer norm: of the head, or a transformer's last."""
    encoder, original = tower.encoder.eval(), tower.original
    encoded = encoder(_pictures(tower.member.size))
    norms = {
        "vit": lambda: original.encoder.ln,
        "convnext": lambda: original.classifier[0],
        "maxvit": lambda: original.classifier[2],
    }
    if encoder.name not in norms:
        torch.testing.assert_close(encoded.pooled, encoded.tokens.mean(1))
        return
    norm = norms[encoder.name]()
    for part in (encoded.tokens, encoded.pooled):
        before = (part - norm.bias) / norm.weight
        torch.testing.assert_close(before.mean(-1), torch.zeros(part.shape[:-1]), rtol=0, atol=1e-4)
        torch.testing.assert_close(before.var(-1, correction=0), torch.ones(part.shape[:-1]), rtol=0, atol=0.02)


def test_heads_are_not_kept(tower: Tower) -> None:
    kept, whole = tower.encoder.backbone.state_dict(), tower.original.state_dict()
    assert set(kept) < set(whole)
    gone = {re.match(r"classifier\.\d|[^.]+", key).group() for key in set(whole) - set(kept)}  # type: ignore[union-attr]
    heads = {"fc", "head", "heads", "aux1", "aux2", "AuxLogits"} | {f"classifier.{place}" for place in range(7)}
    assert gone <= heads | {"classifier"}


@torch.no_grad()
def test_low_precision(tower: Tower) -> None:
    """Under autocast the statistics stay fp32, and the outputs are those of fp32 but for rounding."""
    encoder, pixels = tower.encoder.eval(), _pictures(tower.member.size)
    exact = encoder(pixels)
    with torch.autocast("cpu", torch.bfloat16):
        rounded = encoder(pixels)
    assert encoder.mean.dtype == encoder.std.dtype == torch.float32
    for one, other in zip(rounded[:2], exact[:2], strict=True):
        assert one.isfinite().all()
        assert torch.cosine_similarity(one.float(), other, dim=-1).min() > 0.95


@pytest.mark.parametrize("alignment", ["contrastive", "cross_attention"])
def test_every_parameter_gets_a_gradient(tower: Tower, alignment: str) -> None:
    """Several devices fail on one without: `contrastive` reads pooled only, `cross_attention` tokens and pooled."""
    encoder = tower.encoder.train()
    encoder.zero_grad(set_to_none=True)
    given = batch_of([3, 1, 4], [4, 3, 1])
    node = OmegaConf.load(CONF / "alignment" / f"{alignment}.yaml")
    method = instantiate(node, image=encoder.spec, text=TEXT)
    given = given._replace(image=encoder(_pictures(encoder.spec.size, 3)))
    total(method.losses(pairs_of(method, given))).backward()
    assert all(parameter.requires_grad for parameter in encoder.parameters())
    assert [name for name, parameter in encoder.named_parameters() if parameter.grad is None] == []


def test_every_classification_model_is_known_by_name() -> None:
    names = set(models.list_models(module=models))
    assert len(names) >= 80 + len(SMALL)
    assert all(find(name)[1] is models.get_model_builder(name) for name in names)
    assert {id(find(name)[0].body) for name in names} == {id(family.body) for family in FAMILIES.values()}


@pytest.mark.parametrize(
    "name", ["fcn_resnet50", "fasterrcnn_resnet50_fpn", "r3d_18", "quantized_resnet50", "raft_small", "mobilenet_v9"]
)
def test_models_for_something_else_are_refused(name: str) -> None:
    assert name == "mobilenet_v9" or name in models.list_models()
    with pytest.raises(ValueError, match=rf"name={name} is none of torchvision's \d+ classification models; nearest: "):
        _encoder(name)
    with pytest.raises(ValueError, match="nearest: mobilenet_v"):
        _encoder("mobilenet_v9")


@torch.no_grad()
def test_a_pickle_equals_the_original(tmp_path: Path) -> None:
    original, path = _original("resnet18"), tmp_path / "weights.pth"
    torch.save(original.state_dict(), path)
    pixels = _pictures(64)
    pooled = _encoder("resnet18", weights=str(path))(pixels).pooled
    torch.testing.assert_close(original.fc(pooled), original(_normalized(pixels)), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("name", "today", "published"),
    [
        ("densenet", r"(denselayer\d+\.(?:norm|conv))([12])\.", r"\1.\2."),
        ("vit", r"mlp\.([03])\.", lambda found: f"mlp.linear_{1 + int(found[1]) // 3}."),
    ],
)
@torch.no_grad()
def test_published_spelling(tmp_path: Path, name: str, today: str, published: Any) -> None:
    """Torchvision's own files of DenseNet and VisionTransformer spell some keys as their layers once did."""
    original, path = _original(name), tmp_path / "weights.pth"
    old = {re.sub(today, published, key): value for key, value in original.state_dict().items()}
    assert len(set(old) - set(original.state_dict())) > 4
    torch.save(old, path)
    pixels = _pictures(64)
    encoded = _encoder(name, weights=str(path))(pixels)
    logits = MEMBERS[name].logits(original, encoded)
    torch.testing.assert_close(logits, original(_normalized(pixels)), rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_tokens_are_rows_from_the_top_left() -> None:
    encoder = _encoder()
    pixels = 255 * torch.rand(1, 3, 64, 96)
    grid = encoder.backbone.features((pixels / 255 - encoder.mean) / encoder.std)
    assert grid.shape == (1, 1280, 2, 3)
    tokens = encoder(pixels).tokens[0]
    for row in range(2):
        for column in range(3):
            torch.testing.assert_close(tokens[3 * row + column], grid[0, :, row, column], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("name", "cells"), [("swin", 4), ("vit", 4), ("convnext", 2)])
@torch.no_grad()
def test_a_token_lies_where_the_picture_changes(name: str, cells: int) -> None:
    """Row 0, last column: grids with channels last and patches are laid out in the same order."""
    torch.manual_seed(0)
    encoder = _encoder(name)
    black = torch.zeros(1, 3, 64, 64)
    white = black.clone()
    white[..., : 64 // cells, -(64 // cells) :] = 255
    moved = (encoder(white).tokens - encoder(black).tokens).norm(dim=2)[0]
    assert len(moved) == cells**2
    assert moved.argmax() == cells - 1


@pytest.mark.parametrize(("name", "size", "dim"), [("mobilenet_v2", 128, 1280), ("vit", 64, 32)])
@torch.no_grad()
def test_grid_averages_tokens_and_leaves_pooled(name: str, size: int, dim: int) -> None:
    torch.manual_seed(0)
    own = _encoder(name, size=size)
    small = _encoder(name, size=size, grid=2)
    small.load_state_dict(own.state_dict())
    pixels = 255 * torch.rand(2, 3, size, size)
    whole, averaged = own(pixels), small(pixels)
    assert averaged.tokens.shape == (2, 4, dim)
    assert averaged.mask.shape == (2, 4)
    torch.testing.assert_close(averaged.pooled, whole.pooled)
    blocks = whole.tokens.unflatten(1, (2, 2, 2, 2)).mean((2, 4)).flatten(1, 2)
    torch.testing.assert_close(averaged.tokens, blocks, rtol=1e-4, atol=1e-5)
    assert own.fingerprint() != small.fingerprint()
    with pytest.raises(ValueError, match=f"grid must lie in 1 … 4 for size={size}, or be null; got 5"):
        _encoder(name, size=size, grid=5)


def test_half_precision_file_without_classifier(tmp_path: Path) -> None:
    weights = {key: value for key, value in _original("mobilenet_v2").state_dict().items() if "classifier" not in key}
    halves = {key: value.half() if value.is_floating_point() else value for key, value in weights.items()}
    save_file(halves, tmp_path / "half.safetensors")
    encoder = _encoder(weights=str(tmp_path / "half.safetensors"))
    assert {parameter.dtype for parameter in encoder.parameters()} == {torch.float32}


def _cached(monkeypatch: pytest.MonkeyPatch, folder: Path, url: str, model: nn.Module) -> None:
    """As if torch had fetched the model's weights already."""
    monkeypatch.setenv("TORCH_HOME", str(folder))
    file = folder / "hub" / "checkpoints" / Path(url).name
    file.parent.mkdir(parents=True)
    torch.save(model.state_dict(), file)


def test_torchvisions_own_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By name, from torch's cache of fetched files."""
    original = _original("mobilenet_v2")
    _cached(monkeypatch, tmp_path, models.MobileNet_V2_Weights.IMAGENET1K_V2.url, original)
    for name in ("IMAGENET1K_V2", "DEFAULT"):
        encoder = _encoder(weights=name, size=224, resize_to=232)
        assert torch.equal(encoder.backbone.features[0][0].weight, original.features[0][0].weight)
        assert encoder.spec.resize_to == 232


@torch.no_grad()
def test_statistics_that_reach_the_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Trap 24: torchvision's GoogLeNet turns ImageNet's mean and std into 0.5 inside; here 0.5 must be given."""
    options = {"weights": "IMAGENET1K_V1", "size": 224, "resize_to": 256}
    _cached(monkeypatch, tmp_path, models.GoogLeNet_Weights.IMAGENET1K_V1.url, _original("googlenet"))
    theirs = models.get_model("googlenet", weights="IMAGENET1K_V1").eval()
    pixels = _pictures(224)
    encoder = _encoder("googlenet", **options, mean=[0.5] * 3, std=[0.5] * 3)
    logits = theirs.fc(encoder(pixels).pooled)
    torch.testing.assert_close(logits, theirs(_normalized(pixels)), rtol=1e-3, atol=1e-4)
    with pytest.raises(
        ValueError, match=r"trained with mean=\(0.5, 0.5, 0.5\), got \(0.485, .*; std=\(0.5, 0.5, 0.5\)"
    ):
        _encoder("googlenet", **options)


def test_weights_that_cannot_be_fetched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def unreachable(*_: object, **__: object) -> None:
        raise OSError("Name or service not known")

    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr("torch.hub.download_url_to_file", unreachable)
    with pytest.raises(
        ValueError, match=r"weights=DEFAULT of resnet50 cannot be fetched from https://.*Name or service"
    ):
        _encoder("resnet50", weights="DEFAULT", size=224, resize_to=232)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"size": 192}, "size=224, got 192$"),
        ({"resize_to": None}, "resize_to=232, got 224$"),
        ({"resize_to": 256}, "resize_to=232, got 256$"),
        ({"resize": "squash", "resize_to": None}, "resize=crop, got squash; resize_to=232, got 224$"),
        ({"interpolation": "bicubic"}, "interpolation=bilinear, got bicubic$"),
        ({"mean": [0.5, 0.5, 0.5]}, r"mean=\(0.485, 0.456, 0.406\), got \(0.5, 0.5, 0.5\)$"),
        ({"std": [0.5, 0.5, 0.5]}, r"std=\(0.229, 0.224, 0.225\), got \(0.5, 0.5, 0.5\)$"),
    ],
)
def test_preprocessing_belongs_to_the_weights(options: dict[str, Any], message: str) -> None:
    """Trap 24: other size, resizing, mean or std than in training are refused before anything is fetched."""
    given = {"weights": "IMAGENET1K_V2", "size": 224, "resize_to": 232}
    with pytest.raises(ValueError, match=f"weights=IMAGENET1K_V2 of mobilenet_v2 were trained with {message}"):
        _encoder(**(given | options))


FILES = [file for file in (CONF / "image_encoder").glob("*.yaml") if "TorchvisionEncoder" in file.read_text()]


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_yamls_prepare_pictures_as_their_weights_ask(file: Path) -> None:
    """Trap 24: every number is the preset's."""
    node = yaml.safe_load(file.read_text())
    preset = models.get_model_weights(node["name"])[node["weights"]].transforms()
    assert node["name"] == file.stem
    assert [node["size"]] == preset.crop_size
    assert [node["resize_to"]] == preset.resize_size
    assert node["resize"] == "crop"
    assert node["interpolation"] == preset.interpolation.value
    assert (node["mean"], node["std"]) == (preset.mean, preset.std)


def test_yamls_are_of_several_families() -> None:
    assert len({models.get_model_builder(file.stem).__annotations__["return"] for file in FILES}) == len(FILES) == 7


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"weights": "IMAGENET1K_V9"}, "weights=IMAGENET1K_V9 is neither .* which has IMAGENET1K_V1, IMAGENET1K_V2"),
        ({"size": 16}, "size must be >= 32, got 16"),
        ({"resize_to": 63}, "resize_to must be >= size=64, got 63"),
        ({"resize": "squash", "resize_to": 64}, "resize_to=64 goes with resize=crop, got resize=squash"),
        ({"name": "vit", "size": 72}, "size=72 does not suit name=vit: Input shape indivisible by patch size"),
        ({"name": "maxvit", "size": 72}, "size=72 does not suit name=maxvit: Input size .* not divisible by partition"),
        ({"name": "alexnet", "size": 48}, "size=48 does not suit name=alexnet: .*too small"),
        ({"mean": [123.7, 116.3, 103.5]}, "mean must be three numbers in 0...1"),
        ({"mean": [0.5]}, "mean must be three numbers"),
        ({"std": [0.2, 0.0, 0.2]}, "std must be three numbers > 0"),
    ],
)
def test_wrong_options(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        _encoder(**options)


def test_another_models_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "other.pt"
    torch.save(_original("mobilenet_v2").state_dict(), path)
    # the other's classifier is not this one's: only exactly this one's may be left over
    with pytest.raises(ValueError, match=r"other\.pt for name=resnet18 .* missing \(.*unexpected \(classifier"):
        _encoder("resnet18", weights=str(path))


def test_weights_of_another_size_are_refused(tmp_path: Path) -> None:
    """Trap 24: a transformer's positions are those of one size."""
    path = tmp_path / "w.safetensors"
    save_file(_original("vit", 64).state_dict(), path)
    with pytest.raises(
        ValueError, match=r"of another shape \(encoder\.pos_embedding \[1, 17, 32\] instead of \[1, 37, 32\]"
    ):
        _encoder("vit", weights=str(path), size=96)


def test_one_missing_and_one_foreign_key(tmp_path: Path) -> None:
    weights = dict(_original("mobilenet_v2").state_dict())
    del weights["features.0.0.weight"]
    weights["classifier.2.weight"] = torch.ones(1)
    torch.save(weights, tmp_path / "w.pt")
    with pytest.raises(ValueError, match=r"1 missing \(features.0.0.weight\); 1 unexpected \(classifier.2.weight\)"):
        _encoder(weights=str(tmp_path / "w.pt"))


def test_fingerprint_knows_the_preprocessing() -> None:
    prints = set()
    for options in ({}, {"mean": [0.4, 0.5, 0.5]}, {"resize_to": 72}):
        torch.manual_seed(0)
        prints.add(_encoder(**options).fingerprint())
    assert len(prints) == 3
