"""What a user sees of several files at work at once, and how they are told to stop."""

from threading import Event
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn


class StoppedError(Exception):
    """The user wants no more."""


class Watch:
    """One line of the display. Whoever reports an advance hears there that the user wants no more."""

    def __init__(self, progress: Progress, name: str, stopped: Event) -> None:
        self._progress, self._name, self._stopped = progress, name, stopped
        self._task = progress.add_task(name, total=None)

    def stage(self, what: str, total: int, done: int = 0) -> None:
        """Begin to do `what`, of `total` bytes of which `done` are done already."""
        self._progress.reset(self._task, description=f"{self._name}: {what}", total=total, completed=done)

    def reached(self, done: int) -> None:
        """`done` bytes of the stage are done; raises StoppedError if no more is wanted."""
        self._obey(0)
        self._progress.update(self._task, completed=done)

    def wait(self, seconds: float) -> None:
        """Do nothing for so long; raises StoppedError if no more is wanted."""
        self._obey(seconds)

    def tell(self, line: str) -> None:
        """A line that stays on the screen, or in a log file."""
        self._progress.console.print(f"{self._name}: {line}", markup=False, highlight=False, soft_wrap=True)

    def _obey(self, seconds: float) -> None:
        if self._stopped.wait(seconds):
            raise StoppedError(self._name)


class Display:
    """Bars on a terminal; elsewhere only the lines that are told."""

    def __init__(self, console: Console) -> None:
        self._stopped = Event()
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            DownloadColumn(),
            TransferSpeedColumn(),
            TimeRemainingColumn(),
            console=console,
            disable=not console.is_terminal,
        )

    def watch(self, name: str) -> Watch:
        """A further line."""
        return Watch(self._progress, name, self._stopped)

    def __enter__(self) -> "Display":
        self._progress.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, _: BaseException | None, __: TracebackType | None) -> None:
        self._progress.stop()

    def stop(self) -> None:
        """Everybody ends at the next advance."""
        self._stopped.set()


def gigabytes(count: int) -> str:
    """Bytes for people: `13.51 GB`, `36.7 MB`."""
    return f"{count / 1e9:.2f} GB" if count >= 1e9 else f"{count / 1e6:.1f} MB"
