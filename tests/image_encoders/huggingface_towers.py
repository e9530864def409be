"""Hugging Face vision towers in small directories: the four of `layers.published`, and others of the library."""

from pathlib import Path
from typing import Any

import torch
import transformers
from layers.published import PICTURES, PREPROCESSING, SIZES, change, write

from mmlit.image_encoders.huggingface import HuggingFaceImageEncoder

FAMILIES = ("vit", "dinov2", "clip", "siglip")
PIXELS = torch.randint(256, (3, 3, 32, 32), generator=torch.Generator().manual_seed(3)).byte()
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


def vision_tower(name: str | Path, **options: Any) -> HuggingFaceImageEncoder:
    settings: dict[str, Any] = {"weights": "pretrained", "projection": False, "freeze": True}
    return HuggingFaceImageEncoder(**({"name": str(name)} | settings | options))


def publish_other(folder: Path, family: str) -> Any:
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
