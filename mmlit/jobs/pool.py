"""Runs jobs side by side, each in a process forked from this one, which has imported everything heavy already."""

import json
import os
import signal
import sys
import threading
import time
import traceback
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from multiprocessing import get_context
from multiprocessing.context import ForkProcess
from pathlib import Path
from typing import NamedTuple, Protocol

from mmlit.jobs.claim import ClaimedError, is_claimed

#: seconds between two looks at the running jobs, and between two looks at those that another sweep works on
_PAUSE, _LONG_PAUSE = 0.5, 5.0
#: exit code of a job that found its folder claimed (EX_TEMPFAIL)
_CLAIMED = 75


class Work(NamedTuple):
    """One job: its name, the folder that its `log.txt` and `status.json` lie in, and what to call in its process.

    `call` gets the number of the place, 0 … parallel − 1, that the job runs in; `finished` says whether there is
    nothing left to do.
    """

    name: str
    directory: Path
    call: Callable[[int], None]
    finished: Callable[[], bool]


class Outcome(NamedTuple):
    """How a job ended: seconds of wall time, and the last line of its error, or None."""

    name: str
    seconds: float
    error: str | None


class Running(NamedTuple):
    """A job that runs: its process, where, and since when."""

    work: Work
    process: ForkProcess
    place: int
    start: float


class Watcher(Protocol):
    """Who is told while jobs run."""

    def show(
        self, running: Sequence[tuple[Work, float]], ended: Sequence[Outcome], num_waiting: int, num_elsewhere: int
    ) -> None:
        """`running`: each with the seconds it has run so far; `num_elsewhere`: jobs that other sweeps work on."""


def run_all(works: Sequence[Work], *, parallel: int, watcher: Watcher) -> list[Outcome]:
    """Runs every job, `parallel` at a time; one that fails does not stop the others.

    A job that another process works on is waited for, and run only if that one ends without finishing it. When this
    process is killed, its jobs end with it. The caller must not have run torch operations or started threads: a forked
    child would inherit their locks.

    Returns:
        The outcomes in the order in which the jobs ended.

    Raises:
        ValueError: if `parallel` < 1.
    """
    if parallel < 1:
        raise ValueError(f"hydra.launcher.jobs must be >= 1, got {parallel}")
    waiting, elsewhere, ended = deque(works), list[Work](), list[Outcome]()
    running: list[Running] = []
    looked = time.monotonic()
    with _stopped_at_the_end(running):
        while waiting or running or elsewhere:
            while waiting and len(running) < parallel:
                work = waiting.popleft()
                if is_claimed(work.directory):
                    elsewhere.append(work)
                    continue
                place = min(set(range(parallel)) - {each.place for each in running})
                running.append(Running(work, _start(work, place), place, time.monotonic()))
            for each in [each for each in running if not each.process.is_alive()]:
                each.process.join()
                running.remove(each)
                if each.process.exitcode == _CLAIMED:
                    elsewhere.append(each.work)
                    continue
                error = _error(each.work, each.process.exitcode) if each.process.exitcode else None
                if error:
                    _tell_status(each.work, error)
                ended.append(Outcome(each.work.name, time.monotonic() - each.start, error))
            if elsewhere and (time.monotonic() - looked > _LONG_PAUSE or not running):
                looked = time.monotonic()
                free = [work for work in elsewhere if not is_claimed(work.directory)]
                elsewhere = [work for work in elsewhere if work not in free]
                ended += [Outcome(work.name, 0.0, None) for work in free if work.finished()]
                waiting.extend(work for work in free if not work.finished())
            shown = [(each.work, time.monotonic() - each.start) for each in running]
            watcher.show(shown, ended, len(waiting), len(elsewhere))
            if running or elsewhere:
                time.sleep(_PAUSE)
    return ended


@contextmanager
def _stopped_at_the_end(running: list[Running]) -> Iterator[None]:
    """No job outlives a sweep that ends or is interrupted."""
    try:
        yield
    finally:
        for each in running:
            each.process.terminate()
        for each in running:
            each.process.join()


def _start(work: Work, place: int) -> ForkProcess:
    work.directory.mkdir(parents=True, exist_ok=True)
    (work.directory / "status.json").unlink(missing_ok=True)  # of a run that was killed before
    process = get_context("fork").Process(target=_child, args=(work, place), name=work.name)
    process.start()
    return process


def _child(work: Work, place: int) -> None:
    """Everything the job prints goes to its log, behind what it printed before it was killed."""
    threading.Thread(target=end_with_parent, daemon=True).start()
    log = os.open(work.directory / "log.txt", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    for descriptor in (1, 2):
        os.dup2(log, descriptor)
    sys.stdout = sys.stderr = os.fdopen(log, "w", buffering=1, errors="replace")
    try:
        work.call(place)
    except ClaimedError:
        os._exit(_CLAIMED)
    except BaseException:  # noqa: BLE001  (whatever ended the job is told in its log and by its exit code)
        traceback.print_exc()
        sys.stderr.flush()
        os._exit(1)


def end_with_parent() -> None:
    """Ends this process when the one that started it is gone: what is killed must not be waited for by the next."""
    parent = os.getppid()
    while os.getppid() == parent:
        time.sleep(_PAUSE)
    os.kill(os.getpid(), signal.SIGKILL)


def _tell_status(work: Work, error: str) -> None:
    """For `mmlit runs`: that a run failed, and why, beside how far it got."""
    path = work.directory / "status.json"
    status = json.loads(path.read_text()) if path.exists() else {}
    path.write_text(json.dumps({**status, "error": error}))


def _error(work: Work, code: int | None) -> str:
    """The last line of a failed job's log: that is where Python says what was wrong."""
    lines = (work.directory / "log.txt").read_text(errors="replace").split("\n")
    said = next((line.strip() for line in reversed(lines) if line.strip()), "no output")
    return said if code == 1 else f"ended by signal {-code}; last line: {said}" if code and code < 0 else said
