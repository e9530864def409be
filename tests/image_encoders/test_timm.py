"""Models of timm: equal to the original, prepared as timm prepares, loaded from real files, refused where one must."""

import sys
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
import yaml
from contract.alignment_inputs import TEXT, batch_of, pairs_of, total
from hydra.utils import instantiate
from omegaconf import OmegaConf
from PIL import Image
from safetensors.torch import save_file
from torch import Tensor, nn

from mmlit.contracts import ImageSpec
from mmlit.data.decode import decode
from mmlit.image_encoders.timm import TimmEncoder

CONF = Path(__file__).parents[2] / "conf"

#: patches with a class token, a grid, and a grid behind which the head has a norm
NAMES = ["test_vit.r160_in1k", "test_resnet.r160_in1k", "test_convnext.r160_in1k"]
#: a small Swin
SWIN = {"embed_dim": 16, "depths": [1, 1], "num_heads": [1, 2], "window_size": 4, "img_size": 64}


def _original(name: str, **options: Any) -> Any:
    """In no layer the weights of a fresh one: neither in batch norms, nor in layer scales, nor in heads."""
    torch.manual_seed(1)
    model = timm.create_model(name, **options)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.numel() > 1 and parameter.std() < 1e-8:
                parameter.add_(0.1 * torch.randn_like(parameter))
        size = timm.data.resolve_model_data_config(model)["input_size"][1]
        model(torch.randn(4, 3, size, size))
    return model.eval()


def _encoder(name: str = NAMES[0], weights: str | None = None, *, freeze: bool = True) -> TimmEncoder:
    return TimmEncoder(name=name, weights=weights, freeze=freeze)


def _pictures(size: int, count: int = 2) -> Tensor:
    return torch.randint(0, 256, (count, 3, size, size), dtype=torch.uint8, generator=torch.Generator().manual_seed(2))


def _normalized(model: Any, pixels: Tensor) -> Tensor:
    config = timm.data.resolve_model_data_config(model)
    mean, std = (torch.tensor(config[key]).view(3, 1, 1) for key in ("mean", "std"))
    return (pixels / 255 - mean) / std


def _equal(encoder: TimmEncoder, original: Any) -> None:
    """The original's logits follow from `pooled`, and the tokens are its features without what is no patch."""
    pixels = _pictures(encoder.spec.size)
    encoded = encoder(pixels)
    normalized = _normalized(original, pixels)
    logits = original(normalized)
    assert logits.std() > 1e-3
    torch.testing.assert_close(original.get_classifier()(encoded.pooled), logits, rtol=1e-3, atol=1e-4)
    features = original.forward_features(normalized)
    if features.ndim == 4:
        if getattr(original, "output_fmt", "NCHW") == "NHWC":
            features = features.movedim(3, 1)
        cells = [features[:, :, row, column] for row in range(features.shape[2]) for column in range(features.shape[3])]
        features = torch.stack(cells, 1)
    else:
        features = features[:, original.num_prefix_tokens :]
    torch.testing.assert_close(encoded.tokens, features, rtol=1e-3, atol=1e-4)
    assert encoded.mask.shape == encoded.tokens.shape[:2]
    assert encoded.mask.all()
    assert encoder.spec.dim == encoded.tokens.shape[2] == encoded.pooled.shape[1]


@pytest.mark.parametrize("head", [True, False], ids=["with_head", "without_head"])
@pytest.mark.parametrize("name", NAMES)
@torch.no_grad()
def test_equals_the_original(tmp_path: Path, name: str, head: bool) -> None:
    original, path = _original(name), str(tmp_path / "weights.safetensors")
    save_file({key: value for key, value in original.state_dict().items() if head or "head.weight" not in key}, path)
    _equal(_encoder(name, path), original)


