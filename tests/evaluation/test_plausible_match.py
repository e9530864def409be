"""Plausible-match R-precision."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from evaluation.galleries import LookUp, captions, coarse_numbers, gallery
from torch import Tensor

from mmlit.evaluation.many_positives import many_positives
from mmlit.evaluation.plausible_match import PlausibleMatch
from mmlit.evaluation.truth import ImageLabels

BLOCKS = {"image_block": 3, "text_block": 5}


def images(labels: Tensor) -> ImageLabels:
    return ImageLabels("plausible", "those images", 1000 + torch.arange(len(labels)), labels)


def some_labels(seed: int, count: int) -> Tensor:
    """Six labels, about a third of them shown; the third image shows none."""
    labels = torch.rand(count, 6, generator=torch.Generator().manual_seed(seed)) < 0.35
    labels[:, 0] |= ~labels.any(1)
    labels[2] = False
    return labels


def by_loops(
    fine: list[list[float]], coarse: list[list[float]] | None, asking: list[list[bool]], found: list[list[bool]], k: int
) -> list[float]:
    """As the published code: drop images without labels, then R-precision for distances up to 0, 1 and 2."""
    values = []
    for query, own in enumerate(asking):
        if not any(own):
            continue
        apart = [sum(a != b for a, b in zip(own, other, strict=True)) for other in found]
        cheap = fine[query] if coarse is None else coarse[query]
        order = sorted(range(len(found)), key=lambda j, s=cheap, d=apart: (-s[j], -min(d[j], 3), j))
        if coarse is not None:
            order[:k] = sorted(sorted(order[:k]), key=lambda j, s=fine[query], d=apart: (-s[j], -min(d[j], 3), j))
        distances = [apart[j] for j in order if any(found[j])]
        mean = 0.0
        for most in (0, 1, 2):
            matched = [distance <= most for distance in distances]
            mean += sum(matched[: sum(matched)]) / sum(matched) / 3
        values.append(100 * mean)
    return values


def test_by_hand() -> None:
    """Images 0 and 1 show the same, image 2 one thing more, image 3 five other things; a caption each.

    Image 0 finds texts 2, 0, 3, 1: at most 0 labels apart are 0 and 1, of which one is among the first two: 1/2; at
    most 1 or 2 apart are 0, 1, 2, of which two are among the first three: 2/3 twice.
    """
    labels = torch.tensor([[1, 0, 0, 0, 0, 0, 0]] * 2 + [[1, 1, 0, 0, 0, 0, 0], [0, 0, 1, 1, 1, 1, 1]]).bool()
    scores = torch.eye(4)
    scores[0] = torch.tensor([0.8, 0.1, 0.9, 0.7])
    found = many_positives(LookUp(scores), None, gallery([0, 1, 2, 3], 4), images(labels), num_candidates=1, **BLOCKS)
    each = found.by_query["plausible_i2t_pmrp"]
    assert each.query_id.tolist() == [1000, 1001, 1002, 1003]
    assert each.value[0].item() == pytest.approx(100 * (1 / 2 + 2 / 3 + 2 / 3) / 3)
    assert each.value[3].item() == 100
    assert found.metrics["plausible_i2t_pmrp"] == pytest.approx(each.value.mean().item())
    assert set(found.metrics) == {"plausible_i2t_pmrp", "plausible_t2i_pmrp"}


@pytest.mark.parametrize("levels", [1, 3, 10_000])
@pytest.mark.parametrize("num_candidates", [None, 1, 4, 100])
def test_equals_the_loops(num_candidates: int | None, levels: int) -> None:
    """Traps 1 and 7: ties, with and without candidates, an image without labels, any number of captions."""
    owner = captions([3, 1, 2, 5, 2, 3, 1, 2, 4])
    labels = some_labels(levels, 9)
    fine, coarse = (coarse_numbers(seed, 9, len(owner), levels=levels) for seed in (1, 2))
    cheap = None if num_candidates is None else coarse
    found = many_positives(
        LookUp(fine),
        None if cheap is None else LookUp(cheap),
        gallery(owner, 9),
        images(labels),
        num_candidates=num_candidates or 1,
        **BLOCKS,
    )
    of_images, of_texts = labels.tolist(), labels[owner].tolist()
    k = num_candidates or 1
    sides: list[tuple[str, Any, Any, Any, Any]] = [
        ("i2t", fine.tolist(), None if cheap is None else cheap.tolist(), of_images, of_texts),
        ("t2i", fine.T.tolist(), None if cheap is None else cheap.T.tolist(), of_texts, of_images),
    ]
    for direction, costly, first, asking, others in sides:
        ours = found.by_query[f"plausible_{direction}_pmrp"]
        assert ours.value.tolist() == pytest.approx(by_loops(costly, first, asking, others, k))
    assert found.by_query["plausible_i2t_pmrp"].query_id.tolist() == [1000, 1001, *range(1003, 1009)]


def test_blocks_change_nothing() -> None:
    owner = captions([2] * 12)
    score, labels = LookUp(coarse_numbers(1, 12, 24, levels=5)), images(some_labels(0, 12))
    found = [
        many_positives(
            score, None, gallery(owner, 12), labels, num_candidates=1, image_block=image, text_block=text
        ).metrics
        for image, text in ((1, 1), (5, 7), (100, 100))
    ]
    assert found[0] == found[1] == found[2]


def test_a_text_is_as_its_own_image() -> None:
    """The captions' owners are read from the gallery, in whatever order they stand."""
    labels = torch.eye(6).bool()
    labels = torch.cat([labels, ~labels], 1)  # all images four labels apart
    owner = [3, 1, 5, 0, 2, 4]
    perfect = torch.zeros(6, 6)
    perfect[owner, torch.arange(6)] = 1
    found = many_positives(LookUp(perfect), None, gallery(owner, 6), images(labels), num_candidates=1, **BLOCKS).metrics
    assert set(found.values()) == {100.0}


