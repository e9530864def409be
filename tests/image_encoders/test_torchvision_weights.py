"""Torchvision's weights: from files or its own by name, with their preprocessing, refused where they do not match."""

from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from image_encoders.torchvision_members import normalized, original_of, pictures, torchvision_tower
from safetensors.torch import save_file
from torch import nn
from torchvision import models

CONF = Path(__file__).parents[2] / "conf"

pytestmark = pytest.mark.usefixtures("small_members")


@torch.no_grad()
def test_a_pickle_equals_the_original(tmp_path: Path) -> None:
    original, path = original_of("resnet18"), tmp_path / "weights.pth"
    torch.save(original.state_dict(), path)
    pixels = pictures(64)
    pooled = torchvision_tower("resnet18", weights=str(path))(pixels).pooled
    torch.testing.assert_close(original.fc(pooled), original(normalized(pixels)), rtol=1e-4, atol=1e-5)


def test_half_precision_file_without_classifier(tmp_path: Path) -> None:
    weights = {key: value for key, value in original_of("mobilenet_v2").state_dict().items() if "classifier" not in key}
    halves = {key: value.half() if value.is_floating_point() else value for key, value in weights.items()}
    save_file(halves, tmp_path / "half.safetensors")
    encoder = torchvision_tower(weights=str(tmp_path / "half.safetensors"))
    assert {parameter.dtype for parameter in encoder.parameters()} == {torch.float32}


def _cached(monkeypatch: pytest.MonkeyPatch, folder: Path, url: str, model: nn.Module) -> None:
    """As if torch had fetched the model's weights already."""
    monkeypatch.setenv("TORCH_HOME", str(folder))
    file = folder / "hub" / "checkpoints" / Path(url).name
    file.parent.mkdir(parents=True)
    torch.save(model.state_dict(), file)


def test_torchvisions_own_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By name, from torch's cache of fetched files."""
    original = original_of("mobilenet_v2")
    _cached(monkeypatch, tmp_path, models.MobileNet_V2_Weights.IMAGENET1K_V2.url, original)
    for name in ("IMAGENET1K_V2", "DEFAULT"):
        encoder = torchvision_tower(weights=name, size=224, resize_to=232)
        assert torch.equal(encoder.backbone.features[0][0].weight, original.features[0][0].weight)
        assert encoder.spec.resize_to == 232


@torch.no_grad()
def test_statistics_that_reach_the_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Trap 24: torchvision's GoogLeNet turns ImageNet's mean and std into 0.5 inside; here 0.5 must be given."""
    options = {"weights": "IMAGENET1K_V1", "size": 224, "resize_to": 256}
    _cached(monkeypatch, tmp_path, models.GoogLeNet_Weights.IMAGENET1K_V1.url, original_of("googlenet"))
    theirs = models.get_model("googlenet", weights="IMAGENET1K_V1").eval()
    pixels = pictures(224)
    encoder = torchvision_tower("googlenet", **options, mean=[0.5] * 3, std=[0.5] * 3)
    logits = theirs.fc(encoder(pixels).pooled)
    torch.testing.assert_close(logits, theirs(normalized(pixels)), rtol=1e-3, atol=1e-4)
    with pytest.raises(
        ValueError, match=r"trained with mean=\(0.5, 0.5, 0.5\), got \(0.485, .*; std=\(0.5, 0.5, 0.5\)"
    ):
        torchvision_tower("googlenet", **options)


def test_weights_that_cannot_be_fetched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def unreachable(*_: object, **__: object) -> None:
        raise OSError("Name or service not known")

    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr("torch.hub.download_url_to_file", unreachable)
    with pytest.raises(
        ValueError, match=r"weights=DEFAULT of resnet50 cannot be fetched from https://.*Name or service"
    ):
        torchvision_tower("resnet50", weights="DEFAULT", size=224, resize_to=232)


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
        torchvision_tower(**(given | options))


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
        torchvision_tower(**options)


def test_another_models_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "other.pt"
    torch.save(original_of("mobilenet_v2").state_dict(), path)
    # the other's classifier is not this one's: only exactly this one's may be left over
    with pytest.raises(ValueError, match=r"other\.pt for name=resnet18 .* missing \(.*unexpected \(classifier"):
        torchvision_tower("resnet18", weights=str(path))


def test_weights_of_another_size_are_refused(tmp_path: Path) -> None:
    """Trap 24: a transformer's positions are those of one size."""
    path = tmp_path / "w.safetensors"
    save_file(original_of("vit", 64).state_dict(), path)
    with pytest.raises(
        ValueError, match=r"of another shape \(encoder\.pos_embedding \[1, 17, 32\] instead of \[1, 37, 32\]"
    ):
        torchvision_tower("vit", weights=str(path), size=96)


def test_one_missing_and_one_foreign_key(tmp_path: Path) -> None:
    weights = dict(original_of("mobilenet_v2").state_dict())
    del weights["features.0.0.weight"]
    weights["classifier.2.weight"] = torch.ones(1)
    torch.save(weights, tmp_path / "w.pt")
    with pytest.raises(ValueError, match=r"1 missing \(features.0.0.weight\); 1 unexpected \(classifier.2.weight\)"):
        torchvision_tower(weights=str(tmp_path / "w.pt"))


def test_fingerprint_knows_the_preprocessing() -> None:
    prints = set()
    for options in ({}, {"mean": [0.4, 0.5, 0.5]}, {"resize_to": 72}):
        torch.manual_seed(0)
        prints.add(torchvision_tower(**options).fingerprint())
    assert len(prints) == 3
