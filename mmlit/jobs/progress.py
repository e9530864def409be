"""The live view of a sweep: which runs are done, how far the others are, how long it will take."""

import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import mean
from typing import Any

from rich.console import Console, Group
from rich.live import Live
from rich.progress import ProgressBar
from rich.table import Table
from rich.text import Text

from mmlit.jobs.pool import Outcome, Work

#: seconds between two lines where no terminal is attached
_LINE_PAUSE = 30.0


def read_status(directory: Path) -> dict[str, Any]:
    """What a run last said of itself; empty before it said anything."""
    try:
        return json.loads((directory / "status.json").read_text())
    except FileNotFoundError:
        return {}


def seconds_left(
    shares: Sequence[tuple[float, float]], done: Sequence[float], waiting: int, parallel: int
) -> float | None:
    """Time left: (share done, seconds so far) of running jobs, seconds of ended ones, how many wait.

    None while nothing is known yet.
    """
    totals = [seconds / share for share, seconds in shares if share > 0.02]
    known = [*done, *totals]
    if not known:
        return None
    remaining = sum(max(0.0, (seconds / share if share > 0.02 else mean(known)) - seconds) for share, seconds in shares)
    return (remaining + waiting * mean(known)) / max(1, min(parallel, waiting + len(shares)))


class LiveView:
    """A table that moves in a terminal; elsewhere a line whenever a run ends, and one every half minute.

    Args:
        total: jobs of the sweep, with the skipped ones.
        skipped: jobs that had a record before.
        parallel: jobs at a time.
    """

    def __init__(self, *, total: int, skipped: int, parallel: int) -> None:
        self.total, self.skipped, self.parallel = total, skipped, parallel
        self.console = Console(file=sys.stderr)
        self.live = Live(console=self.console, auto_refresh=False, transient=True)
        self._told, self._last = 0, time.monotonic()

    def __enter__(self) -> "LiveView":
        if self.console.is_terminal:
            self.live.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.live.stop()

    def show(
        self, running: Sequence[tuple[Work, float]], ended: Sequence[Outcome], num_waiting: int, num_elsewhere: int
    ) -> None:
        """See `mmlit.jobs.pool.Watcher`."""
        statuses = [read_status(work.directory) for work, _ in running]
        shares = [(_share_done(status), seconds) for status, (_, seconds) in zip(statuses, running, strict=True)]
        left = seconds_left(shares, [outcome.seconds for outcome in ended], num_waiting, self.parallel)
        head = self._head(len(running), ended, num_waiting, num_elsewhere, left)
        for place, outcome in enumerate(ended[self._told :], start=self.skipped + self._told + 1):
            said = f"failed: {outcome.error}" if outcome.error else "done"
            self.console.print(
                f"[{place}/{self.total}] {outcome.name}: {said} ({_clock(outcome.seconds)})",
                markup=False,
                soft_wrap=True,
            )
        self._told = len(ended)
        if self.console.is_terminal:
            self.live.update(_table(head, running, statuses), refresh=True)
        elif running and time.monotonic() - self._last > _LINE_PAUSE:
            self._last = time.monotonic()
            doing = "; ".join(
                f"{work.name} {100 * status.get('share', 0):.0f} %"
                for (work, _), status in zip(running, statuses, strict=True)
            )
            self.console.print(f"{head}: {doing}", markup=False, soft_wrap=True)

    def _head(
        self, num_running: int, ended: Sequence[Outcome], num_waiting: int, num_elsewhere: int, left: float | None
    ) -> str:
        num_failed = sum(outcome.error is not None for outcome in ended)
        counts = {
            "done": self.skipped + len(ended) - num_failed,
            "failed": num_failed,
            "waiting": num_waiting,
            "run by another sweep": num_elsewhere,
        }
        told = ", ".join(f"{count} {name}" for name, count in counts.items() if count)
        at = self.skipped + len(ended) + num_running
        return f"run {at} of {self.total}{f' ({told})' if told else ''}, {_clock(left)} left"


def _share_done(status: dict[str, Any]) -> float:
    """Of what this process had to do: a run that goes on began with a share that costs it nothing."""
    begun = float(status.get("begun", 0))
    return (float(status.get("share", 0)) - begun) / (1 - begun) if begun < 1 else 1.0


def _table(head: str, running: Sequence[tuple[Work, float]], statuses: Sequence[dict[str, Any]]) -> Group:
    table = Table.grid(padding=(0, 2))
    for (work, seconds), status in zip(running, statuses, strict=True):
        doing = f"epoch {status['epoch'] + 1}/{status['epochs']}" if status else "starting"
        doing = "evaluating" if status.get("share", 0) >= 1 else doing
        numbers = "  ".join(f"{key} {status[key]:.3g}" for key in ("train/loss", "val/rsum") if key in status)
        bar = ProgressBar(total=1.0, completed=float(status.get("share", 0)), width=24)
        table.add_row(Text(work.name), bar, doing, numbers, _clock(seconds))
    return Group(Text(head, style="bold"), table)


def _clock(seconds: float | None) -> str:
    return "?" if seconds is None else f"{int(seconds) // 60}:{int(seconds) % 60:02d}"