@torch.no_grad()
def test_a_folder_in_timms_layout(tmp_path: Path) -> None:
    """`pretrained` by way of timm itself, on a Swin, whose grid has the channels last."""
    name = "swin_tiny_patch4_window7_224"
    original = _original(name, **SWIN, pretrained_cfg_overlay={"input_size": (3, 64, 64)})
    assert original.output_fmt == "NHWC"
    timm.models.save_for_hf(original, tmp_path, model_args=SWIN, safe_serialization=True)
    encoder = _encoder(f"local-dir:{tmp_path}", "pretrained")
    assert encoder.spec.size == 64
    assert encoder(_pictures(64)).tokens.shape == (2, 64, 32)
    _equal(encoder, original)


@pytest.mark.parametrize("name", NAMES)
@torch.no_grad()
def test_low_precision(name: str) -> None:
    torch.manual_seed(0)
    encoder = _encoder(name)
    pixels = _pictures(encoder.spec.size)
    exact = encoder(pixels)
    with torch.autocast("cpu", torch.bfloat16):
        rounded = encoder(pixels)
    assert encoder.mean.dtype == encoder.std.dtype == torch.float32
    for one, other in zip(rounded[:2], exact[:2], strict=True):
        assert torch.cosine_similarity(one.float(), other, dim=-1).min() > 0.99


@pytest.mark.parametrize("alignment", ["contrastive", "cross_attention"])
@pytest.mark.parametrize("name", NAMES)
def test_every_parameter_gets_a_gradient(name: str, alignment: str) -> None:
    """Several devices fail on one without: `contrastive` reads pooled only, `cross_attention` tokens and pooled."""
    encoder = _encoder(name, freeze=False)
    assert all(part.training for part in encoder.modules())
    method = instantiate(OmegaConf.load(CONF / "alignment" / f"{alignment}.yaml"), image=encoder.spec, text=TEXT)
    given = batch_of([3, 1, 4], [4, 3, 1])._replace(image=encoder(_pictures(encoder.spec.size, 3)))
    total(method.losses(pairs_of(method, given))).backward()
    assert all(parameter.requires_grad for parameter in encoder.parameters())
    assert [key for key, parameter in encoder.named_parameters() if parameter.grad is None] == []


def test_what_pooled_does_not_reach_is_not_trained(monkeypatch: pytest.MonkeyPatch) -> None:
    """A head for something else that timm's `reset_classifier` leaves in place."""
    create = timm.create_model

    def with_another_head(name: str, **options: Any) -> nn.Module:
        model = create(name, **options)
        model.another = nn.Linear(2, 2)
        return model

    monkeypatch.setattr(timm, "create_model", with_another_head)
    with torch.no_grad():  # whatever the caller does
        encoder = _encoder(freeze=False)
    idle = {key for key, parameter in encoder.named_parameters() if not parameter.requires_grad}
    assert idle == {"backbone.another.weight", "backbone.another.bias"}
    assert all(part.training for part in encoder.modules())


@pytest.mark.parametrize("size", [(301, 203), (203, 301), (97, 131), (160, 160)])
@pytest.mark.parametrize("name", [*NAMES, "vit_tiny_patch16_224.augreg_in21k_ft_in1k"])
def test_pictures_are_prepared_as_timm_does(tmp_path: Path, name: str, size: tuple[int, int]) -> None:
    """Trap 24: every pixel, and what the normalization makes of it, is that of timm's own evaluation transform."""
    encoder = _encoder(name)
    config = timm.data.resolve_model_data_config(timm.create_model(name))
    path, (width, height) = tmp_path / "picture.png", size
    Image.fromarray(_pictures(400)[0].permute(1, 2, 0).numpy()[:height, :width]).save(path)
    transform = timm.data.create_transform(**config, is_training=False)
    pixels = decode(path.read_bytes(), encoder.spec, exact=True)
    expected = transform(Image.open(path))
    torch.testing.assert_close((pixels / 255 - encoder.mean) / encoder.std, expected, rtol=0, atol=1e-5)


