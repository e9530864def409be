"""Pictures of a run: to its folder always, and to the trackers that take them."""

import io
import logging
from collections.abc import Callable, Mapping
from pathlib import Path

from lightning.pytorch import Trainer
from PIL import Image

from mmlit.results.atomic import write_atomically
from mmlit.training.trackers.guard import Guarded, last_line

log = logging.getLogger(__name__)


def show(trainer: Trainer, pictures: Mapping[str, Callable[[], Image.Image]], *, folder: Path) -> None:
    """Draws pictures, writes each as `folder`/NAME.png and hands them to the trackers as `test/NAME`."""
    written: dict[str, Path] = {}
    for name, draw in pictures.items():
        try:
            written[f"test/{name}"] = write_atomically(folder / f"{name}.png", _png(draw()))
        except Exception as error:  # noqa: BLE001  (what is only looked at must not cost a trained run its record)
            log.warning("picture %s could not be made: %s", name, last_line(error))
    for logger in trainer.loggers:
        if isinstance(logger, Guarded) and written:
            logger.log_pictures(written, trainer.global_step)


def _png(picture: Image.Image) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, "PNG")
    return buffer.getvalue()
