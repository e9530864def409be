"""What is true of a gallery beside its own pairs: many positives per query, or grades."""

import json
from collections.abc import Iterable
from hashlib import sha256
from pathlib import Path
from typing import Any, NamedTuple, Protocol, runtime_checkable

import torch
from torch import Tensor


class Relevance(NamedTuple):
    """One direction: E pairs, each once.

    `query_id`, `item_id` (E,) int64; `grade` (E,) ≥ 0, all 1 where the truth is yes or no.
    """

    query_id: Tensor
    item_id: Tensor
    grade: Tensor


class Truth(NamedTuple):
    """Pairs of both directions: the images' ids ask for text ids in `i2t`, the texts' for image ids in `t2i`.

    A pair is a positive from the grade `threshold` on. `needs` says, for a message, which gallery must be evaluated.
    Every id must be in that gallery but `optional_text_id`: texts that the usual gallery leaves out. One that is not
    there does not ask, and is a positive that no model finds.
    """

    name: str
    needs: str
    i2t: Relevance
    t2i: Relevance
    graded: bool
    threshold: float
    optional_text_id: Tensor

    def fingerprint(self) -> str:
        """Hex digest of all pairs and grades."""
        return digest([*self.i2t, *self.t2i, torch.tensor(self.threshold)])


class ImageLabels(NamedTuple):
    """Which of K labels each image shows; what is true follows from how many of them two images do not share.

    `image_id` (N,) int64, `labels` (N,K) bool; an image without any label is neither asked nor found.
    """

    name: str
    needs: str
    image_id: Tensor
    labels: Tensor

    def fingerprint(self) -> str:
        """Hex digest of all ids and labels."""
        return digest([self.image_id, self.labels])


class TruthSource(Protocol):
    """A reader of a published truth."""

    def read(self) -> Truth | ImageLabels:
        """All of it."""


@runtime_checkable
class OpenTruth(Protocol):
    """A source but for what the data says: the folder of the data set and the reported split."""

    def __call__(self, *, root: str | Path, split: str) -> TruthSource:
        """The source of that split."""


def digest(tensors: Iterable[Tensor]) -> str:
    """16 hex digits over shapes, types and values."""
    found = sha256()
    for tensor in tensors:
        found.update(f"{tensor.dtype}{tuple(tensor.shape)}".encode())
        found.update(tensor.contiguous().numpy().tobytes())
    return found.hexdigest()[:16]


def relevance(pairs: Iterable[tuple[int, int]]) -> Relevance:
    """(query id, item id) pairs in any order, a pair that comes twice counting once; all of grade 1."""
    ids = torch.tensor(sorted(set(pairs)), dtype=torch.int64).reshape(-1, 2)
    return Relevance(ids[:, 0].contiguous(), ids[:, 1].contiguous(), torch.ones(len(ids), dtype=torch.float64))


def read_json(file: Path, hint: str, *, without: str | None = None) -> Any:
    """The content of a JSON file, with the entries `without` thrown away while it is read.

    Raises:
        FileNotFoundError: if there is none; `hint` says where it comes from.
        ValueError: if it is broken.
    """
    if not file.is_file():
        raise FileNotFoundError(f"there is no {file}; {hint}")
    try:
        text = file.read_text(encoding="utf-8")
        return json.loads(text, object_hook=lambda one: {key: one[key] for key in one if key != without})
    except ValueError as error:
        raise ValueError(f"{file}: broken JSON: {error}") from None
