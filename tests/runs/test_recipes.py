"""Every recipe of the literature on a miniature of COCO in Karpathy's layout: small towers, the rest as it stands."""

import json
from pathlib import Path

import pytest
from data.real_files import picture
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.utils import instantiate
from runs.conftest import forked

from mmlit.contracts import ImageSpec, TextSpec

ROOT = Path(__file__).resolve().parents[2]
RECIPES = sorted(path.stem for path in (ROOT / "conf" / "experiment").glob("coco_*.yaml"))
#: the others take part in the slow tests
FAST = ("coco_vit_contrastive",)
#: as many epochs as its schedule of thawing has
FURTHER = {"coco_clip_concatenation": ("trainer.max_steps=5", "trainer.limit_train_batches=1")}


@pytest.fixture(scope="module")
def coco(tmp_path_factory) -> Path:
    """Twenty-four training images in both folders, eight for selection, eight to report on; five captions each."""
    root = tmp_path_factory.mktemp("coco")
    images = []
    for number, split in enumerate(["train"] * 16 + ["restval"] * 8 + ["val"] * 8 + ["test"] * 8):
        folder = "train2014" if split == "train" else "val2014"
        name = f"COCO_{folder}_{number:012d}.jpg"
        picture(root / folder / name, number)
        words = [("red", "blue", "small")[number % 3], ("dog", "cat", "horse", "bird")[number % 4]]
        sentences = [
            {"raw": f"a {' '.join(words)} number {place}", "sentid": 5 * number + place, "imgid": number}
            for place in range(5)
        ]
        images.append(
            {"filepath": folder, "filename": name, "split": split, "cocoid": number, "imgid": number,
             "sentids": [entry["sentid"] for entry in sentences], "sentences": sentences}
        )  # fmt: skip
    (root / "dataset_coco.json").write_text(json.dumps({"images": images, "dataset": "coco"}))
    return root


@pytest.mark.parametrize(
    "recipe", [pytest.param(name, marks=[] if name in FAST else pytest.mark.slow) for name in RECIPES]
)
def test_every_recipe_runs(recipe, coco, tmp_path):
    ended = forked(
        [f"experiment={recipe}", "image_encoder=tiny", "text_encoder=tiny", "trainer=smoke", f"data.root={coco}",
         f"paths.outputs={tmp_path}/outputs", f"paths.cache={tmp_path}/cache", "data.num_workers=0",
         "data.batch_size=8", *FURTHER.get(recipe, ())]
    )  # fmt: skip
    assert ended.code == 0, ended.err
    (path,) = tmp_path.glob("outputs/*/result.json")
    found = json.loads(path.read_text())
    assert found["choices"]["experiment"] == recipe
    assert found["choices"]["data"] == "coco_karpathy"
    assert found["gallery"]["images"] == 8
    assert found["budget"]["steps"] >= 2
    if recipe in FURTHER:
        assert "epoch 5: image_encoder trains" in ended.out


def test_recipes_say_that_they_were_not_run_at_full_size():
    for recipe in RECIPES:
        lines = (ROOT / "conf" / "experiment" / f"{recipe}.yaml").read_text().splitlines()
        head = " ".join(line[2:] for line in lines if line.startswith("# "))
        assert "Not run at full size here yet" in head
        assert f"python train.py experiment={recipe}" in head


@pytest.fixture
def composed():
    """Of a primary config and overrides."""
    GlobalHydra.instance().clear()

    def compose_(*overrides: str, folder: str = "conf", name: str = "config"):
        with initialize_config_dir(str(ROOT / folder), version_base="1.3"):
            return compose(name, [f"hydra.searchpath=[file://{ROOT / 'conf'}]", *overrides])

    return compose_


def test_towers_of_unequal_width_are_concatenated_as_wide_as_they_are(composed):
    """Not 2 · 768 = 1,536, which a published recipe has."""
    config = composed("experiment=coco_clip_concatenation")
    image = ImageSpec(dim=768, size=224, resize="crop", interpolation="bicubic")
    text = TextSpec(dim=512, vocabulary_size=49408, mask_id=None, special_ids=(49406, 49407), max_length=77)
    alignment = instantiate(config.alignment, image=image, text=text)
    assert alignment.hidden.weight.shape == (512, 1280)


def test_the_four_strategies_have_one_budget_and_one_dropout(composed):
    """What is left of +3.2, +4.1 and +5.8 must not come from dropout that only some of the four have."""
    found = [
        composed(f"alignment={name}", folder="sweeps", name="coco_alignments")
        for name in ("joint", "cross_attention", "contrastive", "projection")
    ]
    assert [config.alignment.dropout for config in found] == [0.1] * 4
    for part in ("data", "image_encoder", "text_encoder", "optimizer", "schedule", "trainer", "batching"):
        assert all(config.get(part) == found[0].get(part) for config in found), part
