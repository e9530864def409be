"""What a run is about to do, in a few lines, before it does it."""

from collections.abc import Iterator
from pathlib import Path

from lightning.pytorch import Trainer
from torch import nn

from mmlit.data.datamodule import PairsDataModule
from mmlit.training.module import RetrievalModule


def announcement(trainer: Trainer, module: RetrievalModule, data: PairsDataModule, *, directory: Path) -> list[str]:
    """Data, parameters, steps with their negatives, device and precision, and where results go; one line each."""
    lines = [f"data: {', '.join(_splits(data))}", f"model: {', '.join(_parameters(module))}"]
    if "train" in data.readers:
        lines.append(f"training: {_steps(trainer, data)}")
    devices = f"{trainer.world_size} x {trainer.strategy.root_device.type}"
    return [*lines, f"device: {devices}, precision {trainer.precision}", f"results: {directory}"]


def _splits(data: PairsDataModule) -> Iterator[str]:
    purposes = {"train": "training", "val": "selection", "test": "report"}
    for part, purpose in purposes.items():
        if part in data.readers:
            captions, name = data.readers[part].captions, data.names[part]
            origin = f"set aside from {data.names['train']}" if isinstance(name, int) else name
            yield f"{purpose} on {captions.num_images:,} images with {captions.num_texts:,} captions ({origin})"


def _parameters(module: RetrievalModule) -> Iterator[str]:
    parts: dict[str, nn.Module] = {
        "image encoder": module.image_encoder,
        "text encoder": module.text_encoder,
        "alignment": module.alignment,
    }
    for name, part in parts.items():
        total = sum(parameter.numel() for parameter in part.parameters())
        trains = sum(parameter.numel() for parameter in part.parameters() if parameter.requires_grad)
        share = "all trained" if trains == total else f"{trains:,} trained" if trains else "frozen"
        yield f"{name} {total:,} parameters ({share})"


def _steps(trainer: Trainer, data: PairsDataModule) -> str:
    """Optimizer steps are known to the trainer only once training has begun; what is said here is what was asked."""
    epochs = f"{trainer.max_epochs} epochs" if trainer.max_epochs is not None else f"{trainer.max_steps} steps"
    batch = data.batch_size * trainer.world_size
    told = f"{epochs}, one caption of every image each, {batch} pairs per step: {batch - 1} negatives for each"
    return told + (
        f", {trainer.accumulate_grad_batches} batches per step" if trainer.accumulate_grad_batches > 1 else ""
    )
