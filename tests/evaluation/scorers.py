"""Fake models whose scores are told by the captions, as a dual encoder and as a fusion strategy, and pictures for them.

A picture has one grey, 8 × its number. "3=0.9 1=-0.2" scores 0.9 with picture 3, −0.2 with picture 1 and 0 with the
others; words without = are decoration.
"""

import hashlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from mmlit.contracts import Encoded
from mmlit.layers.similarity import pooled_only

NUM = 32


def draw(path: Path, number: int, *, side: int = 8) -> Path:
    """Picture `number`, 0 … 31."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (side, side), (8 * number,) * 3).save(path)
    return path


def told(text: str) -> list[float]:
    """The scores of a caption with all pictures."""
    scores = [0.0] * NUM
    for word in text.split():
        number, sign, score = word.partition("=")
        if sign:
            scores[int(number)] = float(score)
    return scores


class _Scorer:
    """Reads pictures; remembers how many it was given, and how large the largest batch of texts was."""

    def __init__(self) -> None:
        self.seen: list[int] = []
        self.num_texts = 0

    def numbers(self, images: Sequence[str | Path | bytes | Image.Image]) -> list[int]:
        found = []
        for image in images:
            opened = image if isinstance(image, Image.Image) else Image.open(image)
            found.append(round(float(np.asarray(opened.convert("L")).mean()) / 8))
        self.seen += found
        return found


class Dual(_Scorer):
    """Unit vectors and their cosine: tokens of length 0."""

    def encode_images(self, images: Sequence[str | Path | bytes | Image.Image], *, batch_size: int = 64) -> Encoded:
        return pooled_only(torch.eye(NUM + 1)[self.numbers(images)])

    def encode_texts(self, texts: Sequence[str], *, batch_size: int = 256) -> Encoded:
        self.num_texts += len(texts)
        told_scores = torch.tensor([told(text) for text in texts])
        rest = (1 - told_scores.square().sum(1, keepdim=True)).sqrt()
        return pooled_only(torch.cat([told_scores, rest], 1))

    def score(self, image: Encoded, text: Encoded) -> Tensor:
        return image.pooled @ text.pooled.T


class Fusion(_Scorer):
    """Judges pairs: it reads the caption off the text's tokens, as many as there are in the block."""

    def encode_images(self, images: Sequence[str | Path | bytes | Image.Image], *, batch_size: int = 64) -> Encoded:
        number = torch.tensor(self.numbers(images)).float()[:, None, None]
        return Encoded(number, torch.randn(len(number), 4), torch.ones(len(number), 1).bool())

    def encode_texts(self, texts: Sequence[str], *, batch_size: int = 256) -> Encoded:
        self.num_texts += len(texts)
        longest = max(map(len, texts)) + 2  # padding, which may be trimmed
        tokens = torch.zeros(len(texts), longest, 1)
        for row, text in enumerate(texts):
            tokens[row, : len(text), 0] = torch.tensor([float(ord(letter)) for letter in text])
        return Encoded(tokens, torch.randn(len(texts), 4), tokens[..., 0] > 0)

    def score(self, image: Encoded, text: Encoded) -> Tensor:
        texts = ["".join(chr(int(letter)) for letter in row[mask, 0]) for row, mask in zip(*text[::2], strict=True)]
        return torch.tensor([[told(each)[int(number)] for each in texts] for number in image.tokens[:, 0, 0]])


class Angles(_Scorer):
    """Vectors of the plane: picture n at 5 n degrees, a text at the degrees it ends with, `length` long."""

    def __init__(self, *, length: float = 1.0) -> None:
        super().__init__()
        self.length = length

    def encode_images(self, images: Sequence[str | Path | bytes | Image.Image], *, batch_size: int = 64) -> Encoded:
        return pooled_only(_at([5.0 * number for number in self.numbers(images)]))

    def encode_texts(self, texts: Sequence[str], *, batch_size: int = 256) -> Encoded:
        degrees = [float(text.split()[-1]) for text in texts]
        return pooled_only(_at(degrees) * (self.length + torch.tensor(degrees)[:, None] * (self.length - 1)))

    def score(self, image: Encoded, text: Encoded) -> Tensor:
        """A cosine: of unit vectors their product, as the project's dual encoders have it."""
        unit = text.pooled if self.length == 1 else torch.nn.functional.normalize(text.pooled, dim=1)
        return image.pooled @ unit.T


class PairAngles(Angles):
    """The same scores from a fusion strategy: tokens say that it judges pairs."""

    def encode_texts(self, texts: Sequence[str], *, batch_size: int = 256) -> Encoded:
        pooled = super().encode_texts(texts).pooled
        return Encoded(pooled[:, None], pooled, torch.ones(len(pooled), 1).bool())


class Logits(Angles):
    """A perceptron over two pooled vectors, as it were: no tokens, and no cosine."""

    def score(self, image: Encoded, text: Encoded) -> Tensor:
        return 3 * super().score(image, text) + 1


def _at(degrees: list[float]) -> Tensor:
    radians = torch.tensor(degrees).deg2rad()
    return torch.stack([radians.cos(), radians.sin()], 1)


class Constant(Dual):
    """Everything ties."""

    def encode_images(self, images: Sequence[str | Path | bytes | Image.Image], *, batch_size: int = 64) -> Encoded:
        return pooled_only(torch.ones(len(self.numbers(images)), 4) / 2)

    def encode_texts(self, texts: Sequence[str], *, batch_size: int = 256) -> Encoded:
        return pooled_only(torch.ones(len(texts), 4) / 2)


class Random(Dual):
    """A text is a random direction that its words decide."""

    def encode_texts(self, texts: Sequence[str], *, batch_size: int = 256) -> Encoded:
        seeds = [int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "big") for text in texts]
        drawn = [torch.randn(NUM + 1, generator=torch.Generator().manual_seed(seed)) for seed in seeds]
        return pooled_only(torch.nn.functional.normalize(torch.stack(drawn), dim=1))


class Broken(Fusion):
    """Gives NaN to what says so."""

    def score(self, image: Encoded, text: Encoded) -> Tensor:
        scores = super().score(image, text)
        return scores.masked_fill(scores == -0.5, float("nan"))


class Untouched(_Scorer):
    """Fails as soon as anything is encoded."""

    def encode_images(self, images: Sequence[object], *, batch_size: int = 64) -> Encoded:
        raise AssertionError("pictures were encoded")

    def encode_texts(self, texts: Sequence[str], *, batch_size: int = 256) -> Encoded:
        raise AssertionError("texts were encoded")

    def score(self, image: Encoded, text: Encoded) -> Tensor:
        raise AssertionError("something was scored")
