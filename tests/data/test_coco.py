"""The COCO reader: both layouts, any number of captions, and every fault by file and row."""

import json

import numpy as np
import pytest
from data.real_files import looked_for

from mmlit.data.coco import CocoCaptions


def source(root, year="2017", prepare="mmlit data scenes --root {root}"):
    return CocoCaptions(
        root=root, annotations=f"annotations/captions_{{split}}{year}.json", images=f"{{split}}{year}", prepare=prepare
    )


@pytest.mark.parametrize("year", ["2014", "2017"])
def test_reads_both_layouts_with_any_number_of_captions(coco, tmp_path, year):
    """Trap 7: five to seven captions per image in COCO, here one to three."""
    coco("val", {7: ["a", "b"], 3: ["c"], 9: ["d", "e", "f"]}, year=year)
    captions = looked_for(source(tmp_path, year).read("val"))
    assert captions.image_id.tolist() == [7, 3, 9]
    assert [[captions.texts[t].as_py() for t in captions.texts_of(i)] for i in range(3)] == [
        ["a", "b"],
        ["c"],
        ["d", "e", "f"],
    ]
    item = captions.item(2, (4,))
    assert item.image_id == 9
    assert item.texts == ("e",)
    assert item.image[:2] == b"\xff\xd8"


def test_annotations_are_arrow_and_numpy(coco, tmp_path):
    """Trap 33: no list of Python strings that every worker would copy by touching reference counts."""
    import pyarrow as pa

    coco("val", {1: ["a"]})
    captions = looked_for(source(tmp_path).read("val"))
    kinds = [type(value) for value in captions]
    assert list not in kinds
    assert dict not in kinds
    assert isinstance(captions.texts, pa.Array)
    assert isinstance(captions.files, pa.Array)
    assert captions.first.dtype == np.int64


def test_subset_keeps_captions_and_names_itself(coco, tmp_path):
    coco("train", {1: ["a"], 2: ["b", "c"], 3: ["d"]})
    captions = looked_for(source(tmp_path).read("train"))
    subset = captions.subset(np.array([2, 1]))
    assert subset.image_id.tolist() == [3, 2]
    assert subset.texts.to_pylist() == ["d", "b", "c"]
    assert subset.first.tolist() == [0, 1, 3]
    assert subset.digest != captions.digest


def edit(path, change):
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: c["annotations"][1].update(image_id=99), r"annotations row 1 \(id \d+\) names image_id 99"),
        (lambda c: c["annotations"][0].pop("image_id"), "annotations row 0 .* names image_id None"),
        (lambda c: c["images"].append({"id": 50, "file_name": "x.jpg"}), r"images row 2 \(id 50\) has no caption"),
        (lambda c: c["images"][1].update(id=1), "images rows 0 and 1 have the same id 1"),
        (
            lambda c: c["annotations"][1].update(id=c["annotations"][0]["id"]),
            "annotations rows 0 and 1 have the same id",
        ),
        (lambda c: c["images"][0].update(id="1"), "images row 0 has no integer id, got '1'"),
        (lambda c: c["annotations"][0].update(caption=" "), "annotations row 0 .* has no caption, got ' '"),
        (lambda c: c["annotations"][0].update(caption=None), "annotations row 0 .* has no caption, got None"),
        (lambda c: c["annotations"].__setitem__(0, "x"), "annotations row 0 is str, not an object"),
        (lambda c: c.pop("images"), "no list 'images'"),
    ],
)
def test_faults_are_told_by_file_and_row(coco, tmp_path, change, message):
    edit(coco("val", {1: ["a", "b"], 2: ["c"]}), change)
    with pytest.raises(ValueError, match=r"captions_val2017\.json: " + message):
        looked_for(source(tmp_path).read("val"))


def test_broken_json_is_told_with_its_place(coco, tmp_path):
    path = coco("val", {1: ["a"]})
    path.write_text(path.read_text()[:-20])
    with pytest.raises(ValueError, match=r"captions_val2017\.json: broken JSON: .*line 1 column"):
        looked_for(source(tmp_path).read("val"))


def test_missing_things_name_the_command_that_makes_them(coco, tmp_path):
    with pytest.raises(
        FileNotFoundError, match=r"data\.root=.*nowhere is no folder; make it with: mmlit data scenes --root"
    ):
        source(tmp_path / "nowhere")
    coco("val", {1: ["a"], 2: ["b"]})
    with pytest.raises(FileNotFoundError, match=r"split 'test'.*splits found: val"):
        looked_for(source(tmp_path).read("test"))
    (tmp_path / "val2017" / "000000000002.jpg").unlink()
    with pytest.raises(FileNotFoundError, match=r"images row 1 \(id 2\) names '000000000002\.jpg', which is not in"):
        looked_for(source(tmp_path).read("val"))
    (tmp_path / "val2017" / "000000000001.jpg").unlink()
    (tmp_path / "val2017").rmdir()
    with pytest.raises(FileNotFoundError, match="is no folder of pictures"):
        looked_for(source(tmp_path).read("val"))


def test_digest_sees_captions_and_pictures(coco, tmp_path):
    path = coco("val", {1: ["a"]})
    first = looked_for(source(tmp_path).read("val")).digest
    picture = tmp_path / "val2017" / "000000000001.jpg"
    picture.write_bytes(picture.read_bytes() + b"\0")
    second = looked_for(source(tmp_path).read("val")).digest
    edit(path, lambda c: c["annotations"][0].update(caption="b"))
    assert len({first, second, looked_for(source(tmp_path).read("val")).digest}) == 3
