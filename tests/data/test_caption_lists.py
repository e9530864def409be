"""Lists of captions: rows of one image are joined, ids are stable, and every fault is told by file and row."""

import json
from functools import partial

import pytest
import torch
from data.real_files import content, is_compact, looked_for, module, picture

from mmlit.data.caption_lists import CaptionLists

NAME = "val2014/COCO_val2014_{:012d}.jpg"


def source(root, images="."):
    return CaptionLists(root=root, annotations="coco_karpathy_{split}.json", images=images)


@pytest.fixture
def write(tmp_path):
    """A function that writes a split's list and the pictures that it names; returns the list's path."""

    def rows(split, entries, images="."):
        path = tmp_path / f"coco_karpathy_{split}.json"
        path.write_text(json.dumps(entries))
        for number, entry in enumerate(entries):
            picture(tmp_path / images / entry["image"], number)
        return path

    return rows


@pytest.fixture
def three_splits(write, tmp_path):
    # as BLIP's files are: a row per caption in training, not side by side, and a row per image in the others
    training = [(522418, "a cake"), (57870, "a table"), (522418, "a knife "), (9, "a bowl"), (57870, "chairs")]
    entries = [{"caption": text, "image": NAME.format(n), "image_id": f"coco_{n}"} for n, text in training]
    write("train", entries)
    write("restval", [{"image": NAME.format(12), "caption": ["a dog"]}])
    write("val", [{"image": NAME.format(184613), "caption": ["one", "two", "three"]}])
    write("test", [{"image": NAME.format(n), "caption": [f"{n} a", f"{n} b"]} for n in (391895, 60623)])
    return tmp_path


def test_rows_of_an_image_are_joined(three_splits):
    captions = looked_for(source(three_splits).read("train"))
    assert content(captions) == {
        NAME.format(522418): ["a cake", "a knife "],
        NAME.format(57870): ["a table", "chairs"],
        NAME.format(9): ["a bowl"],
    }
    assert captions.image_id.tolist() == [522418, 57870, 9]
    assert len(set(captions.text_id.tolist())) == 5
    assert is_compact(captions)
    assert captions.item(2, (4,)).image[:2] == b"\xff\xd8"


def test_a_row_may_hold_all_captions(three_splits):
    captions = looked_for(source(three_splits).read("val"))
    assert content(captions) == {NAME.format(184613): ["one", "two", "three"]}


def test_splits_are_joined(three_splits):
    joined = looked_for(source(three_splits).read("train+restval"))
    assert joined.image_id.tolist() == [522418, 57870, 9, 12]
    assert joined.texts.to_pylist()[-1] == "a dog"
    assert joined.text_id.tolist()[:5] == looked_for(source(three_splits).read("train")).text_id.tolist()
    assert joined.digest != looked_for(source(three_splits).read("train")).digest


def test_numbers_are_taken_only_where_all_names_are_coco_s_and_differ(write, tmp_path):
    write("train", [{"image": "000000000007.jpg", "caption": "a"}, {"image": "a/b_000000000008.png", "caption": "b"}])
    assert looked_for(source(tmp_path).read("train")).image_id.tolist() == [7, 8]
    write("val", [{"image": "000000000007.jpg", "caption": "a"}, {"image": "train/000000000007.jpg", "caption": "b"}])
    twice = looked_for(source(tmp_path).read("val")).image_id.tolist()
    write("test", [{"image": "000000000007.jpg", "caption": "a"}, {"image": "flickr/1007.jpg", "caption": "b"}])
    other = looked_for(source(tmp_path).read("test")).image_id.tolist()
    assert twice[0] == other[0]  # the same path has the same id in any file
    assert len({*twice, *other}) == 3
    assert all(0 <= id_ < 2**63 and id_ not in (7, 1007) for id_ in (*twice, *other))


def test_hashed_ids_do_not_change():
    """A store of features and a record of ranks refer to them, so they are the same for ever and on any machine."""
    from mmlit.data.folder import stable_id

    assert stable_id("flickr/1007.jpg") == 4858356071867292228


@pytest.mark.parametrize("image", ["./val2014/x.jpg", "val2014//x.jpg", "train2014/../val2014/x.jpg"])
def test_one_picture_is_one_image_however_its_path_is_spelt(write, tmp_path, image):
    (tmp_path / "train2014").mkdir()
    write("train", [{"image": image, "caption": "a"}, {"image": "val2014/x.jpg", "caption": "b"}])
    assert content(looked_for(source(tmp_path).read("train"))) == {"val2014/x.jpg": ["a", "b"]}


