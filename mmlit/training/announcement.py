"""What a run is about to do, in a few lines, before it does it."""

from collections.abc import Iterator
from pathlib import Path

from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import EarlyStopping
from torch import nn

from mmlit.data.batching import AllCaptions
from mmlit.data.datamodule import PairsDataModule
from mmlit.training.averaging import AveragedWeights
from mmlit.training.balance import Balance
from mmlit.training.compiled import CompiledTowers
from mmlit.training.generalization import GeneralizationGap
from mmlit.training.modulation import Modulation
from mmlit.training.module import RetrievalModule
from mmlit.training.tf32 import Tf32
from mmlit.training.thawing import Thawing


def announcement(trainer: Trainer, module: RetrievalModule, data: PairsDataModule, *, directory: Path) -> list[str]:
    """Data, parameters, steps with their negatives, device and precision, and where results go; one line each."""
    lines = [f"data: {', '.join(_splits(trainer, data))}", f"model: {', '.join(_parameters(module))}"]
    if "train" in data.readers:
        lines.append(f"training: {_steps(trainer, module, data)}")
        lines += _practices(trainer, module)
    devices = f"{trainer.world_size} x {trainer.strategy.root_device.type}"
    choices = [each.told for each in trainer.callbacks if isinstance(each, CompiledTowers | Tf32)]  # type: ignore[attr-defined]
    told = ", ".join([f"device: {devices}", f"precision {trainer.precision}", *choices])
    return [*lines, told, f"results: {directory}"]


def _practices(trainer: Trainer, module: RetrievalModule) -> Iterator[str]:
    if module.groups is not None:
        yield f"learning rate: optimizer.lr of {module.groups.told(module)}"
    for axis in ("towers", "augmentation"):
        if axis in module.origin["choices"]:
            yield f"{axis}: {module.origin['choices'][axis].strip('[]').replace(',', ', ')}"
    for each in trainer.callbacks:  # type: ignore[attr-defined]
        if isinstance(each, EarlyStopping):
            yield f"early stopping: when {each.monitor} has not improved for {each.patience} validations"
        elif isinstance(each, AveragedWeights | Balance | GeneralizationGap | Modulation | Thawing):
            yield each.told


def cautions(trainer: Trainer, data: PairsDataModule) -> list[str]:
    """What a user may take for something else."""
    count, own = trainer.accumulate_grad_batches, data.batch_size
    if count == 1:
        return []
    batch = own * trainer.world_size
    return [
        f"trainer.accumulate_grad_batches={count} adds up the gradients of {count} batches, and is no larger batch: "
        f"there are still {_negatives(data, batch)}. A step with {_negatives(data, count * batch)} is "
        f"data.batch_size={count * own} step=gradient_cache step.chunk_size={own}"
    ]


def _splits(trainer: Trainer, data: PairsDataModule) -> Iterator[str]:
    purposes = {"train": "training", "val": "selection", "test": "report"}
    limits = {"val": trainer.limit_val_batches, "test": trainer.limit_test_batches}
    for part, purpose in purposes.items():
        if part in data.readers:
            captions, name = data.readers[part].captions, data.names[part]
            origin = f"set aside from {data.names['train']}" if part in data.aside else name
            most = limits.get(part)  # 1.0, a share, is all; 1, a number, is one batch
            limit = "" if most is None or (isinstance(most, float) and most == 1) else f", limited to {most} batches"
            yield f"{purpose} on {captions.num_images:,} images with {captions.num_texts:,} captions ({origin}{limit})"


def _parameters(module: RetrievalModule) -> Iterator[str]:
    parts: dict[str, nn.Module] = {
        "image encoder": module.image_encoder,
        "text encoder": module.text_encoder,
        "alignment": module.alignment,
        **{f"auxiliary {name}": auxiliary for name, auxiliary in module.auxiliaries.items()},
    }
    for name, part in parts.items():
        total = sum(parameter.numel() for parameter in part.parameters())
        trains = sum(parameter.numel() for parameter in part.parameters() if parameter.requires_grad)
        share = "all trained" if trains == total else f"{trains:,} trained" if trains else "frozen"
        yield f"{name} {total:,} parameter{'s' * (total != 1)} ({share})"


def _steps(trainer: Trainer, module: RetrievalModule, data: PairsDataModule) -> str:
    """Counted as the trainer will: it knows its steps only once training has begun."""
    batch, rows = data.batch_size * trainer.world_size, data.batching.size(data.readers["train"].captions)
    batches = rows // batch if data.drop_last else -(-rows // batch)
    limit = trainer.limit_train_batches
    per_epoch = min(batches, limit) if isinstance(limit, int) else int(batches * limit)
    told = f"{_counted(trainer.max_epochs, 'epoch')} of {_counted(per_epoch, 'batch', 'es')}"
    if per_epoch < batches:
        told += f" (of {batches})"
    if trainer.max_steps > 0:
        told += f", {_counted(trainer.max_steps, 'step')} at most"
    if trainer.accumulate_grad_batches > 1:
        told += f", {trainer.accumulate_grad_batches} batches to a step"
    told += f", {batch} {'images' if isinstance(data.batching, AllCaptions) else 'pairs'} in a batch"
    if trainer.world_size > 1:
        told += f" of {trainer.world_size} devices"
    if module.step:
        told += f", {min(module.step.chunk_size, data.batch_size)} in the towers at a time"
    told += f", {data.batching.shows}: {_negatives(data, min(batch, rows))}"
    rest = rows % batch
    if not data.drop_last and 1 < per_epoch == batches and rest >= trainer.world_size:
        told += f", {rest - 1} in the last batch of an epoch"
    return told


def _negatives(data: PairsDataModule, batch: int) -> str:
    """What a global batch of so many rows holds for each item to be told apart from."""
    if not isinstance(data.batching, AllCaptions):
        return f"{batch - 1} negatives for each"
    captions = data.readers["train"].captions
    texts = round((batch - 1) * captions.num_texts / captions.num_images)
    return f"{batch - 1} negative images for each caption, about {texts} negative captions for each image"


def _counted(number: int | None, name: str, plural: str = "s") -> str:
    return f"{number} {name}{plural * (number != 1)}"