def test_yaml_names_a_model_of_timm() -> None:
    """What the comment says of it: 22 million parameters, 14 x 14 tokens of 384; the tag is one of timm's."""
    node = yaml.safe_load((CONF / "image_encoder" / "timm.yaml").read_text())
    name, _, tag = node["name"].partition(".")
    assert tag in {full.partition(".")[2] for full in timm.list_pretrained(f"{name}.*")}
    encoder = _encoder(node["name"])
    assert node["weights"] == "pretrained"
    assert encoder.spec == ImageSpec(384, 224, "crop", "bicubic", 248)
    assert sum(parameter.numel() for parameter in encoder.parameters()) == pytest.approx(22e6, rel=0.02)
    assert encoder.mean.flatten().tolist() == encoder.std.flatten().tolist() == [0.5] * 3


@pytest.mark.parametrize(
    ("overlay", "spec"),
    [
        ({"crop_pct": 1.0, "crop_mode": "squash"}, ImageSpec(64, 160, "squash", "bicubic", None)),
        ({"crop_pct": 0.7, "interpolation": "lanczos"}, ImageSpec(64, 160, "crop", "lanczos", 228)),
        ({"crop_pct": 0.9, "crop_mode": "squash"}, None),
        ({"crop_mode": "border"}, None),
        ({"interpolation": "nearest"}, None),
        ({"crop_pct": 1.1}, None),
    ],
)
def test_preprocessing_that_cannot_be_followed(
    overlay: dict[str, Any], spec: ImageSpec | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Trap 24: refused rather than nearly followed."""
    create = timm.create_model
    monkeypatch.setattr(timm, "create_model", lambda *rest, **o: create(*rest, **o, pretrained_cfg_overlay=overlay))
    if spec is not None:
        assert _encoder().spec == spec
        return
    with pytest.raises(ValueError, match=r"name=test_vit.r160_in1k: pictures cannot be prepared as timm does: .*crop_"):
        _encoder()


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("vit_nothing", "name=vit_nothing: timm has no such model"),
        ("mobilenetv3_smal_050", "has no such model; near: .*mobilenetv3_small_050"),
        ("test_vit.nothing", "name=test_vit.nothing, weights=None: timm cannot make it: .*nothing"),
        ("mobilenetv3_small_050", "name=mobilenetv3_small_050: its tokens are 288 wide, but pooled is 1024"),
        ("pit_ti_224", "name=pit_ti_224 gives 1 tokens, no square grid of patches"),
        ("coat_tiny", "CoaT of timm gives no single grid of tokens"),
    ],
)
def test_models_that_cannot_be_used(name: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        _encoder(name)


def test_weights_that_cannot_be_used(tmp_path: Path) -> None:
    with pytest.raises(
        ValueError, match=r"weights must be null, pretrained, or a \.safetensors, .*, got IMAGENET1K_V1"
    ):
        _encoder(weights="IMAGENET1K_V1")
    with pytest.raises(FileNotFoundError, match=r"nothing\.pt: no such file"):
        _encoder(weights=str(tmp_path / "nothing.pt"))
    path = tmp_path / "other.pt"
    torch.save(_original(NAMES[1]).state_dict(), path)
    with pytest.raises(ValueError, match=r"other\.pt for name=test_vit.* does not fit the model, keys: .* unexpected"):
        _encoder(weights=str(path))
    with pytest.raises(ValueError, match=rf"name=local-dir:{tmp_path}, weights=pretrained: timm cannot make it: "):
        _encoder(f"local-dir:{tmp_path}", "pretrained")


def test_without_timm_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(ValueError, match=r"name=test_vit needs the timm library: pip install -e '\.\[timm\]'"):
        _encoder("test_vit")


def test_fingerprint_knows_the_name_and_the_weights(tmp_path: Path) -> None:
    prints = set()
    for name, seed in ((NAMES[0], 0), (NAMES[0], 0), ("test_vit", 0), (NAMES[0], 1)):
        torch.manual_seed(seed)
        prints.add(_encoder(name).fingerprint())
    assert len(prints) == 3