def test_an_image_that_the_file_does_not_list_is_refused() -> None:
    labels = images(torch.ones(2, 3).bool())
    with pytest.raises(ValueError, match=r"1 of the gallery's 3 images are unknown to it \(the first: image id 1002\)"):
        many_positives(LookUp(torch.eye(3)), None, gallery([0, 1, 2], 3), labels, num_candidates=1, **BLOCKS)
    nothing = images(torch.zeros(3, 3).bool())
    with pytest.raises(ValueError, match="none of the gallery's 3 images has a label"):
        many_positives(LookUp(torch.eye(3)), None, gallery([0, 1, 2], 3), nothing, num_candidates=1, **BLOCKS)


def instances(**changes: Any) -> dict[str, Any]:
    pairs = [(9, 18), (9, 1), (9, 18), (4, 90)]
    whole = {
        "images": [{"id": 9}, {"id": 4}, {"id": 7}],
        "categories": [{"id": 1, "name": "person"}, {"id": 90, "name": "toothbrush"}, {"id": 18, "name": "dog"}],
        "annotations": [
            {"image_id": image, "category_id": category, "segmentation": [[0.5, 1.0]]} for image, category in pairs
        ],
    }
    return whole | changes


def read(root: Path, content: Any) -> ImageLabels:
    (root / "instances_val2014.json").write_text(json.dumps(content))
    return PlausibleMatch(root=root, split="val", annotations="instances_{split}2014.json").read()


def test_labels_of_a_file(tmp_path: Path) -> None:
    """COCO's category ids have gaps; an object twice is one label; an image without objects has none."""
    found = read(tmp_path, instances())
    assert found.image_id.tolist() == [4, 7, 9]
    assert found.labels.tolist() == [[False, False, True], [False] * 3, [True, True, False]]
    fewer = read(tmp_path, instances(annotations=[{"image_id": 9, "category_id": 1}]))
    assert found.fingerprint() != fewer.fingerprint()


def test_a_file_of_another_layout_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="not in the layout of COCO's instances"):
        read(tmp_path, {"images": [], "annotations": []})
    with pytest.raises(ValueError, match="not in the layout of COCO's instances"):
        read(tmp_path, [])
    with pytest.raises(ValueError, match="an image or a category that the file does not list"):
        read(tmp_path, instances(images=[{"id": 9}]))
    (tmp_path / "instances_val2014.json").write_text("{")
    source = PlausibleMatch(root=tmp_path, split="val", annotations="instances_{split}2014.json")
    with pytest.raises(ValueError, match="broken JSON"):
        source.read()
    (tmp_path / "instances_val2014.json").unlink()
    with pytest.raises(FileNotFoundError, match=r"there is no .*instances_val2014.json"):
        source.read()
