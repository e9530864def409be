"""ARO's lists: boxes, groups and their means."""

import json
from pathlib import Path
from typing import Any

import pytest
from evaluation.scorers import Broken, Constant, Dual, Fusion, Random, Untouched, draw
from PIL import Image

from mmlit.evaluation.aro import Aro
from mmlit.evaluation.probe import Scorer


def entry(number: int, true: str, false: str, **more: Any) -> dict[str, Any]:
    return {"image_path": f"{number}.png", "true_caption": true, "false_caption": false, **more}


def box(x: int, y: int, w: int, h: int) -> dict[str, int]:
    return {"bbox_x": x, "bbox_y": y, "bbox_w": w, "bbox_h": h}


RELATIONS = [
    entry(1, "1=0.5", "1=0.4", relation_name="on"),
    entry(1, "1=0.1", "1=0.4", relation_name="on"),
    entry(2, "2=0.5", "2=0.4", relation_name="on"),
    entry(2, "2=0.5", "2=0.5 x", relation_name="near"),  # a tie
    entry(3, "3=0.5", "3=0.2", relation_name="to the left of"),
]


def write(root: Path, entries: Any, **options: Any) -> Aro:
    (root / "aro.json").write_text(json.dumps(entries))
    for number in (1, 2, 3):
        draw(root / "images" / f"{number}.png", number)
    known: dict[str, Any] = {"group_by": "relation_name", "groups": None, "min_items": 1, "batch_size": 2}
    return Aro(annotations=str(root / "aro.json"), images=str(root / "images"), **known | options)


@pytest.mark.parametrize("model", [Dual(), Fusion()], ids=["dual", "fusion"])
def test_by_hand(tmp_path: Path, model: Scorer) -> None:
    result = write(tmp_path, RELATIONS).evaluate(model)
    assert result.items["accuracy"].tolist() == [True, False, True, False, True]
    assert result.metrics == {"accuracy": 60, "macro": pytest.approx(100 * (2 / 3 + 0 + 1) / 3)}
    assert result.counts == {"items": 5, "pictures": 3, "groups": 3}


@pytest.mark.parametrize(
    ("options", "macro", "groups"),
    [
        ({"groups": ["on", "to the left of", "under"]}, 100 * (2 / 3 + 1) / 2, ["on", "to the left of"]),
        ({"min_items": 2}, 100 * 2 / 3, ["on"]),
    ],
)
def test_the_macro_mean_is_over_the_published_groups(
    tmp_path: Path, options: dict[str, Any], macro: float, groups: list[str]
) -> None:
    result = write(tmp_path, RELATIONS, **options).evaluate(Dual())
    assert result.metrics == {"accuracy": 60, "macro": pytest.approx(macro)}
    assert result.protocol["macro"] == {"relation_name": groups}
    assert result.protocol != write(tmp_path, RELATIONS).evaluate(Dual()).protocol


def test_pairs_of_attributes_and_no_groups(tmp_path: Path) -> None:
    entries = [
        entry(1, "1=0.5", "1=0.4", attributes=["white", "paved"]),
        entry(2, "2=0.1", "2=0.4", attributes=["white", "paved"]),
        entry(3, "3=0.5", "3=0.4", attributes=["paved", "white"]),
    ]
    result = write(tmp_path, entries, group_by="attributes").evaluate(Dual())
    assert result.metrics["macro"] == 75
    assert result.protocol["macro"] == {"attributes": ["paved_white", "white_paved"]}
    result = write(tmp_path, entries, group_by=None).evaluate(Dual())
    assert result.metrics == {"accuracy": pytest.approx(200 / 3)}
    assert result.protocol["macro"] == "not reported"


@pytest.mark.parametrize("model", [Dual, Fusion])
def test_only_the_box_is_shown(tmp_path: Path, model: type[Dual]) -> None:
    """The left half is picture 5, the right half picture 9; one box shows each, and one reaches beyond the right."""
    entries = [
        entry(4, "5=0.5", "9=0.5", **box(0, 0, 8, 8)),
        entry(4, "9=0.5", "5=0.5", **box(8, 2, 8, 4)),
        entry(4, "9=0.5", "5=0.5", **box(8, 0, 8, 8)),
        entry(4, "7=0.5", "5=0.5"),  # the whole has the mean of both
    ]
    halves = Image.new("RGB", (16, 8), (40, 40, 40))
    halves.paste((72, 72, 72), (8, 0, 16, 8))
    probe = write(tmp_path, entries, group_by=None)
    halves.save(tmp_path / "images" / "4.png")
    scorer = model()
    result = probe.evaluate(scorer)
    assert result.metrics["accuracy"] == 100
    assert scorer.seen == [5, 9, 9, 7]
    assert result.counts["pictures"] == 4
    moved = [*entries[:3], entries[3] | box(0, 0, 16, 8)]
    assert write(tmp_path, moved, group_by=None).evaluate(Dual()).protocol != result.protocol


def test_ties_chance_and_a_planted_model(tmp_path: Path) -> None:
    """Trap 1."""
    entries = [entry(n % 3 + 1, f"{n % 3 + 1}=0.5 {n}", f"{n}", relation_name=str(n % 7)) for n in range(400)]
    probe = write(tmp_path, entries)
    assert probe.evaluate(Constant()).metrics == {"accuracy": 0, "macro": 0}
    assert probe.evaluate(Dual()).metrics == {"accuracy": 100, "macro": 100}
    assert probe.evaluate(Random()).metrics["accuracy"] == pytest.approx(50, abs=10)


def test_a_score_that_is_not_finite_is_refused_by_name(tmp_path: Path) -> None:
    """Trap 2."""
    with pytest.raises(ValueError, match=r"aro\.json: item 1: the score of 2\.png with '2=-0\.5' is nan"):
        write(tmp_path, [RELATIONS[0], entry(2, "2=-0.5", "2=0.1", relation_name="on")]).evaluate(Broken())


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        ({}, r"aro\.json: no list with items in it"),
        ([RELATIONS[0], "x"], r"aro\.json: item 1 is str, not an object"),
        ([entry(1, "a", "")], "item 0 has no false_caption, got ''"),
        ([entry(1, "a", "b")], "item 0 has no relation_name, got None"),
        ([entry(1, "a", "b", relation_name=["on", 2])], r"item 0 has no relation_name, got \['on', 2\]"),
        ([entry(9, "a", "b", relation_name="on")], r"item 0: picture .*9\.png not found"),
        ([entry(1, "a", "b", bbox_x=0, bbox_y=0, bbox_w=4)], r"item 0 has an incomplete box: .*'bbox_h': None"),
        ([entry(1, "a", "b", **box(0, 0, 0, 4))], "item 0 has a box that shows nothing of its picture of 8 x 8 px"),
        ([entry(1, "a", "b", **box(8, 0, 4, 4))], "item 0 has a box that shows nothing"),
    ],
)
def test_what_is_wrong_is_refused_before_anything_is_encoded(tmp_path: Path, entries: Any, message: str) -> None:
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        write(tmp_path, entries).evaluate(Untouched())


def test_no_group_left(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"no relation_name with at least 9 items is left"):
        write(tmp_path, RELATIONS, min_items=9).evaluate(Untouched())


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"batch_size": 0}, "evaluator.batch_size must be >= 1, got 0"),
        ({"min_items": 0}, "evaluator.min_items must be >= 1, got 0"),
        ({"groups": ["on"], "group_by": None}, r"evaluator\.groups=\['on'\] needs names, and evaluator\.group_by"),
    ],
)
def test_wrong_options(tmp_path: Path, wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        write(tmp_path, RELATIONS, **wrong)
