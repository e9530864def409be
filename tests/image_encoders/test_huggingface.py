"""Hugging Face vision towers: equal to the original, pictures prepared as its own, refused where something is wrong."""

import io
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from layers.published import (
    PICTURES,
    PREPROCESSING,
    PROJECTED,
    SIZES,
    change,
    publish,
    without_gradient,
    write,
)
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import Tensor

from mmlit.data.decode import decode
from mmlit.image_encoders.huggingface import HuggingFaceImageEncoder
from mmlit.text_encoders.tiny import TinyTextEncoder

FAMILIES = ("vit", "dinov2", "clip", "siglip")
PIXELS = torch.randint(256, (3, 3, 32, 32), generator=torch.Generator().manual_seed(3)).byte()
CLOSE = {"rtol": 1e-4, "atol": 1e-5}
#: classes of the library and settings of towers beside the four
OTHERS: dict[str, tuple[str, dict[str, Any]]] = {
    "vit_msn": ("ViTMSN", SIZES | PICTURES),
    "deit": ("DeiT", SIZES | PICTURES),
    "dinov2_with_registers": ("Dinov2WithRegisters", SIZES | PICTURES | {"num_register_tokens": 3}),
    "beit": ("Beit", SIZES | PICTURES | {"use_mean_pooling": True}),
    "beit_class_token": ("Beit", SIZES | PICTURES | {"use_mean_pooling": False}),
    "swin": ("Swin", {"image_size": 32, "patch_size": 2, "embed_dim": 8, "depths": [1, 1], "num_heads": [1, 2]}),
    "convnext": ("ConvNext", {"hidden_sizes": [8, 12, 16, 20], "depths": [1, 1, 1, 1]}),
    "convnextv2": ("ConvNextV2", {"hidden_sizes": [8, 12, 16, 20], "depths": [1, 1, 1, 1]}),
    "resnet": ("ResNet", {"embedding_size": 8, "hidden_sizes": [8, 12, 16, 20], "depths": [1, 1, 1, 1]}),
}


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A directory of each of the four families."""
    return {family: publish(tmp_path_factory.mktemp(family), family) for family in FAMILIES}


@pytest.fixture
def copy(published: dict[str, Path], tmp_path: Path) -> Callable[[str], Path]:
    """A directory that a test may damage."""
    return lambda family: Path(shutil.copytree(published[family], tmp_path / family))


def _encoder(name: str | Path, **options: Any) -> HuggingFaceImageEncoder:
    settings: dict[str, Any] = {"weights": "pretrained", "projection": False, "freeze": True}
    return HuggingFaceImageEncoder(**({"name": str(name)} | settings | options))


def _normalized(family: str) -> Tensor:
    mean, std = (np.array(PREPROCESSING[family][key]).reshape(3, 1, 1) for key in ("image_mean", "image_std"))
    return torch.from_numpy((PIXELS.numpy() / 255 - mean) / std).float()


def _original(family: str, folder: Path) -> tuple[Tensor, Tensor]:
    """Tokens and pooled by the library's own classes."""
    pixels = _normalized(family)
    if family in ("vit", "dinov2"):
        states = transformers.AutoModel.from_pretrained(folder).eval()(pixel_values=pixels).last_hidden_state
        return states[:, 1:], states[:, 0]
    model = (transformers.CLIPModel if family == "clip" else transformers.SiglipModel).from_pretrained(folder).eval()
    output = model.vision_model(pixel_values=pixels)
    if family == "siglip":
        return output.last_hidden_state, output.pooler_output
    return model.vision_model.post_layernorm(output.last_hidden_state)[:, 1:], output.pooler_output


def _change_weights(folder: Path, change: dict[str, Tensor | None]) -> None:
    weights = load_file(folder / "model.safetensors") | change
    kept = {key: value for key, value in weights.items() if value is not None}
    save_file(kept, folder / "model.safetensors", metadata={"format": "pt"})


