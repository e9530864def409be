"""Zero-shot classification: prompts averaged by hand, class folders, data sets by name, and every alignment."""

import json
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from evaluation.scorers import Angles, Broken, Constant, Dual, Fusion, Logits, PairAngles, Random, Untouched, draw
from hydra.utils import instantiate
from omegaconf import OmegaConf

from mmlit.evaluation.class_accuracy import class_accuracy
from mmlit.evaluation.probe import Scorer
from mmlit.evaluation.sugarcrepe import SugarCrepe
from mmlit.evaluation.zero_shot import ZeroShot
from mmlit.model import Model

ROOT = Path(__file__).parents[2]
ALIGNMENTS = sorted((ROOT / "conf" / "alignment").glob("*.yaml"))


def probe(root: Path, **changes: Any) -> ZeroShot:
    options: dict[str, Any] = {
        "root": str(root),
        "dataset": None,
        "split": "test",
        "class_names": None,
        "templates": ["{}"],
        "batch_size": 3,
    }
    return ZeroShot(**options | changes)


def write(root: Path, classes: dict[str, list[int]]) -> Path:
    for name, numbers in classes.items():
        for place, number in enumerate(numbers):
            draw(root / "test" / name / f"{place}.png", number)
    return root


def test_scores_to_accuracies_by_hand() -> None:
    scores = torch.tensor(
        [
            [6.0, 5, 4, 3, 2, 1],  # first
            [6.0, 5, 4, 3, 2, 1],  # fifth
            [6.0, 5, 4, 3, 2, 1],  # sixth
            [5.0, 5, 4, 3, 2, 1],  # a tie for the first place is lost
            [5.0, 5, 5, 5, 5, 1],  # and one of five is the fifth
            [5.0, 5, 5, 5, 5, 5],  # of six the sixth
        ]
    )
    metrics, items = class_accuracy(scores, torch.tensor([0, 4, 5, 0, 0, 0]))
    assert items["top1"].tolist() == [True, False, False, False, False, False]
    assert items["top5"].tolist() == [True, True, False, True, True, False]
    assert metrics["top1"] == pytest.approx(100 / 6)
    assert metrics["top5"] == pytest.approx(400 / 6)
    assert metrics["mean_per_class"] == pytest.approx((25 + 0 + 0) / 3)  # classes 1, 2 and 3 have no items
    assert "top5" not in class_accuracy(scores[:, :5], torch.zeros(6).long())[0]


@pytest.mark.parametrize(
    ("model", "right", "scored"),
    [
        # 0 and 80 degrees have their mean at 40, 10 from the picture; the other class is 20 from it
        (Angles(), True, "full, prompts averaged in the space"),
        (Angles(length=5), True, "full, prompts averaged in the space"),
        # as scores: (cos 30 + cos 50) / 2 = 0.754 against cos 20 = 0.940
        (PairAngles(), False, "full, scores averaged over prompts"),
        (Logits(), False, "full, scores averaged over prompts"),
    ],
    ids=["dual", "dual of long vectors", "fusion", "fusion without tokens"],
)
def test_prompts_are_averaged_as_vectors_or_as_scores(tmp_path: Path, model: Scorer, right: bool, scored: str) -> None:
    write(tmp_path, {"a": [6], "b": [6]})  # 30 degrees
    texts = {"one a": "0", "two a": "80", "one b": "50", "two b": "50"}
    result = probe(tmp_path, templates=["one {}", "two {}"]).evaluate(Renamed(model, texts))
    assert result.items["top1"].tolist() == [right, not right]
    assert result.scored == scored
    assert result.protocol["templates"] == ["one {}", "two {}"]


class Renamed:
    """A model that is asked other texts."""

    def __init__(self, model: Scorer, texts: dict[str, str]) -> None:
        self.model, self.texts = model, texts
        self.encode_images, self.score = model.encode_images, model.score

    def encode_texts(self, texts: list[str], *, batch_size: int = 256) -> Any:
        return self.model.encode_texts([self.texts[text] for text in texts], batch_size=batch_size)


