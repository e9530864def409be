"""Encodes what a store lacks: pictures are read by processes of their own while the encoder works."""

import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader

from mmlit.contracts import Encoded, ImageEncoder, TextEncoder
from mmlit.features.build import Build, Claim
from mmlit.features.key import Manner
from mmlit.features.layout import BYTES

#: seconds between looks at what other processes still work on
_PAUSE = 0.1
#: chunks whose writing may be outstanding
_WRITING = 2


#: brings items by number: an encoder's arguments
Reading = Callable[[Sequence[int]], tuple[Tensor, ...]]


class UnfitError(Exception):
    """An encoder whose masks a store cannot hold."""


class Task(NamedTuple):
    """N items to encode.

    `read` brings some of them by number; `first` (N + 1,) says where the tokens of each begin; `batch` at a time go
    through the encoder, those of like length together where `sort`; `broken` tells which of a range cannot be read.
    """

    encoder: ImageEncoder | TextEncoder
    read: Reading
    first: np.ndarray
    batch: int
    sort: bool
    broken: Callable[[range], list[int]]


@torch.inference_mode()
def tried(task: Task, manner: Manner, items: Sequence[int]) -> Encoded:
    """What the encoder says of a few items."""
    task.encoder.to(manner.device)
    with manner.context():
        return task.encoder(*(part.to(manner.device) for part in task.read(items)))


@torch.inference_mode()
def encode(build: Build, task: Task, manner: Manner, *, tell: Callable[[int], None]) -> None:
    """Encodes until the store is complete, sharing the work with every process that does the same.

    Args:
        build: the store.
        task: its items.
        manner: device, precision and number of reading processes.
        tell: called with the number of items that are finished.

    Raises:
        UnfitError: if a mask is not what the lengths say.
        ValueError: if a picture cannot be read, or a value is too large for fp16.
    """
    task.encoder.to(manner.device)
    with build.joined():
        left = build.layout.num_chunks - build.num_finished()
        # processes for one chunk, or for what another process gave up, would take longer to start than they save
        workers = manner.num_workers if left > 1 else 0
        while not build.completed():
            if not _encode(build, task, manner, workers, tell):
                tell(min(build.num_finished() * build.layout.chunk, build.layout.items))
                time.sleep(_PAUSE)
            workers = 0


def _encode(build: Build, task: Task, manner: Manner, workers: int, tell: Callable[[int], None]) -> bool:
    """Encodes every chunk that can be claimed now; whether there was one.

    A claim is made when the loader asks for its items, which is before those of the last one have been encoded: the
    encoder never waits for the first pictures of a chunk.
    """
    claimed: dict[int, _Chunk] = {}
    written: list[Future[None]] = []

    def parts() -> Iterator[list[int]]:
        for claim in build.claims():
            claimed[claim.number] = chunk = _Chunk(build, task, claim)
            yield from chunk.parts()

    on_gpu = manner.device.type == "cuda"
    loader: DataLoader[int] = DataLoader(
        range(build.layout.items),  # type: ignore[arg-type]
        batch_sampler=parts(),
        collate_fn=partial(_read, task.read),
        num_workers=workers,
        pin_memory=on_gpu,
        generator=torch.Generator(),  # the global one's draws belong to training
    )
    count = 0
    with ThreadPoolExecutor(1) as writer:
        try:
            for items, inputs in loader:
                chunk = claimed[items[0] // build.layout.chunk]
                with manner.context():
                    encoded = task.encoder(*(part.to(manner.device, non_blocking=on_gpu) for part in inputs))
                if chunk.put(items, encoded):
                    written.append(writer.submit(chunk.finish))
                    del claimed[chunk.claim.number]
                    count += 1
                    tell(min(build.num_finished() * build.layout.chunk, build.layout.items))
                while len(written) > _WRITING:
                    written.pop(0).result()
            for future in written:
                future.result()
        finally:
            for chunk in claimed.values():
                chunk.claim.lock.release()
    return count > 0


def _read(read: Reading, items: list[int]) -> tuple[list[int], tuple[Tensor, ...]]:
    return items, read(items)


class _Chunk:
    """The items of a claimed chunk as they are encoded."""

    def __init__(self, build: Build, task: Task, claim: Claim) -> None:
        self.build, self.task, self.claim = build, task, claim
        self.items, layout = build.layout.items_of(claim.number), build.layout
        self.left = len(self.items)
        self.begin = int(task.first[self.items.start])
        self.pooled = torch.empty(len(self.items), layout.width, dtype=getattr(torch, layout.pooled))
        self.tokens = None
        if layout.tokens:
            rows = int(task.first[self.items.stop]) - self.begin
            self.tokens = torch.empty(rows, layout.width, dtype=getattr(torch, layout.tokens))

    def parts(self) -> Iterator[list[int]]:
        """The items, some at a time; of texts those of one length together: nothing is computed for padding."""
        items = np.arange(self.items.start, self.items.stop)
        if self.task.sort:
            items = items[np.diff(self.task.first[self.items.start : self.items.stop + 1]).argsort(kind="stable")]
        for start in range(0, len(items), self.task.batch):
            yield items[start : start + self.task.batch].tolist()

    def put(self, items: list[int], encoded: Encoded) -> bool:
        """Takes what the encoder said of some items; whether these were the last ones."""
        numbers = np.asarray(items)
        self.pooled[torch.from_numpy(numbers - self.items.start)] = _narrowed(encoded.pooled, self.pooled.dtype)
        if self.tokens is not None:
            begins, ends = self.task.first[numbers], self.task.first[numbers + 1]
            mask = torch.from_numpy(np.arange(encoded.mask.shape[1]) < (ends - begins)[:, None])
            if not torch.equal(encoded.mask.cpu(), mask):
                raise UnfitError("its masks are not what the number of tokens says")
            rows = np.concatenate([np.arange(begin, end) for begin, end in zip(begins, ends, strict=True)])
            kept = encoded.tokens.flatten(0, 1) if bool(mask.all()) else encoded.tokens[mask.to(encoded.tokens.device)]
            self.tokens[torch.from_numpy(rows - self.begin)] = _narrowed(kept, self.tokens.dtype)
        self.left -= len(items)
        return self.left == 0

    def finish(self) -> None:
        """Brings the chunk to the disk and gives the claim back."""
        layout = self.build.layout
        arrays, offsets = {"pooled": self.pooled}, {"pooled": self.items.start * layout.width * BYTES[layout.pooled]}
        if self.tokens is not None:
            arrays["tokens"] = self.tokens
            offsets["tokens"] = self.begin * layout.width * BYTES[str(layout.tokens)]
        raw = {name: array.view(torch.uint8).numpy() for name, array in arrays.items()}
        self.build.finish(self.claim, raw, offsets, self.task.broken(self.items))


def _narrowed(values: Tensor, kept: torch.dtype) -> Tensor:
    """Values as they are kept, on the CPU.

    Raises:
        ValueError: if one has no place in fp16.
    """
    found = values.to(kept).cpu()
    if found.dtype != values.dtype and not torch.equal(found.isfinite(), values.isfinite().cpu()):
        raise ValueError("features.half=true: a value is beyond fp16's 65,504; features.half=false keeps it")
    return found
