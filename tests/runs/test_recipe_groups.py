"""The parameter groups of every recipe, with towers built as its own are, but small."""

from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from layers.published import publish

from mmlit.configuration.stored import CONF
from mmlit.run.job import job_of
from mmlit.run.parts import build

RECIPES = sorted(
    path.stem for path in (CONF / "experiment").glob("*.yaml") if path.stem.startswith(("coco_", "flickr8k"))
)

#: what no matrix multiplies, in the names of torchvision's and Hugging Face's towers
TOKENS = ("cls_token", "class_token", "class_embedding", "mask_token", "pos_embed", "position_embedding")
#: the others take part in the slow tests
FAST = ("coco_clip_concatenation", "flickr8k_finetuned")


@pytest.fixture(scope="module")
def published(tmp_path_factory) -> dict[str, Path]:
    return {
        family: publish(tmp_path_factory.mktemp(family), family)
        for family in ("vit", "dinov2", "clip", "bert", "minilm")
    }


def towers(recipe: str, published: dict[str, Path], *overrides: str) -> list[str]:
    """The recipe's own classes of towers, small and from disk."""
    with initialize_config_dir(str(CONF), version_base="1.3"):
        choices = compose("config", [f"experiment={recipe}"], return_hydra_config=True).hydra.runtime.choices
    image, text = choices["image_encoder"], choices["text_encoder"]
    options = [f"experiment={recipe}", f"text_encoder.name={published[text]}", "text_encoder.max_length=16"]
    if image in published:
        return [*options, f"image_encoder.name={published[image]}", *overrides]
    return [*options, "image_encoder.weights=null", "image_encoder.size=32", "image_encoder.resize_to=null",
            "image_encoder.grid=null", *overrides]  # fmt: skip


@pytest.mark.parametrize("groups", [[], ["groups=by_part"]], ids=["plain", "by_part"])
@pytest.mark.parametrize(
    "recipe", [pytest.param(name, marks=[] if name in FAST else pytest.mark.slow) for name in RECIPES]
)
def test_every_trainable_parameter_is_in_exactly_one_group(recipe, groups, published, tmp_path):
    """Norms, biases, temperatures decay in none, thawing or not; with rates by part nor do class tokens, positions."""
    GlobalHydra.instance().clear()
    options = towers(recipe, published, *groups, f"paths.outputs={tmp_path}", f"data.root={tmp_path}",
                     f"paths.cache={tmp_path}", "trainer.accelerator=cpu", "trainer.devices=1",
                     "trainer.precision=32-true")  # fmt: skip
    with initialize_config_dir(str(CONF), version_base="1.3"):
        parts = build(job_of(compose("config", options, return_hydra_config=True)))
    module = parts.module
    module.trainer = parts.trainer
    parts.trainer.fit_loop.epoch_loop.max_steps = 10
    optimizer = module.configure_optimizers()["optimizer"]

    trainable = {id(part): name for name, part in module.named_parameters() if part.requires_grad}
    listed = [id(part) for group in optimizer.param_groups for part in group["params"]]
    assert len(listed) == len(set(listed))
    assert {trainable.get(key) for key in listed} == set(trainable.values())

    bare = {id(part) for name, part in module.named_parameters() if name.endswith((".bias", "log_scale"))}
    if groups:
        bare |= {id(part) for name, part in module.named_parameters() if any(word in name for word in TOKENS)}
    for kind in module.modules():
        if "norm" in type(kind).__name__.lower():
            bare |= {id(part) for part in kind.parameters(recurse=False)}
    assert bare & set(listed)
    for group in optimizer.param_groups:
        for part in group["params"]:
            assert group["weight_decay"] == 0 or id(part) not in bare, trainable[id(part)]
