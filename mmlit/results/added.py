"""Options that classes got after the first release, and what runs mean that were made before."""

from collections.abc import Mapping
from typing import Any

_ADDED: dict[str, dict[str, Any]] = {
    "mmlit.image_encoders.torchvision.TorchvisionEncoder": {"resize_to": None, "padding": "symmetric"},
    "mmlit.evaluation.retrieval.Retrieval": {
        "images": None,
        "captions_per_image": None,
        "folds": 1,
        "truths": [],
        "rerank_ks": [],
    },
    "mmlit.alignments.joint.Joint": {
        "contrast_term": 1.0,
        "match_term": 1.0,
        "words_term": 0.0,
        "distillation": 0.0,
        "momentum": None,
    },
    "mmlit.alignments.contrastive.Contrastive": {"label_smoothing": 0.0, "hardness": 0.0, "decoupled": False},
}


def completed(node: Mapping[str, Any]) -> dict[str, Any]:
    """A class's node of a configuration with all options that the class has today."""
    return {**_ADDED.get(str(node.get("_target_")), {}), **node}
