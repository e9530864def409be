"""The LightningModule: two encoders, an alignment, and nothing that only one alignment understands."""

import time
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import torch
from lightning.pytorch import LightningModule
from lightning.pytorch.utilities.types import OptimizerLRSchedulerConfig
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from mmlit.contracts import Alignment, Auxiliary, Batch, Encoded, ImageEncoder, Pairs, TextEncoder
from mmlit.data.datamodule import PairsDataModule
from mmlit.evaluation.protocol import Split
from mmlit.evaluation.retrieval import Retrieval, RetrievalResult
from mmlit.layers.similarity import pooled_only
from mmlit.training.gathering import gather_encoded, gather_ids, global_mean, same_image
from mmlit.training.gradient_cache import GradientCache
from mmlit.training.parameter_groups import ByPart, parameter_groups, scale
from mmlit.training.speed import channels_last, fused
from mmlit.training.teacher import Teacher

#: format of what this module adds to a checkpoint
CHECKPOINT_VERSION = 1


class Budget(NamedTuple):
    """What training used: epochs, optimizer steps, image–text pairs shown (over all devices)."""

    epochs: int
    steps: int
    pairs_seen: int


class RetrievalModule(LightningModule):
    """Trains and evaluates any alignment of any two encoders.

    Args:
        image_encoder: pixels → `Encoded`.
        text_encoder: token ids → `Encoded`.
        alignment: built for the specs of these two encoders.
        auxiliaries: further terms of the training loss, by name.
        evaluator: ranks a gallery.
        optimizer: called with parameter groups.
        groups: makes them of this module, or None: all parts learn alike.
        schedule: called with the optimizer and `total_steps`.
        step: how a training batch is embedded if not whole, or None.
        seed: of the draws inside losses.
        origin: plain containers that checkpoints keep: resolved configuration, choices, training data.
    """

    def __init__(
        self,
        *,
        image_encoder: ImageEncoder,
        text_encoder: TextEncoder,
        alignment: Alignment,
        auxiliaries: Mapping[str, Auxiliary],
        evaluator: Retrieval,
        optimizer: Callable[[list[dict[str, Any]]], Optimizer],
        groups: ByPart | None,
        schedule: Callable[..., LRScheduler],
        step: GradientCache | None,
        seed: int,
        origin: dict[str, Any],
    ) -> None:
        super().__init__()
        self.image_encoder, self.text_encoder, self.alignment = image_encoder, text_encoder, alignment
        self.auxiliaries = nn.ModuleDict(auxiliaries)
        image_encoder.needs_tokens = text_encoder.needs_tokens = alignment.needs_tokens
        self.evaluator, self.step, self.groups = evaluator, step, groups
        self.optimizer_, self.schedule_, self.seed, self.origin = optimizer, schedule, seed, origin
        self.result: RetrievalResult | None = None
        self.validation: dict[str, float] | None = None  # the last one's metrics
        self.budget = Budget(epochs=0, steps=0, pairs_seen=0)
        self.fit_start, self.seconds_before = 0.0, 0.0  # seconds: of this run before it was killed
        self.pairs: Pairs | None = None  # of the step in progress
        self.teacher: Teacher | None = None
        self.stored_teacher: dict[str, Tensor] | None = None  # of the point that training goes on from

    def encode(self, batch: Batch, *, teacher: Teacher | None = None) -> tuple[Encoded, Encoded]:
        """Images and texts of a batch, embedded; a side that a store has encoded skips its tower."""
        by = teacher or self
        if self.step is not None and self.training:
            return self.step.encode(by.image_encoder, by.text_encoder, by.alignment, batch)
        image = batch.image if isinstance(batch.image, Encoded) else by.image_encoder(batch.image)
        text = batch.text if batch.text is not None else by.text_encoder(batch.token_ids, batch.token_mask)
        return by.alignment.embed_image(image), by.alignment.embed_text(text)

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """The sum over the alignment's and the auxiliaries' terms of their means over the global batch."""
        self.pairs = pairs = self._gathered(batch, *self.encode(batch))
        terms = self.alignment.losses(pairs)
        for auxiliary, module in self.auxiliaries.items():
            terms |= {f"{auxiliary}_{name}": term for name, term in module.losses(pairs).items()}  # type: ignore[operator]
        means = global_mean(terms)
        loss = torch.stack([mean.float() for mean in means.values()]).sum()
        self.budget = self.budget._replace(pairs_seen=self.budget.pairs_seen + len(pairs.all_text_id))
        self.log("train/loss", loss.detach(), prog_bar=True, sync_dist=True, batch_size=len(batch.image_id))
        for name, mean in means.items():
            self.log(f"train/{name}", mean.detach(), sync_dist=True, batch_size=len(batch.image_id))
        # texts whose image another text of the global batch has, too: positives, not negatives
        collisions = same_image(pairs.all_text_image_id).float()
        self.log("train/same_image", collisions, batch_size=len(batch.image_id))
        self.log("train/same_image_in_epoch", collisions, on_step=False, on_epoch=True, reduce_fx="sum")
        return loss

    def optimizer_step(self, *args: Any, **kwargs: Any) -> None:
        """After each optimizer step the alignment's own state moves, and the teacher."""
        super().optimizer_step(*args, **kwargs)
        self.budget = self.budget._replace(steps=self.budget.steps + 1)
        if self.pairs is not None:
            self.alignment.after_step(self.pairs)
            self.pairs = None
        if self.teacher is not None:
            self.teacher.follow()

    def setup(self, stage: str) -> None:
        if stage == "fit" and self.trainer.world_size > 1:  # else dropout would leave out the same on all devices
            torch.manual_seed(self.seed + self.global_rank)
        if self.trainer.strategy.root_device.type == "cuda":
            channels_last(self.image_encoder)

    def on_fit_start(self) -> None:
        """The weights to start from are loaded by now."""
        self.fit_start = time.perf_counter()
        if self.alignment.momentum is not None:
            self.teacher = Teacher(
                image_encoder=self.image_encoder, text_encoder=self.text_encoder, alignment=self.alignment
            )
            if self.stored_teacher is not None:
                self.teacher.load_state_dict(self.stored_teacher)
                self.stored_teacher = None

    def on_train_epoch_end(self) -> None:
        self.budget = self.budget._replace(epochs=self.budget.epochs + 1)

    def on_validation_epoch_start(self) -> None:
        self.evaluator.begin(None)

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        self._collect(batch)

    def on_validation_epoch_end(self) -> None:
        if not self.trainer.sanity_checking:
            self.validation = dict(self._report("val").metrics)
        self.evaluator.reset()

    def on_test_epoch_start(self) -> None:
        data: PairsDataModule = self.trainer.datamodule  # type: ignore[attr-defined]
        captions = data.readers["test"].captions
        # copies: what was kept by an earlier run is mapped read-only, of which torch warns
        ids = (torch.tensor(numbers) for numbers in (captions.image_id, captions.text_id))
        self.evaluator.begin(Split(str(data.names["test"]), captions.root, *ids))

    def test_step(self, batch: Batch, batch_idx: int) -> None:
        self._collect(batch)

    def on_test_epoch_end(self) -> None:
        self.result = self._report("test")
        self.evaluator.reset()

    def configure_optimizers(self) -> OptimizerLRSchedulerConfig:
        """The optimizer on groups of parameters, the schedule counted in steps."""
        optimizer = fused(self.optimizer_, (self.groups or parameter_groups)(self), device=self.device)
        scale(optimizer)
        steps = int(self.trainer.estimated_stepping_batches)
        return {
            "optimizer": optimizer,
            "lr_scheduler": {
                "scheduler": self.schedule_(optimizer, total_steps=steps),
                "name": "train/lr",
                "interval": "step",
                "frequency": 1,
            },
        }

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Plain containers only, so that `torch.load(weights_only=True)` reads the file."""
        steps = int(self.trainer.estimated_stepping_batches)
        planned = {
            "epochs": self.trainer.max_epochs,
            "steps": steps,
            # a run's budget is the whole of it, also for the checkpoint that was best on the way
            "pairs_seen": round(self.budget.pairs_seen * steps / max(1, self.budget.steps)),
        }
        checkpoint["mmlit"] = {
            "version": CHECKPOINT_VERSION,
            "origin": self.origin,
            "budget": planned,
            "used": self.budget._asdict(),
            "fit_seconds": self.fit_seconds,
            "validation": self.validation,
            **({"teacher": self.teacher.state_dict()} if self.teacher is not None else {}),
        }

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """A resumed run goes on counting."""
        self.budget = Budget(**checkpoint["mmlit"]["used"])
        self.stored_teacher = checkpoint["mmlit"].get("teacher")
        self.seconds_before, self.validation = checkpoint["mmlit"]["fit_seconds"], checkpoint["mmlit"]["validation"]

    @property
    def fit_seconds(self) -> float:
        """Seconds of training so far, those before a resume included."""
        return self.seconds_before + time.perf_counter() - self.fit_start

    def adopt(self, checkpoint: dict[str, Any], *, name: str) -> None:
        """Takes over what a checkpoint of file name `name` says of its training."""
        own = checkpoint["mmlit"]
        self.origin["training"] = own["origin"]["training"]
        self.origin["selection"] = f"{own['origin']['rule']}, epoch {checkpoint['epoch'] + 1} ({name})"
        self.budget = Budget(**own["budget"])

    def adopt_published(self) -> None:
        """Says that the weights are as somebody published them, and that nothing was trained here."""
        self.origin["training"] = {"images": 0, "pairs": 0, "digests": []}
        self.origin["selection"] = "published weights"

    def _gathered(self, batch: Batch, image: Encoded, text: Encoded) -> Pairs:
        own_image, all_image, image_offset = gather_encoded(image)
        own_text, all_text, text_offset = gather_encoded(text)
        refused = self.step.refuse(self.alignment) if self.step else None
        return Pairs(
            image=own_image,
            text=own_text,
            all_image=all_image,
            all_text=all_text,
            image_offset=image_offset,
            text_offset=text_offset,
            batch=batch,
            encode_image=refused or (lambda pixels: self.alignment.embed_image(self.image_encoder(pixels))),
            encode_text=refused or (lambda ids, mask: self.alignment.embed_text(self.text_encoder(ids, mask))),
            draw_key=self.seed * 2**32 + self.global_step,
            teacher=self._taught(batch),
            all_views=tuple(self._view(pixels) for pixels in batch.views or ()),
            **gather_ids(batch),  # type: ignore[arg-type]
        )

    def _view(self, pixels: Tensor) -> Encoded:
        found = self.step.encode_view(self.image_encoder, pixels) if self.step else self.image_encoder(pixels)
        return gather_encoded(pooled_only(found.pooled))[1]

    @torch.no_grad()
    def _taught(self, batch: Batch) -> tuple[Encoded, Encoded] | None:
        if self.teacher is None:
            return None
        image, text = self.encode(batch, teacher=self.teacher)
        return gather_encoded(image)[1], gather_encoded(text)[1]

    def _collect(self, batch: Batch) -> None:
        image, text = self.encode(batch)
        self.evaluator.update(image, text, batch.image_id, batch.text_id, batch.text_image_id)

    def _report(self, split: str) -> RetrievalResult:
        """Every device ranks the same gathered gallery, so that their numbers agree without being averaged."""
        with torch.autocast(self.device.type, enabled=False):
            result: RetrievalResult = self.evaluator.compute()
        # the same on every device, so that their mean is it, too
        self.log_dict({f"{split}/{name}": value for name, value in result.metrics.items()}, sync_dist=True)
        return result