@torch.no_grad()
@pytest.mark.parametrize("family", FAMILIES)
def test_equals_the_original(published: dict[str, Path], family: str) -> None:
    encoder = _encoder(published[family])
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
    encoder = _encoder(published["clip"], projection=True)
    model = transformers.CLIPModel.from_pretrained(published["clip"]).eval()
    features = model.get_image_features(pixel_values=_normalized("clip"))
    features = features if isinstance(features, Tensor) else features.pooler_output
    tokens, _ = _original("clip", published["clip"])
    encoded = encoder(PIXELS)
    assert encoder.spec.dim == PROJECTED
    torch.testing.assert_close(encoded.pooled, features, **CLOSE)
    torch.testing.assert_close(encoded.tokens, model.visual_projection(tokens), **CLOSE)


@pytest.mark.parametrize("projection", [False, True])
def test_pooled_alone_is_the_same(published: dict[str, Path], projection: bool) -> None:
    """What nobody reads is not computed: the same pooled and the same gradients."""
    encoder = _encoder(published["clip"], projection=projection, freeze=False)
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
    features = model.get_image_features(pixel_values=_normalized("siglip"))
    features = features if isinstance(features, Tensor) else features.pooler_output
    torch.testing.assert_close(_encoder(published["siglip"])(PIXELS).pooled, features, **CLOSE)


def _publish_other(folder: Path, family: str) -> Any:
    name, settings = OTHERS[family]
    torch.manual_seed(0)
    model = getattr(transformers, f"{name}Model")(getattr(transformers, f"{name}Config")(**settings)).eval()
    for parameter in model.parameters():
        if parameter.ndim < 2:
            torch.nn.init.normal_(parameter, 0.5, 0.3)  # fresh norms and biases change nothing
    model.save_pretrained(folder)
    kind = {"deit": "DeiT", "beit": "Beit", "beit_class_token": "Beit"}.get(family, "ViT")
    write(folder / "preprocessor_config.json", PREPROCESSING["vit"] | {"image_processor_type": f"{kind}ImageProcessor"})
    if kind != "ViT":
        change(folder / "preprocessor_config.json", do_center_crop=False, crop_size=32)
    return model


@pytest.mark.parametrize("family", OTHERS)
def test_other_towers_equal_the_original(tmp_path: Path, family: str) -> None:
    """Pooled as the library pools, where it does so without a head of pre-training; every part is reached."""
    model = _publish_other(tmp_path, family)
    encoder = _encoder(tmp_path)
    with torch.no_grad():
        encoded, output = encoder(PIXELS), model(pixel_values=_normalized("vit"))
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
    trained = _encoder(tmp_path, freeze=False)
    assert without_gradient(trained, _texts(), tokens=False) == []


def _picture(width: int, height: int) -> Image.Image:
    coarse = np.random.default_rng(width).integers(0, 256, (7, 9, 3), dtype=np.uint8)
    return Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)


def _prepared(encoder: HuggingFaceImageEncoder, picture: Image.Image) -> Tensor:
    """What the tower sees of a file, in 0…255."""
    file, seen = io.BytesIO(), []
    picture.save(file, "png")
    pixels = decode(file.getvalue(), encoder.spec, exact=True)
    hook = encoder.tower.register_forward_pre_hook(
        lambda _, __, named: seen.append(named["pixel_values"]), with_kwargs=True
    )
    encoder(pixels[None])
    hook.remove()
    return 255 * (seen[0][0] * encoder.std + encoder.mean)


@pytest.mark.parametrize(
    ("family", "kind"), [("vit", "ViT"), ("dinov2", "Bit"), ("clip", "CLIP"), ("siglip", "Siglip")]
)
def test_pictures_are_prepared_as_by_the_library(published: dict[str, Path], family: str, kind: str) -> None:
    """Trap 24: to the last bit as its processor on PIL, and within one of 255 levels of that on tensors.

    The margins that are cropped are even: of an odd one torchvision, with which CLIP and DINOv2 were trained, and so
    `decode`, may leave a pixel more on the left than the library.
    """
    encoder = _encoder(published[family])
    names = [f"{kind}ImageProcessor", f"{kind}ImageProcessorPil", f"{kind}ImageProcessorFast"]
    processors = {name: getattr(transformers, name, None) for name in names}
    found = {name: processor for name, processor in processors.items() if processor is not None}
    assert len(found) >= 2
    for size in ((64, 64), (45, 36), (20, 25), (211, 150) if family == "dinov2" else (37, 61)):
        ours = _prepared(encoder, _picture(*size))
        for name, processor in found.items():
            theirs = processor.from_pretrained(published[family])(_picture(*size), return_tensors="pt")["pixel_values"]
            levels = (ours - 255 * (theirs[0] * encoder.std + encoder.mean)).abs().max()
            exact = name.endswith("Pil") or (f"{name}Pil" not in found and not name.endswith("Fast"))
            assert levels < (0.01 if exact else 1.01), (name, size)


