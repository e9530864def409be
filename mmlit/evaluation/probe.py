"""Evaluations with pictures and texts of their own: what they ask of a model, and what they say."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
from PIL import Image
from torch import Tensor

from mmlit.contracts import Encoded


class Scorer(Protocol):
    """A pair of towers with its alignment, as `mmlit.load` gives it."""

    def encode_images(self, images: Sequence[str | Path | bytes | Image.Image], *, batch_size: int = 64) -> Encoded:
        """Paths, undecoded bytes or pictures → N embedded images."""

    def encode_texts(self, texts: Sequence[str], *, batch_size: int = 256) -> Encoded:
        """M texts → M embedded texts."""

    def score(self, image: Encoded, text: Encoded) -> Tensor:
        """(N,M), higher = closer."""


class ProbeResult(NamedTuple):
    """Numbers of a probe.

    `metrics` are finite, percent where they are shares. `items` has one array per question asked, of equal meaning
    over models (which item was right), so that two models can be compared item by item. `counts` says how much was
    asked, `protocol` what two results must share to be comparable; both are plain. `scored` says how scores were made,
    in which comparable results may differ.
    """

    metrics: dict[str, float]
    items: dict[str, np.ndarray]
    counts: dict[str, int]
    protocol: dict[str, Any]
    scored: str = "full"


class Probe(ABC):
    """An evaluation that brings its own pictures and texts, for any alignment."""

    @abstractmethod
    def evaluate(self, model: Scorer) -> ProbeResult:
        """Asks the model everything."""
