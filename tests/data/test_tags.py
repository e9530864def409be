"""Tags of pictures: from a column, or from COCO's instances files of either year, whole or told by name."""

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from mmlit.data.captions import Captions
from mmlit.data.tags import tag_table

CATEGORIES = {1: "person", 18: "dog", 3: "car"}


def captions(root: Path, ids: list[int], *, source: str, file: str, tags: list[list[str]] | None = None) -> Captions:
    return Captions.assemble(
        root=root, source=root / source, files=[file.format(id_) for id_ in ids], image_id=ids, owner=range(len(ids)),
        texts=["a"] * len(ids), text_id=ids, digest="d", tags=None if tags is None else pa.array(tags),
    )  # fmt: skip


def coco_2017(root: Path, ids: list[int]) -> Captions:
    return captions(root, ids, source="annotations/captions_train2017.json", file="train2017/{:012d}.jpg")


def write(path: Path, ids: list[int], of: list[tuple[int, int]], **changes) -> None:
    """As COCO writes it."""
    outline = [[float(x) for x in range(8)]]
    content = {
        "images": [{"id": id_, "file_name": f"{id_:012d}.jpg"} for id_ in ids],
        "annotations": [
            {"segmentation": outline, "area": 1.0, "iscrowd": 0, "image_id": image, "bbox": [0, 0, 1, 1],
             "category_id": kind, "id": number}
            for number, (image, kind) in enumerate(of)
        ],
        "categories": [{"supercategory": "x", "id": id_, "name": name} for id_, name in CATEGORIES.items()],
    }  # fmt: skip
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(content | changes))


def named(table, images: list[int]) -> list[set[str]]:
    return [{table.names[k] for k in np.flatnonzero(row)} for row in table.take(images).numpy()]


@pytest.mark.parametrize("kept", [False, True])
def test_categories_of_coco_2017(tmp_path, kept):
    """Image 5 shows two dogs and a person, 7 nothing; 9 is not in this split; they stand in no order."""
    file = tmp_path / "annotations" / "instances_train2017.json"
    write(file, [9, 7, 5, 2], [(5, 18), (2, 1), (9, 3), (5, 1), (5, 18)])
    for _ in range(2):
        table = tag_table(coco_2017(tmp_path, [5, 7, 2]), folder=tmp_path / "cache" if kept else None)
        assert table.names == ("dog", "person")
        assert named(table, [0, 1, 2]) == [{"dog", "person"}, set(), {"person"}]
        assert named(table, [2, 0]) == [{"person"}, {"dog", "person"}]
    if kept:  # another content is read anew
        write(file, [7, 5, 2], [(5, 3)])
        table = tag_table(coco_2017(tmp_path, [5, 7, 2]), folder=tmp_path / "cache")
        assert named(table, [0, 1, 2]) == [{"car"}, set(), set()]


def test_pictures_of_both_folders_of_2014(tmp_path):
    """As in Karpathy's splits, whose training images come from both, whatever file names the captions."""
    found = captions(tmp_path, [5, 8], source="dataset_coco.json", file="x/COCO_train2014_{:012d}.jpg")
    files = ["train2014/COCO_train2014_000000000005.jpg", "val2014/COCO_val2014_000000000008.jpg"]
    found = found._replace(files=pa.array(files))
    write(tmp_path / "annotations" / "instances_train2014.json", [5], [(5, 18)])
    with pytest.raises(FileNotFoundError, match=r"instances_val2014\.json is missing, COCO's file of what is in"):
        tag_table(found, folder=None)
    write(tmp_path / "annotations" / "instances_val2014.json", [8], [(8, 3)])
    assert named(tag_table(found, folder=None), [0, 1]) == [{"dog"}, {"car"}]


def test_a_column_is_taken_as_it_is(tmp_path):
    column = [["b", "a"], [], ["c", "a"]]
    table = tag_table(captions(tmp_path, [1, 2, 3], source="t.csv", file="{}.jpg", tags=column), folder=None)
    assert table.names == ("a", "b", "c")
    assert named(table, [0, 1, 2]) == [{"a", "b"}, set(), {"a", "c"}]


def test_other_images_are_told(tmp_path):
    write(tmp_path / "annotations" / "instances_train2017.json", [5], [(5, 18)])
    with pytest.raises(ValueError, match=r"instances_train2017\.json: 2 images of .* are not in it, e\.g\. id 6"):
        tag_table(coco_2017(tmp_path, [5, 7, 6]), folder=None)


def test_data_without_tags_are_told(tmp_path):
    with pytest.raises(ValueError, match=r"nothing says what is in the pictures .*data\.source\.tags="):
        tag_table(captions(tmp_path, [1], source="captions.csv", file="{}.jpg"), folder=None)
    with pytest.raises(ValueError, match=r"no image of .* has a tag"):
        tag_table(captions(tmp_path, [1], source="t.csv", file="{}.jpg", tags=[[]]), folder=None)


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"categories": []}, "names category_id 18, which is not among the categories"),
        ({"annotations": [{"id": 1}]}, "is this one of COCO's instances files"),
        ({"images": None}, "is this one of COCO's instances files"),
    ],
)
def test_a_file_of_another_kind_is_told(tmp_path, changes, told):
    file = tmp_path / "annotations" / "instances_train2017.json"
    write(file, [5], [(5, 18)], **changes)
    with pytest.raises(ValueError, match=f"{file.name}.*{told}"):
        tag_table(coco_2017(tmp_path, [5]), folder=None)
    file.write_text('{"images": [')
    with pytest.raises(ValueError, match=r"broken JSON"):
        tag_table(coco_2017(tmp_path, [5]), folder=None)
