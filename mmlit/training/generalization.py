"""How much better a model ranks pictures that it has trained on."""

from typing import Any

import torch
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.utilities.seed import isolate_rng

from mmlit.data.datamodule import PairsDataModule
from mmlit.training.averaging import validated_weights
from mmlit.training.module import RetrievalModule


class GeneralizationGap(Callback):
    """Logs `val/gap_rsum` after each validation: the rsum of some training images, less the selection split's.

    Both galleries have as many images, each with all its captions, are read without augmentation and
    ranked by the same evaluator; the training images are the same ones each time. The gap grows as pairs are learned by
    heart; both splits should have as many captions per image, or it also shows that. Costs a second validation.
    """

    told = "generalization gap: some training images are ranked, too, behind each validation"

    def __init__(self) -> None:
        self._due = False

    def on_validation_end(self, trainer: Trainer, pl_module: RetrievalModule) -> None:  # type: ignore[override]
        self._due = not trainer.sanity_checking

    def on_train_epoch_end(self, trainer: Trainer, pl_module: RetrievalModule) -> None:  # type: ignore[override]
        """Behind a validation, if there was one in this epoch: only here may a callback log what took a while."""
        if not self._due or pl_module.validation is None:
            return
        self._due = False
        pl_module.eval()
        with validated_weights(trainer, pl_module), isolate_rng():  # watching changes nothing, dropout's draws neither
            trained = self._rsum(trainer, pl_module)
        pl_module.train()
        pl_module.log("val/gap_rsum", trained - pl_module.validation["rsum"], sync_dist=True)

    def state_dict(self) -> dict[str, Any]:
        """Plain containers."""
        return {"due": self._due}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._due = state_dict["due"]

    @torch.no_grad()
    def _rsum(self, trainer: Trainer, module: RetrievalModule) -> float:
        data: PairsDataModule = trainer.datamodule  # type: ignore[attr-defined]
        (batches,) = trainer.num_val_batches
        module.evaluator.begin(None)
        for number, batch in enumerate(data.training_sample()):
            if number >= batches:
                break
            moved: Any = trainer.strategy.batch_to_device(batch)
            with trainer.precision_plugin.val_step_context():
                module.validation_step(moved, number)
        with torch.autocast(module.device.type, enabled=False):
            result = module.evaluator.compute()
        module.evaluator.reset()
        return float(result.metrics["rsum"])
