"""Runs jobs side by side, each in a process forked from this one, which has imported everything heavy already."""

import os
import sys
import time
import traceback
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from multiprocessing import get_context
from multiprocessing.context import ForkProcess
from pathlib import Path
from typing import NamedTuple, Protocol

#: seconds between two looks at the running jobs
_PAUSE = 0.5


class Work(NamedTuple):
    """One job: its name, the folder that its `log.txt` and `status.json` lie in, and what to call in its process."""

    name: str
    directory: Path
    call: Callable[[], None]


class Outcome(NamedTuple):
    """How a job ended: seconds of wall time, and the last line of its error, or None."""

    name: str
    seconds: float
    error: str | None


class Watcher(Protocol):
    """Who is told while jobs run."""

    def show(self, running: Sequence[tuple[Work, float]], ended: Sequence[Outcome], num_waiting: int) -> None:
        """`running`: each with the seconds it has run so far."""


def run_all(works: Sequence[Work], *, parallel: int, watcher: Watcher) -> list[Outcome]:
    """Runs every job, `parallel` at a time; one that fails does not stop the others.

    The caller must not have run torch operations or started threads: a forked child would inherit their locks.

    Returns:
        The outcomes in the order in which the jobs ended.

    Raises:
        ValueError: if `parallel` < 1.
    """
    if parallel < 1:
        raise ValueError(f"hydra.launcher.jobs must be >= 1, got {parallel}")
    waiting, ended = deque(works), list[Outcome]()
    running: dict[ForkProcess, tuple[Work, float]] = {}
    with _stopped_at_the_end(running):
        while waiting or running:
            while waiting and len(running) < parallel:
                work = waiting.popleft()
                running[_start(work)] = (work, time.monotonic())
            for process in [process for process in running if not process.is_alive()]:
                process.join()
                work, start = running.pop(process)
                error = _error(work, process.exitcode) if process.exitcode else None
                ended.append(Outcome(work.name, time.monotonic() - start, error))
            watcher.show([(work, time.monotonic() - start) for work, start in running.values()], ended, len(waiting))
            if running:
                time.sleep(_PAUSE)
    return ended


@contextmanager
def _stopped_at_the_end(running: dict[ForkProcess, tuple[Work, float]]) -> Iterator[None]:
    """No job outlives a sweep that ends or is interrupted (a SIGKILL of the sweep itself leaves them running)."""
    try:
        yield
    finally:
        for process in running:
            process.terminate()
        for process in running:
            process.join()


def _start(work: Work) -> ForkProcess:
    work.directory.mkdir(parents=True, exist_ok=True)
    (work.directory / "status.json").unlink(missing_ok=True)  # of a run that was killed before
    process = get_context("fork").Process(target=_child, args=(work,), name=work.name)
    process.start()
    return process


def _child(work: Work) -> None:
    """Everything the job prints goes to its log."""
    log = os.open(work.directory / "log.txt", os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
    for descriptor in (1, 2):
        os.dup2(log, descriptor)
    sys.stdout = sys.stderr = os.fdopen(log, "w", buffering=1, errors="replace")
    try:
        work.call()
    except BaseException:  # noqa: BLE001  (whatever ended the job is told in its log and by its exit code)
        traceback.print_exc()
        sys.stderr.flush()
        os._exit(1)


def _error(work: Work, code: int | None) -> str:
    """The last line of a failed job's log: that is where Python says what was wrong."""
    lines = (work.directory / "log.txt").read_text(errors="replace").split("\n")
    said = next((line.strip() for line in reversed(lines) if line.strip()), "no output")
    return said if code == 1 else f"ended by signal {-code}; last line: {said}" if code and code < 0 else said
