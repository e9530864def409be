"""Chunks are made by several processes, and come back in order."""

import multiprocessing
import multiprocessing.connection
import os
import signal
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor

from mmlit.data.scenes.samples import Chunk, Sample, make_chunk


def available_cores() -> int:
    """Return the number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def made_chunks(*, chunks: Sequence[Chunk], workers: int) -> Iterator[list[Sample]]:
    """Make the chunks in `workers` processes, 1: in this one, and yield their samples in order."""
    workers = min(workers, len(chunks))
    if workers == 1:
        yield from map(make_chunk, chunks)
        return
    # Spawned: a forked process would copy the locks of the progress bar's thread.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, mp_context=context, initializer=_follow_parent) as pool:
        yield from pool.map(make_chunk, chunks)


def _follow_parent() -> None:
    """Leave an interrupt to the parent, and end when it ends: an orphan would wait for work forever."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_after_parent, daemon=True).start()


def _end_after_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        multiprocessing.connection.wait([parent.sentinel])
        os._exit(1)
