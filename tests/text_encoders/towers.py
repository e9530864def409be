"""Hugging Face text towers of small directories."""

import json
from pathlib import Path
from typing import Any

from layers.published import change

from mmlit.text_encoders.huggingface import HuggingFaceTextEncoder
from mmlit.text_encoders.pair import PairTextEncoder

FAMILIES = ("bert", "minilm", "distilbert", "roberta", "modernbert")
PAIRS = ("clip", "siglip")


def text_tower(name: str | Path, **options: Any) -> HuggingFaceTextEncoder:
    settings: dict[str, Any] = {"weights": "pretrained", "pooling": "mean", "max_length": 16, "freeze": True}
    return HuggingFaceTextEncoder(**({"name": str(name)} | settings | options))


def pair_tower(name: str | Path, **options: Any) -> PairTextEncoder:
    settings: dict[str, Any] = {"weights": "pretrained", "projection": False, "max_length": 40, "freeze": True}
    return PairTextEncoder(**({"name": str(name)} | settings | options))


def change_text(folder: Path, **entries: Any) -> None:
    config = json.loads((folder / "config.json").read_text())
    change(folder / "config.json", text_config=config["text_config"] | entries)
