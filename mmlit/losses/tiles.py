"""The matrix of all pairs in tiles: how large they are, and what is true in each."""

import math
from typing import NamedTuple, Self

import torch
from torch import Tensor

from mmlit.contracts import Pairs

#: rows and columns of a tile on a CPU: 4 MiB in fp32, near a core's cache and long enough for its products
CPU_SIDE = 1024
#: the least and the most on a GPU: shorter sides cost more starts of kernels, longer ones gain nothing
GPU_SIDES = (1024, 8192)
#: of a GPU's free memory, for the three tiles that are there at a time
GPU_SHARE = 0.1


class TrueEntries(NamedTuple):
    """What is not 0 in a tile of `Pairs.positives`: row, column, weight, each (K,); no place comes twice."""

    row: Tensor
    column: Tensor
    weight: Tensor


class Tile(NamedTuple):
    """Scores (R,C) of images `rows` and texts `columns`, and which of them are of true pairs."""

    scores: Tensor
    rows: slice
    columns: slice
    true: TrueEntries


class Truth(NamedTuple):
    """Which of N images and M texts belong together; fields as in `Batch`."""

    image_id: Tensor
    text_image_id: Tensor
    mix_image_id: Tensor | None
    mix_weight: Tensor | None

    @classmethod
    def of(cls, pairs: Pairs, images: slice, texts: slice) -> Self:
        """Of these images and texts of the global batch."""
        mix_image_id, mix_weight = (
            None if part is None else part[images] for part in (pairs.all_mix_image_id, pairs.all_mix_weight)
        )
        return cls(pairs.all_image_id[images], pairs.all_text_image_id[texts], mix_image_id, mix_weight)

    def within(self, rows: slice, columns: slice, *, like: Tensor) -> TrueEntries:
        """`Pairs.positives(rows, columns)` as a list, from sorted ids: the tile itself costs more than its scores."""
        ids, (owner, order) = self.image_id[rows], self.text_image_id[columns].sort()
        row, column = _equal(ids, owner, order)
        if self.mix_image_id is None or self.mix_weight is None:
            return TrueEntries(row, column, like.new_ones(len(row)))
        other, weight = self.mix_image_id[rows], self.mix_weight[rows]
        weight = torch.where(ids == other, 1.0, weight)  # mixed with another picture of the same image
        other_row, other_column = _equal(other, owner, order)
        both = TrueEntries(
            torch.cat([row, other_row]),
            torch.cat([column, other_column]),
            torch.cat([weight[row], 1 - weight[other_row]]).to(like),
        )
        return TrueEntries(*(part[both.weight != 0] for part in both))


def _equal(ids: Tensor, owner: Tensor, order: Tensor) -> tuple[Tensor, Tensor]:
    """Where `ids` equal the sorted `owner`: places in `ids`, and in `owner` before `order` sorted it."""
    first = torch.searchsorted(owner, ids)
    count = torch.searchsorted(owner, ids, right=True) - first
    row = torch.repeat_interleave(count)
    start = first - count.cumsum(0) + count
    return row, order[start[row] + torch.arange(len(row), device=row.device)]


def tiling(image: Tensor, text: Tensor) -> tuple[list[slice], list[slice]]:
    """Images (N,E) and texts (M,E) in spans of nearly equal length, none longer than a tile's side."""
    side = _side(image.device)
    return _spans(len(image), side), _spans(len(text), side)


def wide(embeddings: Tensor) -> Tensor:
    """In fp32 at least: products of low precision move the scores (see `mmlit.layers.similarity.cosine`)."""
    return embeddings if embeddings.dtype.itemsize >= 4 else embeddings.float()


def checked(image: Tensor, text: Tensor, *numbers: Tensor) -> None:
    """Refuses what are not matrices of one width and single numbers."""
    if image.ndim != 2 or text.ndim != 2 or image.shape[1] != text.shape[1]:
        shapes = f"{tuple(image.shape)} and {tuple(text.shape)}"
        raise ValueError(f"embeddings must be matrices of one width, got {shapes}")
    for number in numbers:
        if number.ndim:
            raise ValueError(f"scale and bias must be single numbers, got shape {tuple(number.shape)}")


def _spans(count: int, side: int) -> list[slice]:
    length = math.ceil(count / max(1, math.ceil(count / side)))
    return [slice(start, min(start + length, count)) for start in range(0, count, max(1, length))]


def _side(device: torch.device) -> int:
    """The longest side of a tile, from the memory at hand."""
    if device.type != "cuda":
        return CPU_SIDE
    free, _ = torch.cuda.mem_get_info(device)
    free += torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)  # held by torch, but not in use
    least, most = GPU_SIDES
    return min(most, max(least, math.isqrt(int(GPU_SHARE * free / 12))))
