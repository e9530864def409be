"""A run whose loss breaks stops, and what it had written stays good."""

import json

import pytest
import torch

import mmlit.training.resume
from mmlit.alignments.contrastive import Contrastive

#: 6 batches an epoch, two epochs
OPTIONS = ("alignment=contrastive", "resume_minutes=0.000001")


def breaks_at(step: int, kind: str):
    """Makes the loss NaN, or only its gradient, in one optimizer step; a resume point after every other."""
    mmlit.training.resume._SHARE = 1e9
    whole = Contrastive.losses

    def losses(self, pairs):
        terms = whole(self, pairs)
        if pairs.draw_key == step - 1:  # seed 0: steps done
            nothing = pairs.image.pooled.sum() * 0
            terms["i2t"] = terms["i2t"] + (nothing / 0 if kind == "loss" else nothing.sqrt())
        return terms

    Contrastive.losses = losses


def finite(path) -> bool:
    return all(part.isfinite().all() for part in torch.load(path, weights_only=True)["state_dict"].values())


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["loss", "gradient"])
def test_what_was_written_stays_good_and_the_run_goes_on_from_it(train, tmp_path, kind):
    """Step 9 breaks, in the second epoch: best is of the first, the resume point of step 8."""
    assert train(*OPTIONS, f"paths.outputs={tmp_path}/undisturbed").code == 0
    ended = train(*OPTIONS, before=lambda: breaks_at(9, kind))
    assert ended.code == 2
    what = "train/loss is nan" if kind == "loss" else " gradients are not finite, "
    assert what in ended.err
    assert " at optimizer step 9, epoch 2, with images " in ended.err
    assert "best.ckpt and resume.ckpt of before stays" in ended.err
    (run,) = (tmp_path / "outputs").iterdir()
    assert not (run / "result.json").exists()
    assert len(json.loads((run / "broken_step.json").read_text())["image_ids"]) == 16
    assert finite(run / "checkpoints" / "best.ckpt")
    assert torch.load(run / "checkpoints" / "resume.ckpt", weights_only=True)["global_step"] == 8
    ended = train(*OPTIONS)
    assert ended.code == 0, ended.err
    records = [next((tmp_path / place).glob("*/result.json")) for place in ("undisturbed", "outputs")]
    one, other = (json.loads(path.read_text())["metrics"] for path in records)
    assert one == other


def test_a_learning_rate_that_breaks_the_weights_leaves_nothing_broken(train, tmp_path):
    """The loss breaks in the second step, before any epoch has ended; a resume point was due after the first."""

    def often():
        mmlit.training.resume._SHARE = 1e9

    ended = train(*OPTIONS, "optimizer.lr=1e30", "callbacks=[last]", before=often)
    assert ended.code == 2
    assert "not finite" in ended.err or "train/loss is nan" in ended.err
    assert all(finite(path) for path in tmp_path.rglob("*.ckpt"))
    assert not list(tmp_path.rglob("result.json"))