SQUARE, SHORTER = {"height": 32, "width": 32}, {"shortest_edge": 32}
CONVNEXT = {"image_processor_type": "ConvNextImageProcessor", "resample": 3}


@pytest.mark.parametrize(
    ("family", "settings", "expected"),
    [
        ("vit", {"image_processor_type": None, "size": 32}, ("squash", "bilinear", None)),
        ("vit", {"image_processor_type": "ViTImageProcessorFast", "resample": 3}, ("squash", "bicubic", None)),
        (
            "vit",
            {"image_processor_type": None, "feature_extractor_type": "ViTFeatureExtractor"},
            ("squash", "bilinear", None),
        ),
        ("vit", {"resample": 1}, ("squash", "lanczos", None)),
        ("clip", {"size": SHORTER, "crop_size": SQUARE}, ("crop", "bicubic", None)),
        ("clip", {"image_processor_type": "CLIPImageProcessor", "size": 40}, ("crop", "bicubic", 40)),
        ("clip", {"size": SQUARE}, ("squash", "bicubic", None)),
        ("dinov2", {"size": {"shortest_edge": 40}, "crop_size": 32}, ("crop", "bicubic", 40)),
        ("dinov2", CONVNEXT | {"do_center_crop": None, "size": SHORTER, "crop_pct": 0.875}, ("crop", "bicubic", 36)),
        ("siglip", {"do_center_crop": None}, ("squash", "bicubic", None)),
    ],
)
def test_spellings_of_preprocessing(
    copy: Callable[[str], Path], family: str, settings: dict[str, Any], expected: tuple[str, str, int | None]
) -> None:
    """Of old and new files."""
    folder = copy(family)
    change(folder / "preprocessor_config.json", **settings)
    spec = _encoder(folder).spec
    assert (spec.size, spec.resize, spec.interpolation, spec.resize_to) == (32, *expected)


def test_the_library_names_nothing_itself(copy: Callable[[str], Path]) -> None:
    """The oldest files say neither filter nor kind: both are those that belong to the model type."""
    folder = copy("vit")
    oldest = {"do_normalize": True, "do_resize": True, "image_mean": [0.5] * 3, "image_std": [0.25] * 3, "size": 32}
    write(folder / "preprocessor_config.json", oldest)
    encoder = _encoder(folder)
    assert encoder.spec[1:] == (32, "squash", "bilinear", None)
    assert encoder.std.flatten().tolist() == [0.25] * 3


def test_preprocessing_inside_the_processor_s_file(copy: Callable[[str], Path]) -> None:
    """Where transformers 5 writes it."""
    folder = copy("clip")
    file = folder / "preprocessor_config.json"
    write(folder / "processor_config.json", {"image_processor": json.loads(file.read_text())})
    expected = _encoder(folder).fingerprint()
    file.unlink()
    assert _encoder(folder).fingerprint() == expected


def test_large_convnext_is_squashed(tmp_path: Path) -> None:
    _publish_other(tmp_path, "convnext")
    change(tmp_path / "preprocessor_config.json", **CONVNEXT, size={"shortest_edge": 384}, crop_pct=0.875)
    assert _encoder(tmp_path).spec[1:] == (384, "squash", "bicubic", None)


def test_pixels_as_they_are(copy: Callable[[str], Path]) -> None:
    folder = copy("vit")
    change(folder / "preprocessor_config.json", do_normalize=False)
    encoder = _encoder(folder)
    assert encoder.mean.flatten().tolist() == [0, 0, 0]
    assert encoder.std.flatten().tolist() == [1, 1, 1]


