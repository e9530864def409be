"""Winoground's three scores by hand, and its files."""

import json
from pathlib import Path
from typing import Any

import pytest
from evaluation.scorers import Broken, Constant, Dual, Fusion, Random, Untouched, draw

from mmlit.evaluation.probe import Scorer
from mmlit.evaluation.winoground import Winoground

#: captions of pictures 1 and 2; text right, image right
EXAMPLES = [
    ("1=0.5 2=0.1", "1=0.2 2=0.4", True, True),
    ("1=0.5 2=0.6", "1=0.2 2=0.7", True, False),  # caption 0 prefers picture 1
    ("1=0.5 2=0.1", "1=0.6 2=0.7", False, True),  # picture 0 prefers caption 1
    ("1=0.1 2=0.5", "1=0.4 2=0.2", False, False),
    ("1=0.5 2=0.1", "1=0.5 2=0.7", False, True),  # a tie of the captions
    ("1=0.5 2=0.5", "1=0.2 2=0.7", True, False),  # a tie of the pictures
]


def write(root: Path, examples: list[tuple[str, str]], *, ending: str = "") -> Winoground:
    lines = []
    for number, captions in enumerate(examples):
        names = [f"ex_{number}_img_{side}" for side in (0, 1)]
        for side, name in enumerate(names):
            draw(root / "images" / f"{name}.png", side + 1)
        entry: dict[str, Any] = {"id": number, "tag": "Object"}
        entry |= {f"image_{side}": name + ending for side, name in enumerate(names)}
        lines.append(json.dumps(entry | {"caption_0": captions[0], "caption_1": captions[1]}))
    (root / "examples.jsonl").write_text("\n".join(lines) + "\n")
    return Winoground(annotations=str(root / "examples.jsonl"), images=str(root / "images"), batch_size=3)


@pytest.mark.parametrize("model", [Dual(), Fusion()], ids=["dual", "fusion"])
@pytest.mark.parametrize("ending", ["", ".png"])
def test_by_hand(tmp_path: Path, model: Scorer, ending: str) -> None:
    result = write(tmp_path, [example[:2] for example in EXAMPLES], ending=ending).evaluate(model)
    assert result.items["text_score"].tolist() == [example[2] for example in EXAMPLES]
    assert result.items["image_score"].tolist() == [example[3] for example in EXAMPLES]
    assert result.items["group_score"].tolist() == [True] + 5 * [False]
    assert result.metrics == {"text_score": 50, "image_score": 50, "group_score": pytest.approx(100 / 6)}
    assert result.counts == {"examples": 6, "pictures": 12}


def test_ties_chance_and_a_planted_model(tmp_path: Path) -> None:
    """Trap 1; by chance 25, 25 and 16.7 %."""
    probe = write(tmp_path, [(f"1=0.5 {n}", f"2=0.5 {n}") for n in range(300)])
    assert set(probe.evaluate(Constant()).metrics.values()) == {0}
    assert set(probe.evaluate(Dual()).metrics.values()) == {100}
    chance = probe.evaluate(Random()).metrics
    assert chance["text_score"] == pytest.approx(25, abs=10)
    assert chance["image_score"] == pytest.approx(25, abs=10)
    assert chance["group_score"] == pytest.approx(100 / 6, abs=9)


def test_the_protocol_knows_the_examples(tmp_path: Path) -> None:
    one = write(tmp_path, [("1=0.5", "2=0.5"), ("1=0.3", "2=0.5")]).evaluate(Dual()).protocol
    other = write(tmp_path, [("1=0.5", "2=0.5"), ("1=0.4", "2=0.5")]).evaluate(Dual()).protocol
    assert one["probe"] == other["probe"] == "winoground"
    assert one != other


def test_a_score_that_is_not_finite_is_refused_by_name(tmp_path: Path) -> None:
    """Trap 2."""
    with pytest.raises(
        ValueError, match=r"examples\.jsonl: line 2: the score of ex_1_img_1\.png with '2=-0\.5' is nan"
    ):
        write(tmp_path, [("1=0.5", "2=0.5"), ("1=0.3", "2=-0.5")]).evaluate(Broken())


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{", r"examples\.jsonl: line 2: broken JSON"),
        ("[]", r"examples\.jsonl: line 2 is list, not an object"),
        ('{"image_0": "ex_0_img_0", "image_1": "ex_0_img_1", "caption_0": "a"}', "line 2 has no caption_1, got None"),
        (
            '{"image_0": "ex_0_img_0", "image_1": "gone", "caption_0": "a", "caption_1": "b"}',
            r"line 2: picture .*gone\.png not found",
        ),
    ],
)
def test_what_is_wrong_is_refused_before_anything_is_encoded(tmp_path: Path, line: str, message: str) -> None:
    probe = write(tmp_path, [("1=0.5", "2=0.5")])
    with (tmp_path / "examples.jsonl").open("a") as file:
        file.write(line + "\n")
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        probe.evaluate(Untouched())


def test_missing_files(tmp_path: Path) -> None:
    options = {"annotations": str(tmp_path / "none.jsonl"), "images": str(tmp_path), "batch_size": 1}
    with pytest.raises(FileNotFoundError, match=r"evaluator\.annotations=.*none\.jsonl not found"):
        Winoground(**options).evaluate(Untouched())
    (tmp_path / "none.jsonl").write_text("\n")
    with pytest.raises(ValueError, match="no lines in it"):
        Winoground(**options).evaluate(Untouched())
    with pytest.raises(ValueError, match=r"evaluator\.batch_size must be >= 1, got 0"):
        Winoground(**options | {"batch_size": 0})
