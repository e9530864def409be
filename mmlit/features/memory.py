"""Keeps what frozen encoders say of every image and text in memory, so that training does not encode again."""

import os
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from hashlib import sha256
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from rich.progress import track
from torch import Tensor

from mmlit.contracts import Encoded, ImageEncoder, TextEncoder

#: items encoded at a time: on a CPU the activations of so few pictures stay in the cache
_IMAGES, _TEXTS = 16, 64


class FeatureTable(NamedTuple):
    """Encoded items by number: item i has `length[i]` rows of `tokens` from `start[i]` on, and `pooled[i]`; width D."""

    tokens: Tensor
    start: Tensor
    length: Tensor
    pooled: Tensor

    def take(self, index: Sequence[int]) -> Encoded:
        """The items number `index`, tokens padded to the longest of them."""
        items = torch.tensor(index)
        place = torch.arange(int(self.length[items].max()))
        mask = place < self.length[items, None]
        tokens = self.tokens.new_zeros(*mask.shape, self.tokens.shape[1])
        tokens[mask] = self.tokens[(self.start[items, None] + place)[mask]]
        return Encoded(tokens, self.pooled[items], mask)


class MemoryFeatures:
    """Replaces frozen encoders by tables of their outputs, side by side with the data's readers.

    Args:
        limit_gib: refuse to start when the tables would need more memory than this, in GiB.
        folder: where tables are left for the other runs of a sweep, by what determines them (encoder's fingerprint,
            data's digest); None leaves nothing.

    Raises:
        ValueError: if no encoder is frozen, or the limit would be passed.
    """

    def __init__(self, *, limit_gib: float, folder: str | None) -> None:
        if not limit_gib > 0:
            raise ValueError(f"features.limit_gib must be > 0, got {limit_gib}")
        self.limit = limit_gib * 2**30
        self.folder = Path(folder) if folder else None

    def fill(
        self,
        readers: Mapping[str, Any],
        image_encoder: ImageEncoder,
        text_encoder: TextEncoder,
        *,
        tokens: bool,
        device: torch.device,
    ) -> None:
        """Encodes every split of `readers` (`mmlit.data.reader.BatchReader`) once, in fp32; tokens only where asked."""
        if not (image_encoder.frozen or text_encoder.frozen):
            raise ValueError(
                "features=memory keeps the outputs of frozen encoders: set image_encoder.freeze or text_encoder.freeze"
            )
        room = min(self.limit, 0.8 * os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_AVPHYS_PAGES"))
        for name, reader in readers.items():
            if image_encoder.frozen and reader.image_store is None:
                parts = torch.arange(reader.captions.num_images).split(_IMAGES)
                job = _Job(f"{name}: images", parts, partial(_pixels, reader), tokens, device)
                reader.image_store = self._table(image_encoder, job, reader.captions.digest, room)
                room -= _bytes(reader.image_store)
            if text_encoder.frozen and reader.text_store is None:
                # texts of one length together: nothing is computed for padding
                parts = torch.from_numpy(np.diff(reader.tokens.first)).argsort(stable=True).split(_TEXTS)
                job = _Job(f"{name}: texts", parts, reader.tokens.take, tokens, device)
                reader.text_store = self._table(text_encoder, job, reader.captions.digest, room)
                room -= _bytes(reader.text_store)

    def _table(self, encoder: ImageEncoder | TextEncoder, job: "_Job", digest: str, room: float) -> FeatureTable:
        """From the folder where it lies there, otherwise encoded, and left there as a whole or not at all."""
        if self.folder is None:
            return _encode(encoder, job, room)
        key = sha256(f"{encoder.fingerprint()}|{encoder.spec}|{digest}|{job.what}|{job.tokens}".encode()).hexdigest()
        path = self.folder / f"{key[:20]}.pt"
        if path.is_file():
            return FeatureTable(**torch.load(path, mmap=True, weights_only=True))
        table = _encode(encoder, job, room)
        self.folder.mkdir(parents=True, exist_ok=True)
        beside = path.with_suffix(f".{os.getpid()}")
        torch.save(table._asdict(), beside)
        beside.replace(path)
        return table


def _pixels(reader: Any, part: Sequence[int]) -> tuple[Tensor]:
    return (reader.pixels(part),)


class _Job(NamedTuple):
    """Which items to encode, some at a time, how to read them, and whether tokens are kept."""

    what: str
    parts: Sequence[Tensor]
    read: Callable[[list[int]], tuple[Tensor, ...]]
    tokens: bool
    device: torch.device


def _bytes(table: FeatureTable) -> int:
    return sum(part.numel() * part.element_size() for part in table)


@torch.inference_mode()
def _encode(encoder: ImageEncoder | TextEncoder, job: _Job, room: float) -> FeatureTable:
    """One table; after the first part it is known roughly how large it becomes."""
    encoder.to(job.device)
    tokens, lengths, pooled = [], [], []
    count = sum(map(len, job.parts))
    for part in track(job.parts, job.what, transient=True):
        encoded = Encoded(*(x.cpu() for x in encoder(*(x.to(job.device) for x in job.read(part.tolist())))))
        mask = encoded.mask if job.tokens else torch.zeros_like(encoded.mask)
        tokens.append(encoded.tokens[mask])
        lengths.append(mask.sum(1))
        pooled.append(encoded.pooled)
        if len(tokens) == 1 and (need := 4 * (tokens[0].numel() + pooled[0].numel()) * count / len(part)) > room:
            raise ValueError(
                f"{job.what}: features would need about {need / 2**30:.1f} GiB of memory, "
                f"{room / 2**30:.1f} GiB may be used (features.limit_gib); run without features=memory"
            )
    length, back = torch.cat(lengths), torch.cat(list(job.parts)).argsort()
    start = length.cumsum(0) - length
    return FeatureTable(torch.cat(tokens), start[back], length[back], torch.cat(pooled)[back])
