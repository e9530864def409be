"""SugarCrepe's files, its clean subset, and the same layout of rendered scenes."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from evaluation.scorers import Broken, Constant, Dual, Fusion, Random, Untouched, draw

from mmlit.data.scenes.write import write_scenes
from mmlit.evaluation.probe import ProbeResult, Scorer
from mmlit.evaluation.sugarcrepe import SugarCrepe

ROOT = Path(__file__).parents[2]


def item(picture: int, caption: str, negative: str) -> dict[str, str]:
    return {"filename": f"{picture:012d}.jpg", "caption": caption, "negative_caption": negative}


#: right, right, wrong, a tie | right, wrong
ADD = [item(1, "1=0.5", "1=0.2 x"), item(2, "2=0.5", "1=0.9"), item(3, "3=0.1", "3=0.3"), item(4, "4=0.3 a", "4=0.3 b")]
SWAP = [item(1, "1=0.5 x", "1=0.4"), item(3, "3=-0.2", "3=0.1 2=0.5")]
KARPATHY = {
    "images": [{"cocoid": n, "split": split} for n, split in enumerate(("val", "train", "test", "test", "restval"))]
}


def write(root: Path, kinds: dict[str, list[dict[str, str]]]) -> None:
    for kind, items in kinds.items():
        (root / f"{kind}.json").write_text(json.dumps({str(number): each for number, each in enumerate(items)}))
        for each in items:
            draw(root / "val2017" / each["filename"], int(Path(each["filename"]).stem) % 32)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    write(tmp_path, {"add_att": ADD, "swap_obj": SWAP})
    (tmp_path / "dataset_coco.json").write_text(json.dumps(KARPATHY))
    return tmp_path


def probe(root: Path, **changes: Any) -> SugarCrepe:
    options: dict[str, Any] = {
        "annotations": str(root),
        "images": str(root / "val2017"),
        "kinds": ["add_att", "swap_obj"],
        "karpathy": None,
        "batch_size": 3,
    }
    return SugarCrepe(**options | changes)


@pytest.mark.parametrize("model", [Dual(), Fusion()], ids=["dual", "fusion"])
def test_by_hand(root: Path, model: Scorer) -> None:
    result = probe(root).evaluate(model)
    assert result.items["add_att"].tolist() == [True, True, False, False]
    assert result.items["swap_obj"].tolist() == [True, False]
    assert result.metrics == {"add_att": 50, "swap_obj": 50, "macro": 50, "micro": 50}
    assert result.counts == {"add_att": 4, "swap_obj": 2, "pictures": 4}


def test_macro_weighs_kinds_and_micro_items(root: Path) -> None:
    write(root, {"add_att": ADD[:2], "swap_obj": [*SWAP, SWAP[1], SWAP[1]]})
    metrics = probe(root).evaluate(Dual()).metrics
    assert metrics == {"add_att": 100, "swap_obj": 25, "macro": 62.5, "micro": pytest.approx(100 * 3 / 6)}


@pytest.mark.parametrize("model", [Dual(), Fusion()], ids=["dual", "fusion"])
def test_the_clean_subset_stands_beside_the_whole(root: Path, model: Scorer) -> None:
    """Trap 12: pictures 1 and 4 are training pictures of Karpathy's splits, 2 and 3 are test pictures."""
    result = probe(root, karpathy=str(root / "dataset_coco.json")).evaluate(model)
    assert result.metrics == {
        **{"add_att": 50, "swap_obj": 50, "macro": 50, "micro": 50},
        **{"clean_add_att": 50, "clean_swap_obj": 0, "clean_macro": 25, "clean_micro": pytest.approx(100 / 3)},
    }
    assert result.items["clean_add_att"].tolist() == [True, False]
    assert result.counts["clean_add_att"] == 2
    assert result.counts["clean_swap_obj"] == 1
    assert result.protocol["clean"].startswith("pictures of Karpathy's test split")


def test_without_his_splits_the_protocol_says_so(root: Path) -> None:
    """Trap 12."""
    result = probe(root).evaluate(Dual())
    assert result.protocol["clean"] == "not reported"
    assert not any(name.startswith("clean") for name in result.metrics)


