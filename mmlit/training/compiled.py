"""Towers that torch.compile has made faster."""

import torch
from lightning.pytorch import Callback, Trainer

from mmlit.training.module import RetrievalModule


class CompiledTowers(Callback):
    """Compiles both towers in place for training: names of weights stay as they are, in memory and in checkpoints.

    So a checkpoint of a compiled run is one of any run. The first steps take longer, once for each kind of batch
    (training, validation; a second length of captions makes the length a variable).

    Args:
        backend: torch.compile's; `inductor` generates code, which on a CPU needs a C++ compiler.

    Raises:
        ValueError: if there is no such backend.
    """

    def __init__(self, *, backend: str) -> None:
        known = torch.compiler.list_backends(exclude_tags=())  # type: ignore[no-untyped-call]
        if backend not in known:
            raise ValueError(f"callbacks.compile.backend must be one of {', '.join(known)}, got {backend}")
        self.backend = backend

    @property
    def told(self) -> str:
        """For the announcement."""
        return f"towers compiled by {self.backend}"

    def setup(self, trainer: Trainer, pl_module: RetrievalModule, stage: str) -> None:  # type: ignore[override]
        if stage == "fit":
            for tower in (pl_module.image_encoder, pl_module.text_encoder):
                tower.compile(backend=self.backend)