@pytest.mark.parametrize("model", [Dual(), Fusion()], ids=["dual", "fusion"])
def test_class_folders_by_hand(tmp_path: Path, model: Scorer) -> None:
    """Names with _ for a blank; three classes of 3, 1 and 2 pictures."""
    write(tmp_path, {"1=0.5_2=0.1": [1, 2, 3], "2=0.6": [2], "3=0.5": [3, 1]})
    result = probe(tmp_path, templates=["see {} here", "{}"]).evaluate(model)
    assert result.items["top1"].tolist() == [True, False, False, True, True, False]
    assert result.metrics == {"top1": 50, "mean_per_class": pytest.approx(100 * (1 / 3 + 1 + 1 / 2) / 3)}
    assert result.counts == {"pictures": 6, "classes": 3}


def test_ties_chance_and_a_planted_model(tmp_path: Path) -> None:
    """Trap 1."""
    write(tmp_path, {f"{number}=0.5": [number] * 10 for number in range(20)})
    assert probe(tmp_path).evaluate(Constant()).metrics == {"top1": 0, "top5": 0, "mean_per_class": 0}
    assert probe(tmp_path).evaluate(Dual()).metrics == {"top1": 100, "top5": 100, "mean_per_class": 100}
    chance = probe(tmp_path).evaluate(Random()).metrics  # 20 different pictures: 1 and 5 of them by chance
    assert chance["top1"] <= 20
    assert 5 <= chance["top5"] <= 50


def test_protocols_differ_where_results_cannot_be_compared(tmp_path: Path) -> None:
    write(tmp_path, {"1=0.5": [1], "2=0.5": [2]})
    (tmp_path / "names.json").write_text(json.dumps({"1=0.5": "1=0.4", "2=0.5": "2=0.5"}))
    one = probe(tmp_path).evaluate(Dual()).protocol
    assert probe(tmp_path, batch_size=1).evaluate(Dual()).protocol == one
    others = [
        probe(tmp_path, templates=["x {}"]).evaluate(Dual()).protocol,
        probe(tmp_path, class_names=str(tmp_path / "names.json")).evaluate(Dual()).protocol,
    ]
    assert probe(tmp_path).evaluate(Fusion()).protocol == one, "how it is scored is no part of it"
    draw(tmp_path / "test" / "1=0.5" / "more.png", 1)
    others.append(probe(tmp_path).evaluate(Dual()).protocol)
    assert len({json.dumps(each, sort_keys=True) for each in (one, *others)}) == 4


def test_a_data_set_of_torchvision_by_name(tmp_path: Path) -> None:
    raw = tmp_path / "MNIST" / "raw"
    raw.mkdir(parents=True)
    numbers = np.array([1, 2, 1, 3], np.uint8)
    for part in ("train", "t10k"):
        images = np.repeat(8 * numbers[:, None], 28 * 28, 1)
        (raw / f"{part}-images-idx3-ubyte").write_bytes(struct.pack(">IIII", 2051, 4, 28, 28) + images.tobytes())
        labels = np.array([1, 2, 2, 3], np.uint8)
        (raw / f"{part}-labels-idx1-ubyte").write_bytes(struct.pack(">II", 2049, 4) + labels.tobytes())
    classes = ["0 - zero", "1 - one", "2 - two", "3 - three", "4 - four"]
    classes += ["5 - five", "6 - six", "7 - seven", "8 - eight", "9 - nine"]
    (tmp_path / "names.json").write_text(json.dumps({name: f"{name[0]}=0.5" for name in classes}))
    options = {"dataset": "MNIST", "class_names": str(tmp_path / "names.json")}
    result = probe(tmp_path, **options).evaluate(Dual())
    assert result.items["top1"].tolist() == [True, True, False, True]
    assert result.protocol != probe(tmp_path, split="train", **options).evaluate(Dual()).protocol
    with pytest.raises(ValueError, match=r"evaluator\.split must be train or test for MNIST, got 'val'"):
        probe(tmp_path, split="val", **options).evaluate(Untouched())
    with pytest.raises(FileNotFoundError, match=r"evaluator\.dataset=KMNIST: not below"):
        probe(tmp_path, dataset="KMNIST").evaluate(Untouched())
    for name in ("Nothing", "FakeData", "ImageFolder"):
        with pytest.raises(ValueError, match=f"torchvision has no '{name}'"):
            probe(tmp_path, dataset=name).evaluate(Untouched())


