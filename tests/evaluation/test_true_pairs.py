"""The complete true pairs of the scenes."""

import json
from pathlib import Path

import pytest
import torch
from evaluation.galleries import LookUp, captions, gallery

from mmlit.data.scenes.write import write_scenes
from mmlit.evaluation.many_positives import many_positives
from mmlit.evaluation.true_pairs import SceneTruePairs

ANNOTATIONS = "annotations/true_pairs_{split}2017.json"


def write(root: Path, content: object) -> SceneTruePairs:
    (root / "annotations").mkdir()
    (root / "annotations/true_pairs_test2017.json").write_text(json.dumps(content))
    return SceneTruePairs(root=root, split="test", annotations=ANNOTATIONS)


def test_both_directions(tmp_path: Path) -> None:
    truth = write(tmp_path, {"5000": [1000, 1001], "5001": [1001], "5002": [1002]}).read()
    assert [part.tolist() for part in truth.t2i] == [[5000, 5000, 5001, 5002], [1000, 1001, 1001, 1002], [1.0] * 4]
    assert [part.tolist() for part in truth.i2t] == [[1000, 1001, 1001, 1002], [5000, 5000, 5001, 5002], [1.0] * 4]
    scores = torch.tensor([[0.9, 0.1, 0.2], [0.8, 0.7, 0.6], [0.1, 0.2, 0.3]])
    numbers = {"num_candidates": 1, "image_block": 2, "text_block": 2}
    found = many_positives(LookUp(scores), None, gallery(captions([1, 1, 1]), 3), truth, **numbers).metrics
    assert found["true_pairs_i2t_map_at_r"] == 100
    assert found["true_pairs_t2i_r_precision"] == pytest.approx(200 / 3)  # text 2 finds picture 1 first


@pytest.mark.parametrize("content", [[1, 2], {"a": [1]}, {"1": 2}, {"1": ["x"]}])
def test_another_layout_is_refused(tmp_path: Path, content: object) -> None:
    with pytest.raises(ValueError, match=r"true_pairs_test2017.json: not caption id → picture ids"):
        write(tmp_path, content).read()


def test_without_the_file_it_says_who_writes_it(tmp_path: Path) -> None:
    with pytest.raises(
        FileNotFoundError, match=r"there is no .*true_pairs_val2017.json; `mmlit data scenes` writes it"
    ):
        SceneTruePairs(root=tmp_path, split="val", annotations=ANNOTATIONS).read()


def test_what_the_scenes_write(tmp_path: Path) -> None:
    """Every caption is asked, its own picture is among the positives, and so are pictures that are not its own."""
    root = tmp_path / "scenes"
    write_scenes(root=root, train=8, val=8, test=40, size=24, seed=0, workers=1)
    truth = SceneTruePairs(root=root, split="test", annotations=ANNOTATIONS).read()
    captions_file = json.loads((root / "annotations/captions_test2017.json").read_text())
    own = {(one["id"], one["image_id"]) for one in captions_file["annotations"]}
    pairs = set(zip(truth.t2i.query_id.tolist(), truth.t2i.item_id.tolist(), strict=True))
    assert own < pairs
    assert pairs == set(zip(truth.i2t.item_id.tolist(), truth.i2t.query_id.tolist(), strict=True))
    assert len(truth.t2i.query_id.unique()) == 5 * 40
    assert len(truth.i2t.query_id.unique()) == 40
