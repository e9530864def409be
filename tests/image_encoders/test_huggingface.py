"""Hugging Face vision towers: equal to the original, trained or frozen, told apart by their fingerprints."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from image_encoders.huggingface_towers import FAMILIES, OTHERS, PIXELS, publish_other, vision_tower
from layers.published import PREPROCESSING, PROJECTED, change, without_gradient, write
from torch import Tensor

from mmlit.text_encoders.tiny import TinyTextEncoder

CLOSE = {"rtol": 1e-4, "atol": 1e-5}


def normalized(family: str) -> Tensor:
    mean, std = (np.array(PREPROCESSING[family][key]).reshape(3, 1, 1) for key in ("image_mean", "image_std"))
    return torch.from_numpy((PIXELS.numpy() / 255 - mean) / std).float()


def _original(family: str, folder: Path) -> tuple[Tensor, Tensor]:
    """Tokens and pooled by the library's own classes."""
    pixels = normalized(family)
    if family in ("vit", "dinov2"):
        states = transformers.AutoModel.from_pretrained(folder).eval()(pixel_values=pixels).last_hidden_state
        return states[:, 1:], states[:, 0]
    model = (transformers.CLIPModel if family == "clip" else transformers.SiglipModel).from_pretrained(folder).eval()
    output = model.vision_model(pixel_values=pixels)
    if family == "siglip":
        return output.last_hidden_state, output.pooler_output
    return model.vision_model.post_layernorm(output.last_hidden_state)[:, 1:], output.pooler_output


@torch.no_grad()
@pytest.mark.parametrize("family", FAMILIES)
def test_equals_the_original(published: dict[str, Path], family: str) -> None:
    encoder = vision_tower(published[family])
    tokens, pooled = _original(family, published[family])
    encoded = encoder(PIXELS)
    assert encoded.tokens.shape == (3, 16, 32)
    assert encoded.mask.shape == (3, 16)
    assert encoded.mask.all()
    assert encoder.spec.dim == 32
    torch.testing.assert_close(encoded.tokens, tokens, **CLOSE)
    torch.testing.assert_close(encoded.pooled, pooled, **CLOSE)
    assert pooled.std(0).mean() > 0.01, "the pictures must not look the same"


@torch.no_grad()
def test_projection_equals_the_original(published: dict[str, Path]) -> None:
    """CLIP's own; the width of it in the sub-configuration is wrong, as in early files."""
    encoder = vision_tower(published["clip"], projection=True)
    model = transformers.CLIPModel.from_pretrained(published["clip"]).eval()
    features = model.get_image_features(pixel_values=normalized("clip"))
    features = features if isinstance(features, Tensor) else features.pooler_output
    tokens, _ = _original("clip", published["clip"])
    encoded = encoder(PIXELS)
    assert encoder.spec.dim == PROJECTED
    torch.testing.assert_close(encoded.pooled, features, **CLOSE)
    torch.testing.assert_close(encoded.tokens, model.visual_projection(tokens), **CLOSE)


