"""TF32 is a choice, of training steps alone."""

from types import SimpleNamespace

import pytest
import torch
from lightning.pytorch import LightningModule, Trainer
from torch import Tensor, nn

from mmlit.training.tf32 import Tf32, allow_tf32


def allowed() -> tuple[bool, bool]:
    return torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32


class Small(LightningModule):
    """Notes whether TF32 is allowed in each of its steps."""

    def __init__(self) -> None:
        super().__init__()
        self.layer, self.seen = nn.Linear(4, 1), []

    def training_step(self, batch: Tensor, batch_idx: int) -> Tensor:
        self.seen.append(("train", *allowed()))
        if batch_idx == 2:
            raise ValueError("broken")
        return self.layer(batch).sum()

    def validation_step(self, batch: Tensor, batch_idx: int) -> None:
        self.seen.append(("val", *allowed()))

    def test_step(self, batch: Tensor, batch_idx: int) -> None:
        self.seen.append(("test", *allowed()))

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.1)


@pytest.fixture(autouse=True)
def as_before():
    before = allowed()
    yield
    torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = before


@pytest.fixture
def trainer(monkeypatch, tmp_path) -> Trainer:
    monkeypatch.setattr(Tf32, "setup", lambda *_: None)  # which refuses a CPU
    return Trainer(
        accelerator="cpu", devices=1, max_epochs=2, num_sanity_val_steps=1, callbacks=[Tf32()], logger=False,
        enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False, default_root_dir=tmp_path,
    )  # fmt: skip


def test_only_training_steps_have_it(trainer):
    """Trap 3: what is ranked is fp32, after the sanity check and between epochs as well."""
    allow_tf32(False)
    module, batches = Small(), torch.ones(2, 3, 4)
    trainer.fit(module, batches, batches)
    trainer.test(module, batches, verbose=False)
    epoch = [("train", True, True)] * 2 + [("val", False, False)] * 2
    assert module.seen == [("val", False, False)] + 2 * epoch + [("test", False, False)] * 2
    assert allowed() == (False, False)


def test_it_ends_with_a_broken_run(trainer):
    with pytest.raises(ValueError, match="broken"):
        trainer.fit(Small(), torch.ones(3, 3, 4), torch.ones(1, 3, 4))
    assert allowed() == (False, False)


def test_a_cpu_is_refused():
    trainer = SimpleNamespace(strategy=SimpleNamespace(root_device=torch.device("cpu")))
    with pytest.raises(ValueError, match="callbacks=tf32 is for GPUs, and this run is on the cpu"):
        Tf32().setup(trainer, nn.Linear(1, 1), "fit")
