"""`towers=[...]`: adapters and patch dropout in whole runs, evaluated, loaded and resumed with the same numbers."""

import json
import signal
from pathlib import Path

import numpy as np
import pytest
import torch
from layers.published import publish
from runs.test_resume import die_behind, ranks_of, record_of
from torchvision.models import mobilenet_v2

import mmlit

BOTH = ("towers=[image_lora,text_lora]", "towers.image_lora.rank=2", "towers.text_lora.layers=[linear?]")


@pytest.mark.slow
def test_a_run_with_adapters_is_evaluated_and_loaded_as_it_ended(train, tmp_path, scenes):
    ended = train(*BOTH, "trainer.max_epochs=1")
    assert ended.code == 0, ended.err
    assert "image_encoder has random weights, which stay as they are beside adapters" in ended.out
    assert "no store" in ended.out
    found = record_of(tmp_path / "outputs")
    assert found["choices"]["towers"] == "[image_lora,text_lora]"
    (path,) = tmp_path.glob("outputs/*/checkpoints/best.ckpt")
    stored = torch.load(path, weights_only=True)["state_dict"]
    adapters = {key: value for key, value in stored.items() if ".lora_" in key}
    heads = sum(value.numel() for key, value in stored.items() if key.startswith("alignment."))
    assert found["parameters"]["trainable"] == sum(value.numel() for value in adapters.values()) + heads
    assert all(value.any() for value in adapters.values()), "B began with zeros"

    again = train("fit=false", f"checkpoint={path}", f"paths.outputs={tmp_path}/x", f"data.root={scenes}", small=False)
    assert again.code == 0, again.err
    assert record_of(tmp_path / "x")["metrics"] == found["metrics"]
    model = mmlit.load(path)
    assert all(torch.equal(value, stored[key]) for key, value in model.state_dict().items())
    texts, bare = ["a red star", "a blue square"], mmlit.load(path)
    for key, value in bare.text_encoder.named_parameters():
        if ".lora_B" in key:
            torch.nn.init.zeros_(value)
    assert not torch.equal(model.encode_texts(texts).pooled, bare.encode_texts(texts).pooled)


@pytest.mark.slow
def test_the_order_in_which_adapters_are_named_changes_nothing(train, tmp_path):
    """They are one configuration, with one folder, and draw their weights in turn."""
    found = []
    for place, names in enumerate(("image_lora,text_lora", "text_lora,image_lora")):
        folder = tmp_path / str(place)
        assert train(f"towers=[{names}]", "trainer.max_epochs=1", f"paths.outputs={folder}").code == 0
        (path,) = folder.glob("*/result.json")
        found.append((path.parent.name, json.loads(path.read_text())["metrics"]))
    assert found[0] == found[1]


def test_what_cannot_be_is_told_before_data_are_read(train, tmp_path):
    ended = train(*BOTH, "image_encoder.freeze=true")
    assert ended.code == 2
    assert "towers.image_lora trains adapters in image_encoder, but image_encoder.freeze=true" in ended.err
    ended = train("towers=[patch_dropout]")
    assert ended.code == 2
    assert "towers.patch_dropout goes with a transformer over patches (ViT)" in ended.err
    assert not (tmp_path / "outputs").exists()


@pytest.fixture
def options(tmp_path, scenes) -> list[str]:
    """A small ViT with everything, trained in chunks."""
    folder: Path = publish(tmp_path / "vit", "vit")
    return [
        "towers=[image_lora,text_lora,patch_dropout]", "towers.image_lora.dropout=0.1", "image_encoder=vit",
        f"image_encoder.name={folder}", "image_encoder.freeze=false", "text_encoder.dim=32",
        "text_encoder.num_layers=1",
        "step=gradient_cache", "step.chunk_size=8", "alignment.dim=32", f"data.root={scenes}", "data.batch_size=16",
        "trainer.max_epochs=2", "evaluator.num_candidates=8", "resume_minutes=0.000001", "hydra.mode=RUN",
    ]  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("step", [3, 8])
