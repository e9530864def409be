"""Chunks are made by several processes, and come back in order."""

import multiprocessing
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor

from mmlit.data.processes import follow_parent
from mmlit.data.scenes.samples import Chunk, Sample, make_chunk


def made_chunks(*, chunks: Sequence[Chunk], workers: int) -> Iterator[list[Sample]]:
    """Make the chunks in `workers` processes, 1: in this one, and yield their samples in order."""
    workers = min(workers, len(chunks))
    if workers == 1:
        yield from map(make_chunk, chunks)
        return
    # Spawned: a forked process would copy the locks of the progress bar's thread.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, mp_context=context, initializer=follow_parent) as pool:
        yield from pool.map(make_chunk, chunks)
