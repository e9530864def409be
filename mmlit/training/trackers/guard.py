"""A tracker that fails is silenced, and its run goes on."""

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from lightning.pytorch.loggers.logger import DummyExperiment, Logger
from lightning.pytorch.utilities import rank_zero_only

log = logging.getLogger(__name__)
Answer = TypeVar("Answer")


class Guarded(Logger):
    """Passes everything on to a tracker until it raises; from then on nothing.

    Beside what Lightning asks of a logger, a tracker may offer `log_pictures`, `log_result` and `close`.

    Args:
        tracker: the logger itself.
        choice: its name in `conf/logger/`.
        directory: the run's folder, which is what Lightning calls `save_dir`.
    """

    def __init__(self, tracker: Logger, *, choice: str, directory: Path) -> None:
        super().__init__()
        self.tracker, self.choice, self.directory, self.failed = tracker, choice, directory, False

    @property
    def name(self) -> str:
        """Empty: the run's folder is the tracker's."""
        return ""

    @property
    def version(self) -> str:
        """Empty, as `name`."""
        return ""

    @property
    def save_dir(self) -> str:
        """The run's folder."""
        return str(self.directory)

    @property
    def experiment(self) -> Any:
        """The tracker's own object, or one that swallows everything. Lightning asks for it first, which opens it."""
        return self._try(lambda: self.tracker.experiment, DummyExperiment())  # type: ignore[attr-defined]

    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        """Numbers of an optimizer step."""
        self._try(lambda: self.tracker.log_metrics(metrics, step), None)

    def log_hyperparams(self, params: dict[str, Any], *_: Any, **__: Any) -> None:  # type: ignore[override]
        """The run's options."""
        self._try(lambda: self.tracker.log_hyperparams(params), None)

    def save(self) -> None:
        """Brings what was logged to the disk."""
        self._try(self.tracker.save, None)

    def finalize(self, status: str) -> None:
        """Lightning's end of a fit or a test, which is not the end of the run."""
        self._try(lambda: self.tracker.finalize(status), None)

    @rank_zero_only
    def log_pictures(self, pictures: Mapping[str, Path], step: int) -> None:
        """Files of pictures, by the names that they are shown under."""
        self._offer("log_pictures", pictures, step)

    @rank_zero_only
    def log_result(self, files: Sequence[Path], checkpoint: Path | None, metrics: Mapping[str, float]) -> None:
        """The finished run's files, the checkpoint that it reports (None: nothing was trained), and its numbers."""
        self._offer("log_result", files, checkpoint, metrics)

    @rank_zero_only
    def close(self, *, failed: bool) -> None:
        """The run's end. A silenced tracker is closed, too, lest the next run of this process join its run."""
        silenced, self.failed = self.failed, False
        self._offer("close", failed or silenced, told=silenced)
        self.failed = True

    def _offer(self, method: str, *arguments: Any, told: bool = False) -> None:
        call = getattr(self.tracker, method, None)
        if call is not None:
            self._try(lambda: call(*arguments), None, told=told)

    def _try(self, call: Callable[[], Answer], default: Answer, *, told: bool = False) -> Answer:
        if self.failed:
            return default
        try:
            return call()
        except Exception as error:  # noqa: BLE001  (a full disk, a server, a library's bug: none is worth a training)
            self.failed = True
            if not told:
                tell_silent(self.choice, error)
            return default


def tell_silent(choice: str, error: BaseException) -> None:
    """Says once that a tracker has failed, and why."""
    log.warning("logger=%s failed and is silent from here on: %s", choice, last_line(error))


def last_line(error: BaseException) -> str:
    """What an error says at its end, or its kind if it says nothing."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1] if lines else type(error).__name__


def report(
    loggers: Sequence[Any], files: Sequence[Path], checkpoint: Path | None, metrics: Mapping[str, float]
) -> None:
    """Gives every tracker what a finished run leaves."""
    for logger in loggers:
        if isinstance(logger, Guarded):
            logger.log_result(files, checkpoint, metrics)


@contextmanager
def closing(loggers: Sequence[Any]) -> Iterator[None]:
    """Closes every tracker at the end of a run, however it ends: the next run of this process opens its own."""
    failed = True
    try:
        yield
        failed = False
    finally:
        for logger in loggers:
            if isinstance(logger, Guarded):
                logger.close(failed=failed)
