"""Keeps what frozen encoders say of every image and text in memory, so that training does not encode again."""

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from rich.progress import track
from torch import Tensor

from mmlit.contracts import Encoded, ImageEncoder, TextEncoder

#: items encoded at a time
_CHUNK = 256


class FeatureTable(NamedTuple):
    """Encoded items by number: `tokens` (all kept tokens end to end, D), `first` (items + 1,), `pooled` (items, D)."""

    tokens: Tensor
    first: Tensor
    pooled: Tensor

    def take(self, index: Sequence[int]) -> Encoded:
        """The items number `index`, tokens padded to the longest of them."""
        lengths = [int(self.first[i + 1] - self.first[i]) for i in index]
        tokens = self.tokens.new_zeros(len(index), max(lengths), self.tokens.shape[1])
        for row, (i, length) in enumerate(zip(index, lengths, strict=True)):
            tokens[row, :length] = self.tokens[self.first[i] : self.first[i] + length]
        mask = torch.arange(tokens.shape[1]) < torch.tensor(lengths)[:, None]
        return Encoded(tokens, self.pooled[list(index)], mask)


class MemoryFeatures:
    """Replaces frozen encoders by tables of their outputs, side by side with the data's readers.

    Args:
        limit_gib: refuse to start when the tables would need more memory than this, in GiB.

    Raises:
        ValueError: if no encoder is frozen, or the limit would be passed.
    """

    def __init__(self, *, limit_gib: float) -> None:
        if not limit_gib > 0:
            raise ValueError(f"features.limit_gib must be > 0, got {limit_gib}")
        self.limit = limit_gib * 2**30

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
            captions = reader.captions
            if image_encoder.frozen and reader.image_store is None:
                pixels = (reader.pixels(part) for part in _parts(captions.num_images))
                encode = _on(image_encoder, device)
                table = _encode(pixels, encode, captions.num_images, tokens, room, f"{name}: images")
                room -= _bytes(table)
                reader.image_store = table
            if text_encoder.frozen and reader.text_store is None:
                ids = (reader.tokens.take(part) for part in _parts(captions.num_texts))
                encode = _on(text_encoder, device)
                table = _encode(ids, encode, captions.num_texts, tokens, room, f"{name}: texts")
                room -= _bytes(table)
                reader.text_store = table


def _parts(count: int) -> Iterable[range]:
    return (range(start, min(start + _CHUNK, count)) for start in range(0, count, _CHUNK))


def _on(encoder: ImageEncoder | TextEncoder, device: torch.device) -> Callable[..., Encoded]:
    encoder.to(device)

    def encode(*inputs: Tensor) -> Encoded:
        return Encoded(*(part.cpu() for part in encoder(*(tensor.to(device) for tensor in inputs))))

    return encode


def _bytes(table: FeatureTable) -> int:
    return sum(part.numel() * part.element_size() for part in table)


@torch.inference_mode()
def _encode(
    inputs: Iterable[Any], encode: Callable[..., Encoded], count: int, tokens: bool, room: float, what: str
) -> FeatureTable:
    """One table; after the first part it is known how large it becomes."""
    kept, lengths, pooled = [], [torch.zeros(1, dtype=torch.int64)], []
    for part in track(inputs, what, total=-(-count // _CHUNK)):
        encoded = encode(*part) if isinstance(part, tuple) else encode(part)
        mask = encoded.mask if tokens else torch.zeros_like(encoded.mask)
        kept.append(encoded.tokens[mask])
        lengths.append(mask.sum(1))
        pooled.append(encoded.pooled)
        if len(kept) == 1 and (need := 4 * (kept[0].numel() + pooled[0].numel()) * count / len(pooled[0])) > room:
            raise ValueError(
                f"{what}: features would need about {need / 2**30:.1f} GiB of memory, {room / 2**30:.1f} GiB may be used "
                "(features.limit_gib); run without features=memory"
            )
    return FeatureTable(torch.cat(kept), torch.cat(lengths).cumsum(0), torch.cat(pooled))