@pytest.mark.parametrize(
    ("family", "settings", "message"),
    [
        ("vit", {"do_resize": False}, "do_resize=false"),
        ("vit", {"do_rescale": False}, "do_rescale=False, rescale_factor=0.0039"),
        ("vit", {"rescale_factor": 1 / 127.5}, "rescale_factor=0.0078.* instead of 1/255"),
        ("vit", {"resample": 0}, "resample=0"),
        ("vit", {"image_mean": [0.5]}, r"image_mean=[\[(]0.5"),
        ("vit", {"size": {"height": 32, "width": 48}}, "size={'height': 32, 'width': 48}"),
        ("vit", {"size": {"height": 48, "width": 48}}, "makes pictures of 48 px, its tower takes 32"),
        ("siglip", {"size": {"height": 48, "width": 48}}, "makes pictures of 48 px, its tower takes 32"),
        ("clip", {"crop_size": 40, "size": 40}, "makes pictures of 40 px, its tower takes 32"),
        ("clip", {"crop_size": 32, "size": 24}, "size={'shortest_edge': 24}, center crop to"),
        ("clip", {"do_center_crop": False}, "size={'shortest_edge': 32}, center crop to None"),
        ("dinov2", {"crop_size": 33}, "makes pictures of 33 px, its patches have 8"),
        ("dinov2", {"size": {"shortest_edge": 36, "longest_edge": 40}}, "cannot be had here"),
        ("vit", {"image_processor_type": "DeiTImageProcessor", "size": 36, "crop_size": 32}, "center crop to"),
        (
            "vit",
            {"image_processor_type": "MobileViTImageProcessor"},
            "preprocessing by MobileViTImageProcessor is none",
        ),
        ("siglip", {"image_processor_type": "Siglip2ImageProcessor"}, "preprocessing by Siglip2ImageProcessor is none"),
    ],
)
def test_preprocessing_that_cannot_be_had(
    copy: Callable[[str], Path], family: str, settings: dict[str, Any], message: str
) -> None:
    """Trap 24: nothing is guessed."""
    folder = copy(family)
    change(
        folder / "preprocessor_config.json", **({"do_center_crop": True} if "crop_size" in settings else {}), **settings
    )
    with pytest.raises(ValueError, match=message) as told:
        _encoder(folder)
    assert str(folder) in str(told.value)


def test_missing_or_damaged_preprocessing(copy: Callable[[str], Path]) -> None:
    """Trap 24."""
    folder = copy("vit")
    file = folder / "preprocessor_config.json"
    write(file, {key: value for key, value in PREPROCESSING["vit"].items() if key != "size"})
    with pytest.raises(ValueError, match="it names no size"):
        _encoder(folder)
    file.write_text("{")
    with pytest.raises(ValueError, match=f"name={folder} cannot be read"):
        _encoder(folder)
    file.unlink()
    with pytest.raises(ValueError, match=f"name={folder} has no preprocessor_config.json"):
        _encoder(folder)


def test_towers_of_other_channels(copy: Callable[[str], Path]) -> None:
    folder = copy("vit")
    change(folder / "config.json", num_channels=1)
    with pytest.raises(ValueError, match="pictures of 1 channels"):
        _encoder(folder, weights=None)


@pytest.mark.parametrize("family", ["clip", "siglip"])
def test_only_this_half_is_kept(published: dict[str, Path], copy: Callable[[str], Path], family: str) -> None:
    """As many parameters as the picture side has; what the file holds of the other is not even looked at."""
    folder = copy(family)
    other = {key: None for key in load_file(folder / "model.safetensors") if key.startswith("text_")}
    _change_weights(folder, {**other, "logit_scale": None})
    whole = load_file(published[family] / "model.safetensors")
    own = sum(value.numel() for key, value in whole.items() if key.startswith("vision_model."))
    for name in (folder, published[family]):
        encoder = _encoder(name)
        assert sum(parameter.numel() for parameter in encoder.parameters()) == own
        assert not [key for key in encoder.state_dict() if "text" in key or "logit" in key]
    assert _encoder(folder).fingerprint() == _encoder(published[family]).fingerprint()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"vision_model.encoder.layers.1.mlp.fc2.bias": None}, r"1 missing \((vision_model.)?encoder.layers.1.mlp.fc2"),
        ({"vision_model.encoder.layers.2.mlp.fc2.bias": torch.ones(32)}, r"1 unexpected \(.*layers.2.mlp.fc2.bias"),
        ({"vision_model.post_layernorm.bias": torch.ones(9)}, r"1 of another shape \((vision_model.)?post_layernorm"),
        ({"somewhere.else": torch.ones(9)}, r"1 unexpected \(somewhere.else\)"),
    ],
)
def test_weights_that_do_not_fit(copy: Callable[[str], Path], change: dict[str, Tensor | None], message: str) -> None:
    """Strict about this half, in the directory itself and in a file of its own."""
    folder = copy("clip")
    _change_weights(folder, change)
    shutil.copy(folder / "model.safetensors", folder / "other.safetensors")
    for weights in ("pretrained", str(folder / "other.safetensors")):
        with pytest.raises(ValueError, match=rf"does not fit the model, keys: {message}"):
            _encoder(folder, weights=weights)


