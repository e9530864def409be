"""`auxiliary=[...]`: trained beside the alignment, gone from what is evaluated, told where it cannot be."""

import csv
import json
from pathlib import Path

import torch

import mmlit
from mmlit.results.compare import compare

BOTH = "auxiliary=[tags,self_supervised]"


def test_a_run_with_both_leaves_a_model_without_them(train, tmp_path, scenes):
    assert train("seed=1").code == 0
    ended = train(BOTH, "seed=1", "trainer.log_every_n_steps=1")
    assert ended.code == 0, ended.err
    assert "auxiliary tags" in ended.out
    plain, found = sorted(
        (json.loads(path.read_text()) for path in tmp_path.glob("outputs/*/result.json")),
        key=lambda record: "auxiliary" in record["choices"],
    )
    assert found["choices"]["auxiliary"] == "[self_supervised,tags]"
    assert "auxiliary" not in plain["choices"]
    assert found["parameters"] == plain["parameters"]
    assert found["metrics"] != plain["metrics"]
    with next(path for path in tmp_path.glob("outputs/*/metrics.csv") if "tags" in path.read_text()).open() as file:
        rows = [row for row in csv.DictReader(file) if row["train/loss"]]
    for name in ("train/tags_cross_entropy", "train/self_supervised_info_nce"):
        assert float(rows[-1][name]) < float(rows[0][name])

    compared = compare([tmp_path / "outputs"], baseline="contrastive")
    assert [row.label for row in compared.rows] == ["contrastive", "auxiliary=[self_supervised,tags]"]

    (path,) = (path for path in tmp_path.glob("outputs/*/checkpoints/best.ckpt") if "tags" in _config(path))
    assert mmlit.load(path).encode_texts(["a red star"]).pooled.shape == (1, 32)
    again = train("fit=false", f"checkpoint={path}", f"paths.outputs={tmp_path}/x", f"data.root={scenes}", small=False)
    assert again.code == 0, again.err
    (evaluated,) = (json.loads(path.read_text()) for path in tmp_path.glob("x/*/result.json"))
    assert evaluated["metrics"] == found["metrics"]
    started = train(f"checkpoint={path}", f"paths.outputs={tmp_path}/y")
    assert started.code == 0, started.err


def _config(checkpoint: Path) -> str:
    return str(torch.load(checkpoint, weights_only=True)["mmlit"]["origin"]["config"])


def test_what_cannot_be_is_told_before_data_are_read(train, tmp_path):
    ended = train(BOTH, "image_encoder.freeze=true")
    assert ended.code == 2
    assert "auxiliary=[self_supervised] trains the image encoder, which is frozen" in ended.err
    ended = train("auxiliary=[tag]")
    assert ended.code == 2
    assert (
        ended.err == "train.py: auxiliary=[tag]: no such choice; did you mean tags?; there are: self_supervised, tags\n"
    )
    assert not (tmp_path / "outputs").exists()
