"""Torchvision's backbones: equal to the original, loaded from real files, refused where something does not match."""

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torchvision import models

from mmlit.image_encoders.torchvision import TorchvisionEncoder

IMAGENET = {"mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225]}


def _encoder(name: str = "mobilenet_v2", **options: Any) -> TorchvisionEncoder:
    settings = {
        "weights": None,
        "size": 64,
        "resize": "crop",
        "interpolation": "bilinear",
        "grid": None,
        "freeze": True,
    }
    return TorchvisionEncoder(**({"name": name} | settings | IMAGENET | options))


def _original(name: str) -> nn.Module:
    """A model with batch-norm statistics that are not those of a fresh one."""
    torch.manual_seed(1)
    model = models.get_model(name, weights=None)
    with torch.no_grad():
        model(torch.randn(4, 3, 64, 64))
    return model.eval()


def _before_classifier(model: Any, pixels: Tensor) -> Tensor:
    """What the original's classifier receives in its own forward."""
    seen = []
    head = model.fc if hasattr(model, "fc") else model.classifier
    hook = head.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    model(pixels)
    hook.remove()
    return seen[0]


@pytest.mark.parametrize(("name", "dim"), [("mobilenet_v2", 1280), ("resnet50", 2048)])
@pytest.mark.parametrize("suffix", ["safetensors", "pth"])
@torch.no_grad()
def test_equals_the_original(tmp_path: Path, name: str, dim: int, suffix: str) -> None:
    """The full model's state dict, classifier included, gives what the original's classifier sees."""
    original, path = _original(name), tmp_path / f"weights.{suffix}"
    (save_file if suffix == "safetensors" else torch.save)(original.state_dict(), path)
    encoder = _encoder(name, weights=str(path))
    pixels = torch.randint(0, 256, (2, 3, 64, 64), dtype=torch.uint8)
    mean, std = (torch.tensor(IMAGENET[key]).view(3, 1, 1) for key in ("mean", "std"))
    encoded = encoder(pixels)
    assert encoder.spec.dim == dim
    assert encoded.tokens.shape == (2, 4, dim)
    assert encoded.mask.all()
    expected = _before_classifier(original, (pixels / 255 - mean) / std)
    torch.testing.assert_close(encoded.pooled, expected, rtol=1e-4, atol=1e-5)
    assert not any("classifier" in key or "fc." in key for key in encoder.state_dict())


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


@torch.no_grad()
def test_grid_averages_tokens_and_leaves_pooled() -> None:
    torch.manual_seed(0)
    own = _encoder(size=128)
    small = _encoder(size=128, grid=2)
    small.load_state_dict(own.state_dict())
    pixels = 255 * torch.rand(2, 3, 128, 128)
    whole, averaged = own(pixels), small(pixels)
    assert averaged.tokens.shape == (2, 4, 1280)
    assert averaged.mask.shape == (2, 4)
    torch.testing.assert_close(averaged.pooled, whole.pooled)
    blocks = whole.tokens.unflatten(1, (2, 2, 2, 2)).mean((2, 4)).flatten(1, 2)
    torch.testing.assert_close(averaged.tokens, blocks, rtol=1e-4, atol=1e-5)
    assert own.fingerprint() != small.fingerprint()
    with pytest.raises(ValueError, match="grid must lie in 1 … 4 for size=128, or be null; got 5"):
        _encoder(size=128, grid=5)


def test_half_precision_file_without_classifier(tmp_path: Path) -> None:
    weights = {key: value for key, value in _original("mobilenet_v2").state_dict().items() if "classifier" not in key}
    halves = {key: value.half() if value.is_floating_point() else value for key, value in weights.items()}
    save_file(halves, tmp_path / "half.safetensors")
    encoder = _encoder(weights=str(tmp_path / "half.safetensors"))
    assert {parameter.dtype for parameter in encoder.parameters()} == {torch.float32}


def test_torchvisions_own_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By name, from torch's cache of fetched files."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    original = _original("mobilenet_v2")
    cached = tmp_path / "hub" / "checkpoints" / Path(models.MobileNet_V2_Weights.IMAGENET1K_V2.url).name
    cached.parent.mkdir(parents=True)
    torch.save(original.state_dict(), cached)
    for name in ("IMAGENET1K_V2", "DEFAULT"):
        weight = _encoder(weights=name, size=224).backbone.features[0][0].weight
        assert torch.equal(weight, original.features[0][0].weight)


def test_weights_that_cannot_be_fetched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def unreachable(*_: object, **__: object) -> None:
        raise OSError("Name or service not known")

    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr("torch.hub.download_url_to_file", unreachable)
    with pytest.raises(
        ValueError, match=r"weights=DEFAULT of resnet50 cannot be fetched from https://.*Name or service"
    ):
        _encoder("resnet50", weights="DEFAULT", size=224)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"size": 192}, "size=224, got 192"),
        ({"interpolation": "bicubic"}, "interpolation=bilinear, got bicubic"),
        ({"mean": [0.5, 0.5, 0.5]}, r"mean=\(0.485, 0.456, 0.406\), got \(0.5, 0.5, 0.5\)"),
        ({"std": [0.5, 0.5, 0.5]}, r"std=\(0.229, 0.224, 0.225\), got \(0.5, 0.5, 0.5\)"),
    ],
)
def test_preprocessing_belongs_to_the_weights(options: dict[str, Any], message: str) -> None:
    """Trap 24: another size, interpolation, mean or std than in training is refused before anything is fetched."""
    with pytest.raises(ValueError, match=f"weights=IMAGENET1K_V2 of mobilenet_v2 were trained with {message}"):
        _encoder(**({"weights": "IMAGENET1K_V2", "size": 224} | options))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"name": "mobilenet_v9"}, "name=mobilenet_v9 is none of torchvision's models .*mobilenet_v2, .*resnet50"),
        ({"weights": "IMAGENET1K_V9"}, "weights=IMAGENET1K_V9 is neither .* which has IMAGENET1K_V1, IMAGENET1K_V2"),
        ({"size": 16}, "size must be >= 32, got 16"),
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


def test_one_missing_and_one_foreign_key(tmp_path: Path) -> None:
    weights = dict(_original("mobilenet_v2").state_dict())
    del weights["features.0.0.weight"]
    weights["classifier.2.weight"] = torch.ones(1)
    torch.save(weights, tmp_path / "w.pt")
    with pytest.raises(ValueError, match=r"1 missing \(features.0.0.weight\); 1 unexpected \(classifier.2.weight\)"):
        _encoder(weights=str(tmp_path / "w.pt"))


def test_fingerprint_knows_the_normalization() -> None:
    prints = set()
    for mean in ([0.5, 0.5, 0.5], [0.4, 0.5, 0.5]):
        torch.manual_seed(0)
        prints.add(_encoder(mean=mean).fingerprint())
    assert len(prints) == 2
