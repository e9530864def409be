"""All captions of a split as token ids: tokenized once, and kept in files that are mapped into memory."""

import json
from collections.abc import Callable, Sequence
from hashlib import sha256
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor

from mmlit.contracts import TextEncoder
from mmlit.data.captions import Captions
from mmlit.data.kept import made_once, touch

Tokenize = Callable[[Sequence[str]], tuple[Tensor, Tensor]]
#: texts tokenized at a time
_CHUNK = 4096
#: captions of a kept table that are tokenized again to see that the tokenizer is still the same
_PROBES = 64


class TokenTable(NamedTuple):
    """Token ids of M texts, end to end: text m is ids[first[m]:first[m + 1]]; `num_truncated` texts lost their end."""

    ids: np.ndarray
    first: np.ndarray
    num_truncated: int = 0

    def take(self, texts: Sequence[int]) -> tuple[Tensor, Tensor]:
        """ids, mask (M,L), L = the longest of these texts."""
        begins = self.first[list(texts)]
        lengths = self.first[[text + 1 for text in texts]] - begins
        places = np.arange(int(lengths.max()))
        mask = places < lengths[:, None]
        ids = np.zeros(mask.shape, np.int64)
        ids[mask] = self.ids[(begins[:, None] + places)[mask]]
        return torch.from_numpy(ids), torch.from_numpy(mask)

    @property
    def lengths(self) -> np.ndarray:
        """Tokens of each text: (M,)."""
        return np.diff(self.first)


def token_table(captions: Captions, encoder: TextEncoder, *, folder: Path | None) -> TokenTable:
    """Every caption of a split, tokenized by `encoder`, or as `folder` keeps it from an earlier time.

    The key is what determines the ids: the texts, and the encoder's class, spec and settings. Some captions are
    tokenized again all the same, so that a tokenizer whose code was changed is noticed.
    """
    if folder is None:
        return _tokenize(captions.texts, encoder)
    rules = f"{type(encoder).__module__}.{type(encoder).__qualname__}|{encoder.extra_repr()}|{encoder.spec}"
    key = sha256(rules.encode())
    for buffer in captions.texts.buffers()[1:]:
        key.update(buffer)
    probes = captions.texts.take(pa.array(np.linspace(0, captions.num_texts - 1, _PROBES).astype(np.int64)))
    told = _tokenize(probes, encoder)
    key.update(told.ids.tobytes() + told.first.tobytes())
    place = made_once(
        folder / "tokens" / key.hexdigest()[:24], lambda beside: _write(_tokenize(captions.texts, encoder), beside)
    )
    ids, first = (np.load(place / f"{name}.npy", mmap_mode="r") for name in ("ids", "first"))
    touch(ids)
    touch(first)
    return TokenTable(ids, first, json.loads((place / "facts.json").read_text())["truncated"])


def _tokenize(texts: pa.Array, encoder: TextEncoder) -> TokenTable:
    before = encoder.num_truncated
    kind = np.uint16 if encoder.spec.vocabulary_size <= 2**16 else np.int32
    parts, lengths = [np.empty(0, kind)], [np.zeros(1, np.int64)]
    for start in range(0, len(texts), _CHUNK):
        ids, mask = encoder.tokenize(texts[start : start + _CHUNK].to_pylist())
        parts.append(ids[mask].numpy().astype(kind))
        lengths.append(mask.sum(1).numpy())
    return TokenTable(np.concatenate(parts), np.cumsum(np.concatenate(lengths)), encoder.num_truncated - before)


def _write(table: TokenTable, folder: Path) -> None:
    np.save(folder / "ids.npy", table.ids)
    np.save(folder / "first.npy", table.first)
    (folder / "facts.json").write_text(json.dumps({"truncated": table.num_truncated}))
