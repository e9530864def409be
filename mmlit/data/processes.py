"""Work that several processes share, none of which outlives the one that began it."""

import multiprocessing
import multiprocessing.connection
import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from typing import Any, TypeVar

Job = TypeVar("Job")
Result = TypeVar("Result")


def available_cores() -> int:
    """Return the number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def made(function: Callable[[Job], Result], jobs: Sequence[Job], *, workers: int) -> Iterator[Result]:
    """`function` of each job, in order, by `workers` forked processes; 1: in this process.

    They are forked before this returns: a progress bar, which is a thread, may begin behind it. `function` and all that
    it holds are inherited, jobs and results are sent.
    """
    if (workers := min(workers, len(jobs))) <= 1:
        return map(function, jobs)
    context = multiprocessing.get_context("fork")  # a spawned one would import torch anew
    pool = ProcessPoolExecutor(workers, mp_context=context, initializer=_begin, initargs=(function,))
    return _all_of(pool, pool.map(_made, jobs))


def _all_of(pool: ProcessPoolExecutor, results: Iterator[Result]) -> Iterator[Result]:
    with pool:
        yield from results


#: what this process makes of a job, where another one has forked it
_inherited: list[Callable[[Any], Any]] = []


def _begin(function: Callable[[Any], Any]) -> None:
    _inherited.append(function)
    follow_parent()


def _made(job: Any) -> Any:
    return _inherited[-1](job)


def follow_parent() -> None:
    """Leave an interrupt to the parent, and end when it ends: an orphan would wait for work forever."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_after_parent, daemon=True).start()


def _end_after_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        multiprocessing.connection.wait([parent.sentinel])
        os._exit(1)
