"""A callback for the tests of several devices; a module of its own, to be named in a configuration."""

from pathlib import Path

import torch
from lightning.pytorch import Callback


class GradientDump(Callback):
    """Writes the whole gradient of each step, before it is clipped.

    Args:
        folder: gets a file for each step.
    """

    def __init__(self, *, folder: str) -> None:
        self.folder = Path(folder)

    def on_before_optimizer_step(self, trainer, pl_module, optimizer) -> None:
        if trainer.is_global_zero:
            self.folder.mkdir(parents=True, exist_ok=True)
            found = {name: part.grad for name, part in pl_module.named_parameters() if part.grad is not None}
            torch.save(found, self.folder / f"{trainer.global_step}.pt")