def test_a_score_that_is_not_finite_is_refused_by_name(tmp_path: Path) -> None:
    """Trap 2."""
    write(tmp_path, {"1=0.5": [1], "2=-0.5": [1, 2]})
    with pytest.raises(ValueError, match=r"2=-0\.5/1\.png: its score for '2=-0\.5' is nan"):
        probe(tmp_path).evaluate(Broken())


def test_what_is_wrong_is_refused_before_anything_is_encoded(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"evaluator\.root=.*test is no folder"):
        probe(tmp_path).evaluate(Untouched())
    write(tmp_path, {"a_b": [1], "a b": [2]})
    with pytest.raises(ValueError, match="two classes are called 'a b'"):
        probe(tmp_path).evaluate(Untouched())
    (tmp_path / "names.json").write_text(json.dumps({"a_b": "x"}))
    with pytest.raises(ValueError, match=r"evaluator\.class_names=.*names\.json has no a b, got None"):
        probe(tmp_path, class_names=str(tmp_path / "names.json")).evaluate(Untouched())
    (tmp_path / "test" / "a b" / "1.png").write_bytes(b"no picture")
    with pytest.raises(ValueError, match=r"1\.png is not a readable picture"):
        probe(tmp_path).evaluate(Untouched())
    (tmp_path / "test" / "empty").mkdir()
    with pytest.raises(FileNotFoundError, match=r"evaluator\.root=.*empty"):
        probe(tmp_path).evaluate(Untouched())


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"templates": []}, r"evaluator\.templates must be different sentences, at least one, got \[\]"),
        ({"templates": ["a {}", "b"]}, r"evaluator\.templates must have \{\} once each, got 'b'"),
        ({"templates": ["{}", "{}"]}, r"evaluator\.templates must be different"),
        ({"batch_size": 0}, r"evaluator\.batch_size must be >= 1, got 0"),
    ],
)
def test_wrong_options(tmp_path: Path, wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        probe(tmp_path, **wrong)


@pytest.mark.parametrize("file", ALIGNMENTS, ids=lambda file: file.stem)
def test_every_alignment_can_be_asked(tmp_path: Path, file: Path) -> None:
    """Dual encoders have classes that are vectors, fusion strategies scores; both answer to hard negatives."""
    torch.manual_seed(0)
    towers = {
        name: instantiate(OmegaConf.load(ROOT / "conf" / name / "tiny.yaml"), dim=32)
        for name in ("image_encoder", "text_encoder")
    }
    alignment = instantiate(OmegaConf.load(file), image=towers["image_encoder"].spec, text=towers["text_encoder"].spec)
    model = Model(alignment=alignment, **towers).eval()
    write(tmp_path, {"dark": [1, 2], "bright": [30]})
    result = probe(tmp_path, templates=["a {} picture", "very {}", "{}"]).evaluate(model)
    dual = file.read_text().startswith("# Dual encoder")
    assert result.scored == f"full, {'prompts averaged in the space' if dual else 'scores averaged over prompts'}"
    entry = {"filename": "dark/0.png", "caption": "a dark picture", "negative_caption": "a picture that is bright"}
    (tmp_path / "kind.json").write_text(json.dumps({"0": entry, "1": entry | {"negative_caption": "bright"}}))
    options = {"annotations": str(tmp_path), "images": str(tmp_path / "test"), "kinds": ["kind"], "karpathy": None}
    right = SugarCrepe(**options, batch_size=2).evaluate(model).items["kind"].tolist()
    image = model.encode_images([tmp_path / "test" / "dark" / "0.png"])
    for answer, negative in zip(right, ("a picture that is bright", "bright"), strict=True):
        true, false = model.score(image, model.encode_texts(["a dark picture", negative]))[0].tolist()
        assert answer is (true > false)
