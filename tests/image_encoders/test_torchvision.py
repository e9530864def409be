"""Torchvision's backbones: equal to the original in every family, tokens where they belong, no head kept."""

import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from contract.alignment_inputs import TEXT, batch_of, pairs_of, total
from hydra.utils import instantiate
from image_encoders.torchvision_members import LARGE, SMALL, normalized, original_of, pictures, torchvision_tower
from omegaconf import OmegaConf
from safetensors.torch import save_file
from torch import Tensor
from torchvision import models

from mmlit.contracts import Encoded, ImageSpec
from mmlit.image_encoders.torchvision import TorchvisionEncoder
from mmlit.image_encoders.torchvision_families import FAMILIES, find

CONF = Path(__file__).parents[2] / "conf"

pytestmark = pytest.mark.usefixtures("small_members")


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
    original, path = original_of(name, member.size), tmp_path_factory.mktemp("weights") / "weights.safetensors"
    save_file({key: value for key, value in original.state_dict().items() if value.numel() <= LARGE}, path)
    return Tower(member, original, torchvision_tower(name, weights=str(path), size=member.size, freeze=False))


def test_every_family_has_a_member() -> None:
    kinds = {models.get_model_builder(name).__annotations__["return"].__name__ for name in MEMBERS}
    assert kinds == set(FAMILIES)


@torch.no_grad()
def test_equals_the_original(tower: Tower) -> None:
    """The original's classifier makes the original's logits of what the encoder returns."""
    member, original, encoder = tower
    pixels = pictures(member.size)
    encoded = encoder.eval()(pixels)
    assert encoder.spec == ImageSpec(member.dim, member.size, "crop", "bilinear", None)
    assert encoded.tokens.shape[2] == encoded.pooled.shape[1] == member.dim
    assert encoded.mask.shape == encoded.tokens.shape[:2]
    assert encoded.mask.all()
    expected = original(normalized(pixels))
    assert expected.std() > 1e-3
    atol = 1e-4 * float(expected.abs().max())
    torch.testing.assert_close(member.logits(original, encoded), expected, rtol=1e-3, atol=atol)


@torch.no_grad()
def test_pooled_belongs_to_the_tokens(tower: Tower) -> None:
    """The mean of the grid, or else both lie behind one layer norm: of the head, or a transformer's last."""
    encoder, original = tower.encoder.eval(), tower.original
    encoded = encoder(pictures(tower.member.size))
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
    encoder, pixels = tower.encoder.eval(), pictures(tower.member.size)
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
    given = given._replace(image=encoder(pictures(encoder.spec.size, 3)))
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
        torchvision_tower(name)
    with pytest.raises(ValueError, match="nearest: mobilenet_v"):
        torchvision_tower("mobilenet_v9")


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
    original, path = original_of(name), tmp_path / "weights.pth"
    old = {re.sub(today, published, key): value for key, value in original.state_dict().items()}
    assert len(set(old) - set(original.state_dict())) > 4
    torch.save(old, path)
    pixels = pictures(64)
    encoded = torchvision_tower(name, weights=str(path))(pixels)
    logits = MEMBERS[name].logits(original, encoded)
    torch.testing.assert_close(logits, original(normalized(pixels)), rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_tokens_are_rows_from_the_top_left() -> None:
    encoder = torchvision_tower()
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
    encoder = torchvision_tower(name)
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
    own = torchvision_tower(name, size=size)
    small = torchvision_tower(name, size=size, grid=2)
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
        torchvision_tower(name, size=size, grid=5)
