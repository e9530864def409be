"""A complete store, read from mapped files."""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from mmlit.contracts import Encoded
from mmlit.features.layout import META, Layout, check_sizes, read_json

#: how numpy holds what torch calls so; it has no bfloat16
_HELD = {"float64": "<f8", "float32": "<f4", "float16": "<f2", "bfloat16": "<i2"}


class FeatureStore:
    """Encoded items by number. Nothing is loaded: the system keeps what is read often, once for all processes.

    Args:
        folder: a complete store.
        first: (N + 1,) item i has the rows first[i] … first[i + 1] − 1 of the tokens; None: no tokens are given out.

    Raises:
        ValueError: if a file is not as long as it was written.
    """

    def __init__(self, folder: Path, *, first: np.ndarray | None) -> None:
        self.folder, self.first = folder, first
        meta = read_json(folder / META)
        self.layout, self.half = (layout := Layout(**meta["layout"])), bool(meta["facts"]["half"])
        check_sizes(folder, layout)
        self._pooled = _mapped(folder / "pooled", layout.pooled, (layout.items, layout.width))
        self._tokens = None
        if first is not None and layout.tokens:
            self._tokens = _mapped(folder / "tokens", layout.tokens, (layout.rows, layout.width))
            lengths = np.diff(first)
            self._each = int(lengths[0]) if (lengths == lengths[0]).all() else None

    def __reduce__(self) -> tuple[Callable[..., "FeatureStore"], tuple[Path, np.ndarray | None]]:
        """A process that is not forked maps the files anew: a mapped array would be sent whole."""
        return _opened, (self.folder, self.first)

    def take(self, index: Sequence[int]) -> Encoded:
        """The items number `index`, tokens padded with zeros to the longest of them."""
        items = np.asarray(index, np.int64)
        pooled = self._tensor(self._pooled.take(items, 0), self.layout.pooled)
        if self._tokens is None or self.first is None:
            return Encoded(pooled.new_zeros(len(items), 0, self.layout.width), pooled, _mask(np.zeros((len(items), 0))))
        if self._each:
            blocks = self._tokens.reshape(-1, self._each, self.layout.width).take(items, 0)
            mask = torch.ones(blocks.shape[:2], dtype=torch.bool)
            return Encoded(self._tensor(blocks, str(self.layout.tokens)), pooled, mask)
        begins, ends = self.first[items], self.first[items + 1]
        lengths = ends - begins
        padded = np.zeros((len(items), int(lengths.max()), self.layout.width), self._tokens.dtype)
        for row, begin, end in zip(padded, begins.tolist(), ends.tolist(), strict=True):
            row[: end - begin] = self._tokens[begin:end]
        mask = _mask(np.arange(padded.shape[1]) < lengths[:, None])
        return Encoded(self._tensor(padded, str(self.layout.tokens)), pooled, mask)

    def _tensor(self, array: np.ndarray, kept: str) -> Tensor:
        """As the encoder gave it; what was made half as precise to save room is widened."""
        tensor = torch.from_numpy(array)
        if kept == "bfloat16":
            return tensor.view(torch.bfloat16)
        return tensor.float() if self.half else tensor


def _opened(folder: Path, first: np.ndarray | None) -> FeatureStore:
    return FeatureStore(folder, first=first)


def _mapped(path: Path, kept: str, shape: tuple[int, int]) -> np.ndarray:
    # A plain array upon the mapping: every slice of numpy's own memmap class costs a call into Python.
    return np.memmap(path, _HELD[kept], "r", shape=shape).view(np.ndarray)


def _mask(kept: np.ndarray) -> Tensor:
    return torch.from_numpy(kept.astype(bool))
