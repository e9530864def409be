"""The gap between training images and the selection split, in the log of a run that learns by heart."""

import csv
from types import SimpleNamespace

import pytest
from torch import nn

from mmlit.training.generalization import GeneralizationGap
from mmlit.training.module import RetrievalModule

OPTIONS = ("trainer.max_epochs=8", "trainer.check_val_every_n_epoch=4", "optimizer.lr=3e-3", "seed=2")


def logged(folder, name: str) -> list[float]:
    (path,) = folder.glob("*/metrics.csv")
    with path.open() as file:
        return [float(row[name]) for row in csv.DictReader(file) if row[name]]


@pytest.mark.slow
def test_the_gap_grows_with_what_is_learned_by_heart(train, tmp_path):
    """Ninety-six images, and far more weights."""
    ended = train(*OPTIONS, "callbacks=[last,generalization_gap]", f"paths.outputs={tmp_path}/with")
    assert ended.code == 0, ended.err
    gaps = logged(tmp_path / "with", "val/gap_rsum")
    assert len(gaps) == 2  # one of each validation
    assert gaps[1] > gaps[0] + 30


@pytest.mark.slow
def test_watching_changes_nothing(train, tmp_path):
    """What dropout draws neither."""
    for name, callbacks in (("with", "[last,generalization_gap]"), ("without", "[last]")):
        ended = train(f"callbacks={callbacks}", "alignment.dropout=0.3", "trainer.max_epochs=3",
                      "trainer.log_every_n_steps=1", f"paths.outputs={tmp_path}/{name}")  # fmt: skip
        assert ended.code == 0, ended.err
    for name in ("val/rsum", "train/loss"):
        found = logged(tmp_path / "with", name)
        assert len(found) >= 3
        assert found == logged(tmp_path / "without", name)


class _Module(nn.Module):
    """With a validation from before, as a resumed run has; keeps what is logged."""

    def __init__(self):
        super().__init__()
        self.validation = {"rsum": 10.0}

    def log(self, name, value, **_):
        self.logged = {name: value}


def test_a_resumed_run_logs_a_gap_only_behind_a_validation_of_its_own(monkeypatch):
    """Else one side would be of the weights now, the other one of those before the kill."""
    monkeypatch.setattr(GeneralizationGap, "_rsum", lambda *_: 12.5)
    trainer = SimpleNamespace(sanity_checking=False, callbacks=[])
    module, resumed = _Module(), GeneralizationGap()
    resumed.load_state_dict(GeneralizationGap().state_dict())
    resumed.on_train_epoch_end(trainer, module)
    assert not hasattr(module, "logged")
    killed = GeneralizationGap()
    killed.on_validation_end(trainer, module)  # and then, before its gap was logged
    resumed.load_state_dict(killed.state_dict())
    resumed.on_train_epoch_end(trainer, module)
    assert module.logged == {"val/gap_rsum": 2.5}


@pytest.mark.slow
@pytest.mark.parametrize("limit", ["0.5", "2"])
def test_both_galleries_have_as_many_images(train, tmp_path, limit):
    """Half of the four batches of four pictures, or two of them: on either side eight, in each of two epochs."""

    def counting() -> None:
        step = RetrievalModule.validation_step

        def counted(self, batch, number):
            with (tmp_path / "ranked").open("a") as file:
                file.write(len(batch.image_id) * ".")
            step(self, batch, number)

        RetrievalModule.validation_step = counted

    ended = train("callbacks=[last,generalization_gap]", f"+trainer.limit_val_batches={limit}", "data.batch_size=4",
                  before=counting)  # fmt: skip
    assert ended.code == 0, ended.err
    assert len(logged(tmp_path / "outputs", "val/gap_rsum")) == 2
    assert len((tmp_path / "ranked").read_text()) == 2 * (8 + 8)
