"""Directories of Hugging Face vision towers: any layout of weights, the picture side alone, nothing that misfits."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import transformers
from image_encoders.huggingface_towers import PIXELS, vision_tower
from layers.published import PROJECTED, change, change_weights, write
from safetensors.torch import load_file, save_file
from torch import Tensor


@pytest.mark.parametrize("family", ["clip", "siglip"])
def test_only_this_half_is_kept(published: dict[str, Path], copy: Callable[[str], Path], family: str) -> None:
    """As many parameters as the picture side has; what the file holds of the other is not even looked at."""
    folder = copy(family)
    other = {key: None for key in load_file(folder / "model.safetensors") if key.startswith("text_")}
    change_weights(folder, {**other, "logit_scale": None})
    whole = load_file(published[family] / "model.safetensors")
    own = sum(value.numel() for key, value in whole.items() if key.startswith("vision_model."))
    for name in (folder, published[family]):
        encoder = vision_tower(name)
        assert sum(parameter.numel() for parameter in encoder.parameters()) == own
        assert not [key for key in encoder.state_dict() if "text" in key or "logit" in key]
    assert vision_tower(folder).fingerprint() == vision_tower(published[family]).fingerprint()


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
    change_weights(folder, change)
    shutil.copy(folder / "model.safetensors", folder / "other.safetensors")
    for weights in ("pretrained", str(folder / "other.safetensors")):
        with pytest.raises(ValueError, match=rf"does not fit the model, keys: {message}"):
            vision_tower(folder, weights=weights)


@pytest.mark.parametrize("family", ["clip", "siglip"])
def test_directories_of_the_picture_side_alone(published: dict[str, Path], tmp_path: Path, family: str) -> None:
    kind = "CLIP" if family == "clip" else "Siglip"
    model = getattr(transformers, f"{kind}VisionModel").from_pretrained(published[family])
    model.save_pretrained(tmp_path)
    shutil.copy(published[family] / "preprocessor_config.json", tmp_path)
    expected = vision_tower(published[family])(PIXELS)
    assert torch.equal(vision_tower(tmp_path)(PIXELS).pooled, expected.pooled)
    with pytest.raises(ValueError, match=rf"projection=true: name={tmp_path} is a {family}_vision_model model without"):
        vision_tower(tmp_path, projection=True)


def test_picture_side_with_its_projection(published: dict[str, Path], tmp_path: Path) -> None:
    vision = transformers.CLIPConfig.from_pretrained(published["clip"]).vision_config
    vision.projection_dim = PROJECTED
    model = transformers.CLIPVisionModelWithProjection.from_pretrained(published["clip"], config=vision)
    model.save_pretrained(tmp_path)
    shutil.copy(published["clip"] / "preprocessor_config.json", tmp_path)
    for projection in (True, False):
        encoded = vision_tower(tmp_path, projection=projection)(PIXELS)
        assert torch.equal(encoded.pooled, vision_tower(published["clip"], projection=projection)(PIXELS).pooled)


@pytest.mark.parametrize("family", ["vit", "dinov2", "siglip"])
def test_projection_that_is_not_there(published: dict[str, Path], family: str) -> None:
    with pytest.raises(ValueError, match=rf"projection=true: name={published[family]} is a {family} model without"):
        vision_tower(published[family], projection=True)


def test_models_that_are_no_vision_towers(tmp_path: Path, tiny_bert: str) -> None:
    with pytest.raises(ValueError, match=rf"name={tiny_bert} is a bert model: none of the vision towers"):
        vision_tower(tiny_bert)
    write(tmp_path / "config.json", {"model_type": "clip_text_model"})
    with pytest.raises(ValueError, match="is a clip_text_model model: none of the vision towers"):
        vision_tower(tmp_path)
    with pytest.raises(ValueError, match="name=no/such is neither a directory nor obtainable"):
        vision_tower("no/such")


def test_siglip_without_a_head(copy: Callable[[str], Path]) -> None:
    folder = copy("siglip")
    config = json.loads((folder / "config.json").read_text())
    change(folder / "config.json", vision_config=config["vision_config"] | {"vision_use_head": False})
    with pytest.raises(ValueError, match="has no head that pools its patches"):
        vision_tower(folder, weights=None)


@pytest.mark.parametrize("layout", ["bin", "shards", "half", "position_ids"])
@pytest.mark.parametrize("family", ["vit", "clip"])
def test_layouts_of_weights(published: dict[str, Path], copy: Callable[[str], Path], family: str, layout: str) -> None:
    folder = copy(family)
    _lay_out(folder, layout)
    expected, encoder = vision_tower(published[family]), vision_tower(folder)
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
        change_weights(
            folder, {f"{side}_model.embeddings.position_ids": torch.arange(9)[None] for side in ("vision", "text")}
        )


def test_random_weights_and_weights_of_a_file(published: dict[str, Path], tmp_path: Path) -> None:
    """The file may be the whole pair's."""
    folder = published["clip"]
    file = tmp_path / "weights.pt"
    torch.save(load_file(folder / "model.safetensors"), file)
    expected = vision_tower(folder, projection=True).fingerprint()
    assert vision_tower(folder, projection=True, weights=str(file)).fingerprint() == expected
    assert vision_tower(folder, projection=True, weights=None).fingerprint() != expected
    with pytest.raises(FileNotFoundError, match=r"weights=/no/such\.pt: no such file"):
        vision_tower(folder, weights="/no/such.pt")
    with pytest.raises(ValueError, match=r"weights must be pretrained, null, or a .* file, got best"):
        vision_tower(folder, weights="best")
