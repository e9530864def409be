"""TF32: fp32 matrix products with ten bits of mantissa, as a choice that is told."""

from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer


def allow_tf32(allowed: bool) -> None:
    """Of matrix products and convolutions on GPUs. PyTorch itself allows it in convolutions unless told otherwise."""
    torch.backends.cuda.matmul.allow_tf32 = allowed
    torch.backends.cudnn.allow_tf32 = allowed


class Tf32(Callback):
    """Allows it in training steps only: what is evaluated, and above all ranked, is computed in fp32 as ever.

    It matters to `trainer.precision=32-true`; products that autocast makes in half precision stay what they are.
    """

    told = "TF32 in training"

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Refuses a device that has no TF32.

        Raises:
            ValueError: if it is no GPU.
        """
        if (kind := trainer.strategy.root_device.type) != "cuda":
            raise ValueError(f"callbacks=tf32 is for GPUs, and this run is on the {kind}: leave it out")

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        allow_tf32(True)

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        allow_tf32(False)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        allow_tf32(trainer.training)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        allow_tf32(False)

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> Any:
        allow_tf32(False)
