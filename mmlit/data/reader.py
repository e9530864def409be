"""Rows of a split → `Batch`."""

from collections.abc import Callable, Sequence
from typing import NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor

from mmlit.contracts import Batch, Encoded, ImageSpec
from mmlit.data.captions import Captions
from mmlit.data.decode import decode
from mmlit.data.sampling import Row

Tokenize = Callable[[Sequence[str]], tuple[Tensor, Tensor]]
#: texts tokenized at a time
_CHUNK = 4096


class Store(Protocol):
    """Where encoded items lie, by their number in the split."""

    def take(self, index: Sequence[int]) -> Encoded:
        """The items number `index`."""


class TokenTable(NamedTuple):
    """All captions of a split as token ids, end to end: text m is ids[first[m]:first[m + 1]]."""

    ids: np.ndarray
    first: np.ndarray

    def take(self, texts: Sequence[int]) -> tuple[Tensor, Tensor]:
        """ids, mask (M,L), L = the longest of these texts."""
        lengths = self.first[1:][list(texts)] - self.first[:-1][list(texts)]
        ids = torch.zeros(len(texts), int(lengths.max()), dtype=torch.int64)
        for row, text in enumerate(texts):
            ids[row, : lengths[row]] = torch.from_numpy(
                self.ids[self.first[text] : self.first[text + 1]].astype(np.int64)
            )
        return ids, torch.arange(ids.shape[1]) < torch.from_numpy(lengths)[:, None]


def tokenize_all(captions: Captions, tokenize: Tokenize) -> TokenTable:
    """Every caption of a split, once."""
    parts, lengths = [np.empty(0, np.int32)], [np.zeros(1, np.int64)]
    for start in range(0, captions.num_texts, _CHUNK):
        ids, mask = tokenize(captions.texts[start : start + _CHUNK].to_pylist())
        parts.append(ids[mask].numpy().astype(np.int32))
        lengths.append(mask.sum(1).numpy())
    return TokenTable(np.concatenate(parts), np.cumsum(np.concatenate(lengths)))


class BatchReader:
    """The collate function of a split: decodes pictures and looks up token ids, unless a store holds the encoded item.

    Attributes:
        image_store: encoded images by number, or None.
        text_store: encoded texts by number, or None.
    """

    def __init__(self, *, captions: Captions, tokens: TokenTable, spec: ImageSpec) -> None:
        self.captions, self.tokens, self.spec = captions, tokens, spec
        self.image_store: Store | None = None
        self.text_store: Store | None = None

    def __call__(self, rows: Sequence[Row]) -> Batch:
        images = [row.image for row in rows]
        texts = [text for row in rows for text in row.texts]
        owners = [row.image for row in rows for _ in row.texts]
        token_ids, token_mask = self.tokens.take(texts)
        return Batch(
            image=self.image_store.take(images) if self.image_store else self.pixels(images),
            image_id=torch.from_numpy(self.captions.image_id[images]),
            token_ids=token_ids,
            token_mask=token_mask,
            text=self.text_store.take(texts) if self.text_store else None,
            text_id=torch.from_numpy(self.captions.text_id[texts]),
            text_image_id=torch.from_numpy(self.captions.image_id[owners]),
        )

    def pixels(self, images: Sequence[int]) -> Tensor:
        """uint8 (N,3,H,W) of the images number `images`."""
        return torch.stack([self._decode(image) for image in images])

    def _decode(self, image: int) -> Tensor:
        path = self.captions.path(image)
        return decode(self.captions.item(image, ()).image, self.spec, name=path)