def test_a_killed_run_draws_the_patches_it_would_have_drawn(train, tmp_path, options, step):
    """Trap 28: dropout of adapters and of patches goes on with the numbers that it would have had."""
    assert train(*options, f"paths.outputs={tmp_path}/undisturbed", small=False).code == 0
    ended = train(*options, small=False, before=lambda: die_behind(step))
    assert ended.code == -signal.SIGKILL
    ended = train(*options, small=False)
    assert ended.code == 0, ended.err
    assert f"after {step} optimizer steps" in ended.out
    expected, found = record_of(tmp_path / "undisturbed"), record_of(tmp_path / "outputs")
    assert found["metrics"] == expected["metrics"]
    assert json.dumps(found["validation"]) == json.dumps(expected["validation"])
    for name, array in ranks_of(tmp_path / "undisturbed").items():
        assert np.array_equal(ranks_of(tmp_path / "outputs")[name], array), name


@pytest.mark.slow
def test_a_tower_with_frozen_batch_norms_thaws_in_chunks_and_is_read_as_it_ended(train, tmp_path, scenes):
    """Killed in its second epoch, too: names in its checkpoint are those of any run, statistics those it began with."""
    options = [
        "towers=[frozen_batch_norm]", "image_encoder=mobilenet_v3_large", "image_encoder.weights=null",
        "image_encoder.size=32", "image_encoder.resize_to=null", "image_encoder.freeze=false", "text_encoder.dim=32",
        "text_encoder.num_layers=1", "step=gradient_cache", "step.chunk_size=8", "callbacks=[last,thawing,ema]",
        "callbacks.thawing.image_encoder=[{epoch: 1, last: 2}, {epoch: 2, last: 4}]", "groups=by_part",
        "alignment.dim=32", f"data.root={scenes}", "data.batch_size=16", "trainer.max_epochs=2",
        "resume_minutes=0.000001", "hydra.mode=RUN",
    ]  # fmt: skip
    assert train(*options, f"paths.outputs={tmp_path}/undisturbed", small=False).code == 0
    ended = train(*options, small=False, before=lambda: die_behind(8))
    assert ended.code == -signal.SIGKILL
    ended = train(*options, small=False)
    assert ended.code == 0, ended.err
    assert "after 8 optimizer steps" in ended.out
    found = record_of(tmp_path / "outputs")
    assert found["metrics"] == record_of(tmp_path / "undisturbed")["metrics"]
    (path,) = tmp_path.glob("outputs/*/checkpoints/last.ckpt")
    stored = torch.load(path, weights_only=True)["state_dict"]
    statistics = {key: value for key, value in stored.items() if "running_" in key}
    assert len(statistics) == 2 * 46
    assert not any(value.any() for key, value in statistics.items() if key.endswith("running_mean"))
    again = train("fit=false", f"checkpoint={path}", f"paths.outputs={tmp_path}/x", f"data.root={scenes}", small=False)
    assert again.code == 0, again.err
    assert record_of(tmp_path / "x")["metrics"] == found["metrics"]
    assert all(torch.equal(value, stored[key]) for key, value in mmlit.load(path).state_dict().items())


def test_weights_with_folded_batch_norms_are_not_trained_without_being_told(train, tmp_path):
    """Mean 0 and variance 1, as a freshly made network has them: converted ones do, too."""
    weights = tmp_path / "folded.pt"
    torch.save(mobilenet_v2().state_dict(), weights)
    options = ["image_encoder=mobilenet_v2", f"image_encoder.weights={weights}", "image_encoder.size=32",
               "image_encoder.resize_to=null", "image_encoder.freeze=false"]  # fmt: skip
    ended = train(*options, small=False)
    assert ended.code == 2
    assert "batch norms are folded into the convolutions" in ended.err
    assert "take towers=[frozen_batch_norm]" in ended.err
    assert not (tmp_path / "outputs").exists()