@pytest.mark.parametrize("family", ["clip", "siglip"])
def test_directories_of_the_picture_side_alone(published: dict[str, Path], tmp_path: Path, family: str) -> None:
    kind = "CLIP" if family == "clip" else "Siglip"
    model = getattr(transformers, f"{kind}VisionModel").from_pretrained(published[family])
    model.save_pretrained(tmp_path)
    shutil.copy(published[family] / "preprocessor_config.json", tmp_path)
    expected = _encoder(published[family])(PIXELS)
    assert torch.equal(_encoder(tmp_path)(PIXELS).pooled, expected.pooled)
    with pytest.raises(ValueError, match=rf"projection=true: name={tmp_path} is a {family}_vision_model model without"):
        _encoder(tmp_path, projection=True)


def test_picture_side_with_its_projection(published: dict[str, Path], tmp_path: Path) -> None:
    vision = transformers.CLIPConfig.from_pretrained(published["clip"]).vision_config
    vision.projection_dim = PROJECTED
    model = transformers.CLIPVisionModelWithProjection.from_pretrained(published["clip"], config=vision)
    model.save_pretrained(tmp_path)
    shutil.copy(published["clip"] / "preprocessor_config.json", tmp_path)
    for projection in (True, False):
        encoded = _encoder(tmp_path, projection=projection)(PIXELS)
        assert torch.equal(encoded.pooled, _encoder(published["clip"], projection=projection)(PIXELS).pooled)


@pytest.mark.parametrize("family", ["vit", "dinov2", "siglip"])
def test_projection_that_is_not_there(published: dict[str, Path], family: str) -> None:
    with pytest.raises(ValueError, match=rf"projection=true: name={published[family]} is a {family} model without"):
        _encoder(published[family], projection=True)


def test_models_that_are_no_vision_towers(tmp_path: Path, tiny_bert: str) -> None:
    with pytest.raises(ValueError, match=rf"name={tiny_bert} is a bert model: none of the vision towers"):
        _encoder(tiny_bert)
    write(tmp_path / "config.json", {"model_type": "clip_text_model"})
    with pytest.raises(ValueError, match="is a clip_text_model model: none of the vision towers"):
        _encoder(tmp_path)
    with pytest.raises(ValueError, match="name=no/such is neither a directory nor obtainable"):
        _encoder("no/such")


def test_siglip_without_a_head(copy: Callable[[str], Path]) -> None:
    folder = copy("siglip")
    config = json.loads((folder / "config.json").read_text())
    change(folder / "config.json", vision_config=config["vision_config"] | {"vision_use_head": False})
    with pytest.raises(ValueError, match="has no head that pools its patches"):
        _encoder(folder, weights=None)


@pytest.mark.parametrize("layout", ["bin", "shards", "half", "position_ids"])
@pytest.mark.parametrize("family", ["vit", "clip"])
def test_layouts_of_weights(published: dict[str, Path], copy: Callable[[str], Path], family: str, layout: str) -> None:
    folder = copy(family)
    _lay_out(folder, layout)
    expected, encoder = _encoder(published[family]), _encoder(folder)
    assert {parameter.dtype for parameter in encoder.parameters()} == {torch.float32}
    for key, value in expected.state_dict().items():
        torch.testing.assert_close(encoder.state_dict()[key], value, rtol=1e-3, atol=1e-3 if layout == "half" else 0)