def test_paths_may_start_in_a_folder(write, tmp_path):
    write("train", [{"image": "x.jpg", "caption": "a"}], images="photos/all")
    captions = looked_for(source(tmp_path, images="photos/all").read("train"))
    assert content(captions) == {"photos/all/x.jpg": ["a"]}
    write("val", [{"image": "x.jpg", "caption": "a"}])
    assert content(looked_for(source(tmp_path).read("val"))) == {"x.jpg": ["a"]}
    assert captions.image_id.tolist() == looked_for(source(tmp_path).read("val")).image_id.tolist()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: c.__setitem__(1, [1]), "row 1 is list, not an object"),
        (lambda c: c[1].pop("image"), "row 1 has no image, got None"),
        (lambda c: c[1].update(image=7), "row 1 has no image, got 7"),
        (lambda c: c[1].update(image="/data/x.jpg"), "row 1: image '/data/x.jpg' is no path below the folder"),
        (lambda c: c[1].update(image="val2014/../../x.jpg"), "row 1: image .* is no path below the folder"),
        (lambda c: c[1].pop("caption"), "row 1 has no caption or an empty one, got None"),
        (lambda c: c[1].update(caption=" "), "row 1 has no caption or an empty one, got ' '"),
        (lambda c: c[1].update(caption=[]), r"row 1 has no caption or an empty one, got \[\]"),
        (lambda c: c[1].update(caption=["a", ""]), r"row 1 has no caption or an empty one, got \['a', ''\]"),
        (lambda c: c[1].update(caption=["a", None]), r"row 1 has no caption or an empty one, got \['a', None\]"),
        (lambda c: c.clear(), "no list of rows"),
    ],
)
def test_faults_are_told_by_file_and_row(three_splits, change, message):
    path = three_splits / "coco_karpathy_test.json"
    found = json.loads(path.read_text())
    change(found)
    path.write_text(json.dumps(found))
    with pytest.raises(ValueError, match=rf"coco_karpathy_test\.json: {message}"):
        looked_for(source(three_splits).read("test"))


def test_a_file_that_is_no_list_is_refused(write, tmp_path):
    path = write("train", [{"image": "x.jpg", "caption": "a"}])
    path.write_text('{"images": []}')
    with pytest.raises(ValueError, match="no list of rows"):
        looked_for(source(tmp_path).read("train"))
    path.write_text('[{"image": "x.jpg", "caption": "a"}')
    with pytest.raises(ValueError, match=r"coco_karpathy_train\.json: broken JSON: .*line 1 column"):
        looked_for(source(tmp_path).read("train"))


def test_missing_things_are_told(three_splits):
    with pytest.raises(
        FileNotFoundError, match=r"split 'dev': .* not found \(splits found: restval, test, train, val\)"
    ):
        looked_for(source(three_splits).read("train+dev"))
    with pytest.raises(FileNotFoundError, match=r"data\.root=.*nowhere is no folder"):
        source(three_splits / "nowhere")
    (three_splits / NAME.format(57870)).unlink()
    expected = (
        r"coco_karpathy_train\.json: row 1 names 'COCO_val2014_000000057870\.jpg', which is not in .*val2014 \(1 of 3"
    )
    with pytest.raises(FileNotFoundError, match=expected):
        looked_for(source(three_splits).read("train"))
    with pytest.raises(
        FileNotFoundError, match=r"coco_karpathy_val\.json: row 0 names .*elsewhere/val2014 is no folder"
    ):
        looked_for(source(three_splits, images="elsewhere").read("val"))


def test_joined_splits_that_share_an_image_are_refused(three_splits, write):
    write("restval", [{"image": NAME.format(12), "caption": ["a dog"]}, {"image": NAME.format(9), "caption": "x"}])
    expected = r"coco_karpathy_restval\.json: row 1 names .*000009\.jpg', as does .*coco_karpathy_train\.json row 3"
    with pytest.raises(ValueError, match=expected):
        looked_for(source(three_splits).read("train+restval"))


def test_digest_sees_captions_and_pictures(three_splits):
    first = looked_for(source(three_splits).read("val")).digest
    path = three_splits / NAME.format(184613)
    path.write_bytes(path.read_bytes() + b"\0")
    second = looked_for(source(three_splits).read("val")).digest
    listed = three_splits / "coco_karpathy_val.json"
    listed.write_text(listed.read_text().replace("three", "four"))
    assert len({first, second, looked_for(source(three_splits).read("val")).digest}) == 3


def test_trains_and_reports_through_the_data_module(three_splits):
    reader = partial(CaptionLists, annotations="coco_karpathy_{split}.json", images=".")
    data = module(three_splits, reader, train="train+restval")
    ids = torch.cat([batch.image_id for batch in data.train_dataloader()])
    assert sorted(ids.tolist()) == [9, 12, 57870, 522418]
    assert torch.cat([batch.text_image_id for batch in data.test_dataloader()]).tolist() == [391895] * 2 + [60623] * 2


@pytest.mark.parametrize("extra", [[], [{"image": "other/x.jpg", "caption": "a"}]])
def test_a_picture_in_two_splits_is_refused(three_splits, write, extra):
    """Trap 9: by its number, and by its file where one split's ids are numbers and the other's hashes."""
    write("test", [{"image": NAME.format(9), "caption": "x"}, *extra])
    reader = partial(CaptionLists, annotations="coco_karpathy_{split}.json", images=".")
    expected = r"share 1 images, e\.g\. " + (r"file val2014/COCO_val2014_000000000009\.jpg" if extra else "id 9")
    with pytest.raises(ValueError, match=expected):
        module(three_splits, reader)