@pytest.mark.parametrize("projection", [False, True])
def test_pooled_alone_is_the_same(published: dict[str, Path], projection: bool) -> None:
    """What nobody reads is not computed: the same pooled and the same gradients."""
    encoder = vision_tower(published["clip"], projection=projection, freeze=False)
    found = []
    for needs_tokens in (True, False):
        encoder.needs_tokens = needs_tokens
        encoder.zero_grad()
        encoded = encoder(PIXELS)
        assert encoded.tokens.shape[1] == encoded.mask.shape[1] == (16 if needs_tokens else 0)
        encoded.pooled.square().sum().backward()
        found.append((encoded.pooled.detach(), [weight.grad for weight in encoder.parameters()]))
    torch.testing.assert_close(*found, rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_siglip_equals_its_features(published: dict[str, Path]) -> None:
    model = transformers.SiglipModel.from_pretrained(published["siglip"]).eval()
    features = model.get_image_features(pixel_values=normalized("siglip"))
    features = features if isinstance(features, Tensor) else features.pooler_output
    torch.testing.assert_close(vision_tower(published["siglip"])(PIXELS).pooled, features, **CLOSE)


@pytest.mark.parametrize("family", OTHERS)
def test_other_towers_equal_the_original(tmp_path: Path, family: str) -> None:
    """Pooled as the library pools, where it does so without a head of pre-training; every part is reached."""
    model = publish_other(tmp_path, family)
    encoder = vision_tower(tmp_path)
    with torch.no_grad():
        encoded, output = encoder(PIXELS), model(pixel_values=normalized("vit"))
    states = output.last_hidden_state
    if states.ndim == 4:
        states = states.flatten(2).transpose(1, 2)
    num_first = {"deit": 2, "dinov2_with_registers": 4, "vit_msn": 1, "beit": 1, "beit_class_token": 1}.get(family, 0)
    pooled = states[:, 0] if family in ("deit", "vit_msn") else output.pooler_output.flatten(1)
    torch.testing.assert_close(encoded.pooled, pooled, **CLOSE)
    norm = {"convnext": "layernorm", "convnextv2": "layernorm", "beit": "pooler.layernorm"}.get(family)
    tokens = states[:, num_first:] if norm is None else model.get_submodule(norm)(states[:, num_first:])
    torch.testing.assert_close(encoded.tokens, tokens, **CLOSE)
    assert encoder.spec.dim == encoded.pooled.shape[1]
    trained = vision_tower(tmp_path, freeze=False)
    assert without_gradient(trained, _texts(), tokens=False) == []


def _texts() -> TinyTextEncoder:
    return TinyTextEncoder(vocabulary_size=64, max_length=16, dim=32, num_layers=1, freeze=False)


@pytest.mark.parametrize("tokens", [False, True], ids=["contrastive", "cross_attention"])
@pytest.mark.parametrize("family", [*FAMILIES, "projected"])
def test_no_parameter_without_gradient(published: dict[str, Path], family: str, tokens: bool) -> None:
    """Several devices stop at one; mask tokens and poolers are gone."""
    projected = family == "projected"
    encoder = vision_tower(published["clip" if projected else family], projection=projected, freeze=False)
    assert encoder.training
    assert all(parameter.requires_grad for parameter in encoder.parameters())
    assert without_gradient(encoder, _texts(), tokens=tokens) == []


def test_frozen_means_frozen(published: dict[str, Path]) -> None:
    """Trap 22."""
    encoder = vision_tower(published["vit"]).train()
    assert not any(module.training for module in encoder.modules())
    assert not any(parameter.requires_grad for parameter in encoder.parameters())


@torch.no_grad()
@pytest.mark.parametrize("family", FAMILIES)
def test_half_precision_arithmetic(published: dict[str, Path], family: str) -> None:
    encoder = vision_tower(published[family])
    expected = encoder(PIXELS)
    with torch.autocast("cpu", torch.bfloat16):
        encoded = encoder(PIXELS)
    for one, other in zip(encoded[:2], expected[:2], strict=True):
        assert (one.float() - other).norm() < 0.05 * other.norm()


def test_fingerprint_knows_what_changes_the_output(published: dict[str, Path], copy: Callable[[str], Path]) -> None:
    """Mean, deviation, filter, projection, and settings of the tower that no weight tells."""
    folder = copy("clip")
    prints = {vision_tower(folder).fingerprint(), vision_tower(folder, projection=True).fingerprint()}
    for settings in ({"image_mean": [0.5] * 3}, {"image_std": [0.5] * 3}, {"resample": 2}):
        write(folder / "preprocessor_config.json", PREPROCESSING["clip"] | settings)
        prints.add(vision_tower(folder).fingerprint())
    shutil.copy(published["clip"] / "preprocessor_config.json", folder)
    assert vision_tower(folder).fingerprint() in prints
    config = json.loads((folder / "config.json").read_text())
    change(folder / "config.json", vision_config=config["vision_config"] | {"num_attention_heads": 4})
    prints.add(vision_tower(folder).fingerprint())
    assert len(prints) == 6


def test_the_library_stays_quiet(published: dict[str, Path], capsys: Any, caplog: pytest.LogCaptureFixture) -> None:
    vision_tower(published["clip"])
    assert "".join(capsys.readouterr()) == ""
    assert not caplog.records