def _lay_out(folder: Path, layout: str) -> None:
    """The same weights in a pickle, in two files with an index, in half precision, or with old files' constants."""
    file = folder / "model.safetensors"
    weights = load_file(file)
    if layout == "bin":
        torch.save(weights, folder / "pytorch_model.bin")
        file.unlink()
    elif layout == "shards":
        places = {key: f"model-0000{1 + i % 2}-of-00002.safetensors" for i, key in enumerate(weights)}
        for name in set(places.values()):
            part = {key: value for key, value in weights.items() if places[key] == name}
            save_file(part, folder / name, metadata={"format": "pt"})
        write(folder / "model.safetensors.index.json", {"metadata": {"total_size": 1}, "weight_map": places})
        file.unlink()
    elif layout == "half":
        change(folder / "config.json", torch_dtype="float16")
        save_file({key: value.half() for key, value in weights.items()}, file, metadata={"format": "pt"})
    else:
        _change_weights(
            folder, {f"{side}_model.embeddings.position_ids": torch.arange(9)[None] for side in ("vision", "text")}
        )


def test_random_weights_and_weights_of_a_file(published: dict[str, Path], tmp_path: Path) -> None:
    """The file may be the whole pair's."""
    folder = published["clip"]
    file = tmp_path / "weights.pt"
    torch.save(load_file(folder / "model.safetensors"), file)
    expected = _encoder(folder, projection=True).fingerprint()
    assert _encoder(folder, projection=True, weights=str(file)).fingerprint() == expected
    assert _encoder(folder, projection=True, weights=None).fingerprint() != expected
    with pytest.raises(FileNotFoundError, match=r"weights=/no/such\.pt: no such file"):
        _encoder(folder, weights="/no/such.pt")
    with pytest.raises(ValueError, match=r"weights must be pretrained, null, or a .* file, got best"):
        _encoder(folder, weights="best")


def _texts() -> TinyTextEncoder:
    return TinyTextEncoder(vocabulary_size=64, max_length=16, dim=32, num_layers=1, freeze=False)


@pytest.mark.parametrize("tokens", [False, True], ids=["contrastive", "cross_attention"])
@pytest.mark.parametrize("family", [*FAMILIES, "projected"])
def test_no_parameter_without_gradient(published: dict[str, Path], family: str, tokens: bool) -> None:
    """Several devices stop at one; mask tokens and poolers are gone."""
    projected = family == "projected"
    encoder = _encoder(published["clip" if projected else family], projection=projected, freeze=False)
    assert encoder.training
    assert all(parameter.requires_grad for parameter in encoder.parameters())
    assert without_gradient(encoder, _texts(), tokens=tokens) == []


def test_frozen_means_frozen(published: dict[str, Path]) -> None:
    """Trap 22."""
    encoder = _encoder(published["vit"]).train()
    assert not any(module.training for module in encoder.modules())
    assert not any(parameter.requires_grad for parameter in encoder.parameters())


@torch.no_grad()
@pytest.mark.parametrize("family", FAMILIES)
def test_half_precision_arithmetic(published: dict[str, Path], family: str) -> None:
    encoder = _encoder(published[family])
    expected = encoder(PIXELS)
    with torch.autocast("cpu", torch.bfloat16):
        encoded = encoder(PIXELS)
    for one, other in zip(encoded[:2], expected[:2], strict=True):
        assert (one.float() - other).norm() < 0.05 * other.norm()


def test_fingerprint_knows_what_changes_the_output(published: dict[str, Path], copy: Callable[[str], Path]) -> None:
    """Mean, deviation, filter, projection, and settings of the tower that no weight tells."""
    folder = copy("clip")
    prints = {_encoder(folder).fingerprint(), _encoder(folder, projection=True).fingerprint()}
    for settings in ({"image_mean": [0.5] * 3}, {"image_std": [0.5] * 3}, {"resample": 2}):
        write(folder / "preprocessor_config.json", PREPROCESSING["clip"] | settings)
        prints.add(_encoder(folder).fingerprint())
    shutil.copy(published["clip"] / "preprocessor_config.json", folder)
    assert _encoder(folder).fingerprint() in prints
    config = json.loads((folder / "config.json").read_text())
    change(folder / "config.json", vision_config=config["vision_config"] | {"num_attention_heads": 4})
    prints.add(_encoder(folder).fingerprint())
    assert len(prints) == 6


def test_the_library_stays_quiet(published: dict[str, Path], capsys: Any, caplog: pytest.LogCaptureFixture) -> None:
    _encoder(published["clip"])
    assert "".join(capsys.readouterr()) == ""
    assert not caplog.records
