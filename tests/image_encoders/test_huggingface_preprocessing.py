"""Pictures of Hugging Face vision towers: prepared as the library prepares them, refused where that cannot be had."""

import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import transformers
from image_encoders.huggingface_towers import publish_other, vision_tower
from layers.published import PREPROCESSING, change, write
from PIL import Image
from torch import Tensor

from mmlit.data.decode import decode
from mmlit.image_encoders.huggingface import HuggingFaceImageEncoder


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
    encoder = vision_tower(published[family])
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
    spec = vision_tower(folder).spec
    assert (spec.size, spec.resize, spec.interpolation, spec.resize_to) == (32, *expected)


def test_the_library_names_nothing_itself(copy: Callable[[str], Path]) -> None:
    """The oldest files say neither filter nor kind: both are those that belong to the model type."""
    folder = copy("vit")
    oldest = {"do_normalize": True, "do_resize": True, "image_mean": [0.5] * 3, "image_std": [0.25] * 3, "size": 32}
    write(folder / "preprocessor_config.json", oldest)
    encoder = vision_tower(folder)
    assert encoder.spec[1:] == (32, "squash", "bilinear", None)
    assert encoder.std.flatten().tolist() == [0.25] * 3


def test_preprocessing_inside_the_processor_s_file(copy: Callable[[str], Path]) -> None:
    """Where transformers 5 writes it."""
    folder = copy("clip")
    file = folder / "preprocessor_config.json"
    write(folder / "processor_config.json", {"image_processor": json.loads(file.read_text())})
    expected = vision_tower(folder).fingerprint()
    file.unlink()
    assert vision_tower(folder).fingerprint() == expected


def test_large_convnext_is_squashed(tmp_path: Path) -> None:
    publish_other(tmp_path, "convnext")
    change(tmp_path / "preprocessor_config.json", **CONVNEXT, size={"shortest_edge": 384}, crop_pct=0.875)
    assert vision_tower(tmp_path).spec[1:] == (384, "squash", "bicubic", None)


def test_pixels_as_they_are(copy: Callable[[str], Path]) -> None:
    folder = copy("vit")
    change(folder / "preprocessor_config.json", do_normalize=False)
    encoder = vision_tower(folder)
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
        vision_tower(folder)
    assert str(folder) in str(told.value)


def test_missing_or_damaged_preprocessing(copy: Callable[[str], Path]) -> None:
    """Trap 24."""
    folder = copy("vit")
    file = folder / "preprocessor_config.json"
    write(file, {key: value for key, value in PREPROCESSING["vit"].items() if key != "size"})
    with pytest.raises(ValueError, match="it names no size"):
        vision_tower(folder)
    file.write_text("{")
    with pytest.raises(ValueError, match=f"name={folder} cannot be read"):
        vision_tower(folder)
    file.unlink()
    with pytest.raises(ValueError, match=f"name={folder} has no preprocessor_config.json"):
        vision_tower(folder)


def test_towers_of_other_channels(copy: Callable[[str], Path]) -> None:
    folder = copy("vit")
    change(folder / "config.json", num_channels=1)
    with pytest.raises(ValueError, match="pictures of 1 channels"):
        vision_tower(folder, weights=None)
