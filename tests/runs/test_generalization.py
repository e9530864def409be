"""The gap between training images and the selection split, in the log of a run that learns by heart."""

import csv

import pytest

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
    plain = train(*OPTIONS, "callbacks=[last]", f"paths.outputs={tmp_path}/without")
    assert plain.code == 0, plain.err
    for name in ("val/rsum", "train/loss"):  # watching changes nothing
        assert logged(tmp_path / "with", name) == logged(tmp_path / "without", name)
