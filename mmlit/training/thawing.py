"""Towers that begin frozen and thaw layer by layer: a function of the epoch alone."""

import logging
import math
from collections.abc import Set

from lightning.pytorch import Callback, Trainer
from torch import nn

from mmlit.contracts import Encoder
from mmlit.training.ddp import Ddp
from mmlit.training.module import RetrievalModule
from mmlit.training.stages import begins_of, stage_of

log = logging.getLogger(__name__)


class Thawing(Callback):
    """Keeps what has not thawed yet exactly as it is: weights, batch-norm statistics, and dropout that is off.

    A stage is `{epoch: E, layers: PATTERN}` or `{epoch: E, last: N}`: from the beginning of epoch E on, counted from 1,
    modules whose name, or its end, matches the pattern (as file names do: `layer4`, `layers.1?`, `*`), or the tower's
    last N layers (`mmlit.training.depth`) train as well. What no stage names never trains.

    What is frozen follows from the epoch alone and is worked out again whenever training starts, so a resumed run has
    what an undisturbed one has. The optimizer holds all that will ever train from the beginning; what has no gradient
    it leaves alone, decay and moments included. Gradients of frozen layers are not computed, and several devices do not
    exchange them: DDP is made anew when a stage begins, since it learns only then which parameters train.

    Args:
        image_encoder: its stages; null: it trains, or is frozen, as ever.
        text_encoder: likewise.

    Raises:
        ValueError: if there is no stage, or one is of another form.
    """

    def __init__(
        self, *, image_encoder: list[dict[str, int | str]] | None, text_encoder: list[dict[str, int | str]] | None
    ) -> None:
        given = {"image_encoder": image_encoder, "text_encoder": text_encoder}
        self.stages = {
            tower: [stage_of(stage, option=f"callbacks.thawing.{tower}") for stage in stages]
            for tower, stages in given.items()
            if stages is not None
        }
        if not self.stages or not all(self.stages.values()):
            raise ValueError(
                "needs a stage for image_encoder or text_encoder, such as "
                "callbacks.thawing.image_encoder=[{epoch: 3, last: 2}]; a tower that never trains has freeze=true"
            )
        self._begins: dict[str, dict[str, float]] = {}

    @property
    def told(self) -> str:
        """For the announcement."""
        stages = (f"{tower}: {', '.join(map(str, own))}" for tower, own in self.stages.items())
        return f"thawing: {'; '.join(stages)}"

    def prepare(self, module: RetrievalModule, *, epochs: int) -> None:
        """Before training: what no stage names is frozen for good.

        Args:
            module: with both towers.
            epochs: that training has.

        Raises:
            ValueError: if a tower is frozen as a whole, a stage thaws nothing or begins too late, or nothing trains in
                the first epoch.
        """
        for tower, stages in self.stages.items():
            option, encoder = f"callbacks.thawing.{tower}", _encoder(module, tower)
            if encoder.frozen:
                raise ValueError(
                    f"{option}: {tower}.freeze=true means that nothing of it ever moves, so that its outputs may come "
                    f"from a store; a tower that thaws has {tower}.freeze=false; or leave thawing out of callbacks="
                )
            if encoder.adapted:
                side = tower.removesuffix("_encoder")
                raise ValueError(f"{option}: towers=[{side}_lora] freezes all of it but adapters; take one of the two")
            if (latest := max(stage.epoch for stage in stages)) > epochs:
                raise ValueError(f"{option}: a stage begins in epoch {latest}, after trainer.max_epochs={epochs}")
            self._begins[tower] = begins = begins_of(encoder, stages, option=option)
            if encoder.additions and math.inf in begins.values():
                raise ValueError(
                    f"{option}: towers=[patch_dropout] leaves patches out while all of the tower trains, and these "
                    'stages never thaw all of it: end with {epoch: E, layers: "*"}, or leave patch_dropout out'
                )
            for name, parameter in encoder.named_parameters():
                if begins.get(name) == math.inf:
                    parameter.requires_grad_(False)
        later = {f"{tower}.{name}" for tower, own in self._begins.items() for name, at in own.items() if at > 1}
        if not any(part.requires_grad and name not in later for name, part in module.named_parameters()):
            raise ValueError("callbacks.thawing: nothing trains in epoch 1")
        self._set(module, epochs)

    def on_train_start(self, trainer: Trainer, pl_module: RetrievalModule) -> None:  # type: ignore[override]
        """Also where a killed run goes on, for which no epoch starts; and tells of stages that never begin."""
        if trainer.max_steps > 0 and trainer.is_global_zero:
            steps = -(-int(trainer.num_training_batches) // trainer.accumulate_grad_batches)
            for tower, stages in self.stages.items():
                if trainer.max_steps <= ((latest := max(stage.epoch for stage in stages)) - 1) * steps:
                    log.warning(
                        "callbacks.thawing.%s: trainer.max_steps=%d ends before epoch %d, in which a stage begins",
                        tower, trainer.max_steps, latest,
                    )  # fmt: skip
        self._begin(trainer, pl_module)

    def on_train_epoch_start(self, trainer: Trainer, pl_module: RetrievalModule) -> None:  # type: ignore[override]
        self._begin(trainer, pl_module)

    def _begin(self, trainer: Trainer, module: RetrievalModule) -> None:
        epoch = trainer.current_epoch + 1
        if not self._set(module, epoch):
            return
        if isinstance(trainer.strategy, Ddp):
            trainer.strategy.wrap_again()
        for tower in self._begins:
            sizes = [(part.numel(), part.requires_grad) for part in _encoder(module, tower).parameters()]
            trains, total = sum(size for size, own in sizes if own), sum(size for size, _ in sizes)
            log.info("epoch %d: %s trains %s of %s parameters", epoch, tower, f"{trains:,}", f"{total:,}")

    def _set(self, module: RetrievalModule, epoch: float) -> bool:
        """What is frozen in an epoch; whether that is other than before."""
        changed = False
        for tower, begins in self._begins.items():
            encoder = _encoder(module, tower)
            thawed = {name for name, at in begins.items() if at <= epoch}
            for name, parameter in encoder.named_parameters():
                if math.isfinite(begins.get(name, math.inf)):
                    changed |= parameter.requires_grad != (name in thawed)
                    parameter.requires_grad_(name in thawed)
            encoder.frozen = not thawed
            _set_modes(encoder, "", thawed=thawed, known=begins.keys(), above=False)
            for part in encoder.still:
                part.eval()
        return changed


def _encoder(module: RetrievalModule, tower: str) -> Encoder:
    found: Encoder = getattr(module, tower)
    return found


def _set_modes(module: nn.Module, prefix: str, *, thawed: Set[str], known: Set[str], above: bool) -> None:
    """Training mode where all trained parameters have thawed; a part without any, a dropout, is as the one above it."""
    own = [name for name in known if name.startswith(prefix)]
    module.training = all(name in thawed for name in own) if own else above
    for name, child in module.named_children():
        _set_modes(child, f"{prefix}{name}.", thawed=thawed, known=known, above=module.training)