def test_protocols_differ_where_results_cannot_be_compared(
    root: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    def protocol(folder: Path, **changes: Any) -> dict[str, Any]:
        return probe(folder, **changes).evaluate(Dual()).protocol

    one = protocol(root)
    assert one == protocol(root, batch_size=64)
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    write(elsewhere, {"add_att": ADD, "swap_obj": SWAP})
    assert one == protocol(elsewhere)
    write(elsewhere, {"swap_obj": [SWAP[0], item(3, "3=-0.2", "3=0.1 2=0.5 y")]})
    clean = protocol(root, karpathy=str(root / "dataset_coco.json"))
    (root / "dataset_coco.json").write_text(json.dumps(KARPATHY).replace("train", "test"))
    others = [protocol(elsewhere), protocol(root, kinds=["add_att"]), clean]
    others.append(protocol(root, karpathy=str(root / "dataset_coco.json")))
    texts = {json.dumps(each, sort_keys=True) for each in (one, *others)}
    assert len(texts) == 5
    assert not any(str(root) in text for text in texts)


def test_ties_chance_and_a_planted_model(tmp_path: Path) -> None:
    """Trap 1: constant embeddings would win every comparison that a tie does not lose."""
    items = [item(n % 31, f"{n % 31}=0.5 {n}", f"{n % 31}=0.4 {n}") for n in range(400)]
    write(tmp_path, {"add_att": items})
    metrics = [probe(tmp_path, kinds=["add_att"]).evaluate(model).metrics for model in (Constant(), Dual(), Random())]
    assert metrics[0] == {"add_att": 0, "macro": 0, "micro": 0}
    assert metrics[1] == {"add_att": 100, "macro": 100, "micro": 100}
    assert 40 < metrics[2]["micro"] < 60  # ± 4 standard errors


@pytest.mark.parametrize("batch_size", [1, 2, 64])
def test_every_picture_is_encoded_once(root: Path, batch_size: int) -> None:
    model = Fusion()
    result = probe(root, batch_size=batch_size).evaluate(model)
    assert sorted(model.seen) == [1, 2, 3, 4]
    assert result.metrics["micro"] == 50


def test_a_score_that_is_not_finite_is_refused_by_name(root: Path) -> None:
    """Trap 2."""
    write(root, {"swap_obj": [SWAP[0], item(2, "2=0.1", "2=-0.5")]})
    with pytest.raises(ValueError, match=r"swap_obj\.json: item '1': the score of 0+2\.jpg with '2=-0\.5' is nan"):
        probe(root).evaluate(Broken())


def break_json(root: Path) -> None:
    (root / "swap_obj.json").write_text("{")


def break_item(root: Path) -> None:
    (root / "swap_obj.json").write_text('{"7": {"filename": "000000000001.jpg", "caption": "a"}}')


def empty_file(root: Path) -> None:
    (root / "swap_obj.json").write_text("[]")


def no_file(root: Path) -> None:
    (root / "swap_obj.json").unlink()


def no_picture(root: Path) -> None:
    (root / "val2017" / "000000000003.jpg").unlink()


def no_real_picture(root: Path) -> None:
    (root / "val2017" / "000000000003.jpg").write_bytes(b"no picture")


def no_folder(root: Path) -> None:
    (root / "val2017").rename(root / "pictures")


@pytest.mark.parametrize(
    ("harm", "message"),
    [
        (break_json, r"swap_obj\.json: broken JSON"),
        (break_item, r"swap_obj\.json: item '7' has no negative_caption, got None"),
        (empty_file, r"swap_obj\.json: no object with items in it"),
        (no_file, r"evaluator\.annotations=.*swap_obj\.json not found"),
        (no_picture, r"add_att\.json: item '2': picture .*000000000003\.jpg not found"),
        (no_real_picture, r"add_att\.json: item '2': .*000000000003\.jpg is not a readable picture"),
        (no_folder, r"evaluator\.images=.*val2017 is no folder"),
    ],
)
def test_what_is_wrong_is_refused_before_anything_is_encoded(root: Path, harm: Any, message: str) -> None:
    harm(root)
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        probe(root).evaluate(Untouched())


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, r"evaluator\.karpathy=.* not found"),
        ([], r"no list 'images' with cocoid and split; is this his dataset_coco\.json\?"),
        ({"images": [{"imgid": 1, "split": "test"}]}, "no list 'images' with cocoid and split"),
        ({"images": [{"cocoid": 2, "split": "test"}]}, "no picture of swap_obj is among the 1 of its test split"),
    ],
)
def test_other_split_files_are_refused(root: Path, content: Any, message: str) -> None:
    (root / "dataset_coco.json").unlink()
    if content is not None:
        (root / "dataset_coco.json").write_text(json.dumps(content))
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        probe(root, karpathy=str(root / "dataset_coco.json")).evaluate(Untouched())


def test_pictures_without_an_id_have_no_clean_subset(root: Path) -> None:
    draw(root / "val2017" / "cat.jpg", 1)
    (root / "swap_obj.json").write_text(json.dumps({"0": SWAP[0] | {"filename": "cat.jpg"}}))
    with pytest.raises(ValueError, match=r"item '0': cat\.jpg has no COCO id"):
        probe(root, karpathy=str(root / "dataset_coco.json")).evaluate(Untouched())


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"kinds": []}, r"evaluator\.kinds must be different names, at least one, got \[\]"),
        ({"kinds": ["a", "a"]}, "evaluator.kinds must be different"),
        ({"batch_size": 0}, "evaluator.batch_size must be >= 1, got 0"),
    ],
)
def test_wrong_options(root: Path, wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        probe(root, **wrong)


def scenes(root: Path, model: Scorer) -> ProbeResult:
    options = yaml.safe_load((ROOT / "conf" / "evaluator" / "scenes_probe.yaml").read_text())
    del options["_target_"]
    for name in ("annotations", "images"):
        options[name] = options[name].replace("${paths.data}", str(root))
    return SugarCrepe(**options).evaluate(model)


def test_rendered_scenes_show_accuracy_by_kind_of_mistake(tmp_path: Path) -> None:
    write_scenes(root=tmp_path / "scenes", train=1, val=1, test=60, size=32, seed=0, workers=1)
    result = scenes(tmp_path, Random())
    mistakes = {f"replace_{what}" for what in ("colour", "obj", "size", "rel", "count")}
    assert set(result.metrics) == mistakes | {"swap_att", "swap_obj", "macro", "micro"}
    assert all(result.counts[kind] > 20 for kind in mistakes)
    assert 30 < result.metrics["micro"] < 70
    assert scenes(tmp_path, Constant()).metrics["micro"] == 0
    assert np.concatenate(list(result.items.values())).dtype == bool
