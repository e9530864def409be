"""Karpathy's split files: which images a split has, which ids, and every fault by file and row."""

import json
from functools import partial

import numpy as np
import pytest
import torch
from data.real_files import content, is_compact, looked_for, module, picture

from mmlit.data.karpathy import KarpathySplits

SPLITS = ["train", "restval", "val", "train", "test", "restval", "test"]


def rows(coco: bool, counts=(5, 6, 7, 5, 5, 1, 2)):
    """As in the real files: captions of one image together, their words split, ids in no order."""
    sentence, images = 900, []
    for number, split in enumerate(SPLITS):
        image = {"imgid": number, "split": split, "filename": f"{100 - number}.jpg", "sentids": [], "sentences": []}
        if coco:
            folder = "train2014" if split == "train" else "val2014"
            name = f"COCO_{folder}_{100 - number:012d}.jpg"
            image |= {"filepath": folder, "cocoid": 100 - number, "filename": name}
        for place in range(counts[number]):
            sentence -= 1
            image["sentids"].append(sentence)
            text = f"Caption {place} of {number}. "
            words = {"tokens": text.lower().split(), "raw": text, "imgid": number, "sentid": sentence}
            image["sentences"].append(words)
        images.append(image)
    return images


@pytest.fixture
def coco_root(tmp_path):
    return write(tmp_path, rows(coco=True))


def write(root, images, name="dataset_coco.json", pictures="{filepath}"):
    (root / name).write_text(json.dumps({"images": images, "dataset": "coco"}))
    for number, image in enumerate(images):
        picture(root / pictures.format(filepath=image.get("filepath")) / image["filename"], number)
    return root


def source(root, annotations="dataset_coco.json", images="{filepath}"):
    return KarpathySplits(root=root, annotations=annotations, images=images)


def test_coco_splits_and_their_ids(coco_root):
    """Trap 7: nothing hard-codes five; all captions of an image are kept."""
    reader = source(coco_root)
    train = looked_for(reader.read("train+restval"))
    assert train.image_id.tolist() == [100, 99, 97, 95]
    assert np.diff(train.first).tolist() == [5, 6, 5, 1]
    assert list(content(train)) == [
        "train2014/COCO_train2014_000000000100.jpg",
        "val2014/COCO_val2014_000000000099.jpg",
        "train2014/COCO_train2014_000000000097.jpg",
        "val2014/COCO_val2014_000000000095.jpg",
    ]
    assert content(train)["val2014/COCO_val2014_000000000095.jpg"] == ["Caption 0 of 5. "]
    assert train.text_id.tolist()[:6] == [899, 898, 897, 896, 895, 894]
    assert train.item(3, (16,)).image[:2] == b"\xff\xd8"
    assert looked_for(reader.read("train")).image_id.tolist() == [100, 97]
    assert looked_for(reader.read("val")).num_texts == 7
    assert looked_for(reader.read("restval+train")).digest == train.digest
    assert is_compact(train)


def test_flickr_has_no_folders_and_no_cocoid(tmp_path):
    write(tmp_path, rows(coco=False), "dataset_flickr8k.json", "photos")
    captions = looked_for(source(tmp_path, "dataset_flickr8k.json", "photos").read("test"))
    assert captions.image_id.tolist() == [4, 6]
    assert list(content(captions)) == ["photos/96.jpg", "photos/94.jpg"]
    with pytest.raises(ValueError, match="images row 0 has no filepath, got None"):
        looked_for(source(tmp_path, "dataset_flickr8k.json").read("test"))


def test_pictures_may_lie_in_one_folder(tmp_path):
    write(tmp_path, rows(coco=True), pictures="images")
    captions = looked_for(source(tmp_path, images="images").read("val"))
    assert list(content(captions)) == ["images/COCO_val2014_000000000098.jpg"]


def test_the_file_is_parsed_once(coco_root):
    reader = source(coco_root)
    looked_for(reader.read("train"))
    (coco_root / "dataset_coco.json").unlink()
    assert looked_for(reader.read("val")).num_images == 1


def test_nothing_but_arrow_and_numpy_is_kept(coco_root):
    """Trap 33: no list of Python strings or rows stays behind after parsing."""
    reader = source(coco_root)
    looked_for(reader.read("train"))
    captions, split, splits = vars(reader)["_table"]
    assert is_compact(captions)
    assert isinstance(split, np.ndarray)
    assert len(splits) == 4
    assert set(vars(reader)) == {"root", "annotations", "images", "_table"}


def test_digest_says_which_split_and_sees_pictures(coco_root):
    reader = source(coco_root)
    digests = [looked_for(reader.read(split)).digest for split in ("train", "train+restval", "val", "test")]
    assert len(set(digests)) == 4
    assert looked_for(source(coco_root).read("val")).digest == digests[2]
    path = coco_root / "val2014" / "COCO_val2014_000000000098.jpg"
    path.write_bytes(path.read_bytes() + b"\0")
    assert looked_for(source(coco_root).read("val")).digest != digests[2]
    assert looked_for(source(coco_root).read("test")).digest == digests[3]


def test_unknown_split_is_told_with_those_that_are_there(coco_root):
    expected = (
        r"split 'dev' is not in .*dataset_coco\.json, which has train \(2 images\), restval \(2 images\), val \(1"
    )
    with pytest.raises(ValueError, match=expected):
        looked_for(source(coco_root).read("train+dev"))
    for split in ("train+", "train+train"):
        with pytest.raises(ValueError, match=rf"split 'train\{split[5:]}': names joined by \+ must be different"):
            looked_for(source(coco_root).read(split))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: c.pop("images"), "no list 'images'"),
        (lambda c: c["images"].__setitem__(1, 3), "images row 1 is int, not an object"),
        (lambda c: c["images"][2].update(cocoid="98"), "images row 2 has no integer cocoid, got '98'"),
        (lambda c: c["images"][2].pop("cocoid"), "images row 2 has no integer cocoid, got None"),
        (lambda c: c["images"][2].update(cocoid=100), "images rows 0 and 2 have the same cocoid 100"),
        (lambda c: c["images"][4].pop("filename"), "images row 4 has no filename, got None"),
        (lambda c: c["images"][4].update(filepath=7), "images row 4 has no filepath, got 7"),
        (
            lambda c: c["images"][4].update(c["images"][2] | {"cocoid": 1}),
            "images rows 2 and 4 both name 'val2014/COCO",
        ),
        (lambda c: c["images"][3].update(split=None), "images row 3 has no split, got None"),
        (lambda c: c["images"][3].update(sentences=[]), "images row 3 has no captions"),
        (lambda c: c["images"][3].pop("sentences"), "images row 3 has no captions"),
        (lambda c: c["images"][3]["sentences"].append("x"), "images row 3, sentence 5 is str, not an object"),
        (
            lambda c: c["images"][3]["sentences"][1].update(raw=" "),
            "images row 3, sentence 1 has no caption, got raw=' '",
        ),
        (lambda c: c["images"][3]["sentences"][1].pop("raw"), "images row 3, sentence 1 has no caption, got raw=None"),
        (
            lambda c: c["images"][3]["sentences"][1].update(sentid="7"),
            "row 3, sentence 1 has no integer sentid, got '7'",
        ),
        (lambda c: c["images"][3]["sentences"][1].update(sentid=899), "images rows 0 and 3 both have the sentid 899"),
        (lambda c: c["images"][3]["sentences"][1].update(imgid=0), "row 3, sentence 1 is of another image: imgid 0"),
    ],
)
def test_faults_anywhere_in_the_file_are_told_by_row(coco_root, change, message):
    path = coco_root / "dataset_coco.json"
    found = json.loads(path.read_text())
    change(found)
    path.write_text(json.dumps(found))
    with pytest.raises(ValueError, match=rf"dataset_coco\.json: .*{message}"):
        looked_for(source(coco_root).read("test"))


def test_broken_json_is_told_with_its_place(coco_root):
    path = coco_root / "dataset_coco.json"
    path.write_text(path.read_text()[:-20])
    with pytest.raises(ValueError, match=r"dataset_coco\.json: broken JSON: .*line 1 column"):
        looked_for(source(coco_root).read("train"))
    path.write_bytes(b'{"images": [{"imgid": 0, "split": "\xff"}]}')
    with pytest.raises(ValueError, match=r"dataset_coco\.json: broken JSON: .*utf-8"):
        looked_for(source(coco_root).read("train"))


def test_missing_things_are_told(coco_root, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"data\.root=.*nowhere is no folder; docs/coco.md"):
        source(tmp_path / "nowhere")
    with pytest.raises(FileNotFoundError, match=r"dataset_flickr8k\.json not found; docs/coco\.md says"):
        looked_for(source(coco_root, "dataset_flickr8k.json").read("train"))
    with pytest.raises(ValueError, match=r"data\.source\.images=\{split\}: only \{filepath\}"):
        source(coco_root, images="{split}")
    (coco_root / "val2014" / "COCO_val2014_000000000099.jpg").unlink()
    assert (
        looked_for(source(coco_root).read("train")).num_images == 2
    )  # only pictures of the split asked for are looked for
    expected = (
        r"dataset_coco\.json: images row 1 \(id 99\) names 'COCO_val2014_000000000099\.jpg', which is not in .*val2014 "
        r"\(1 of 4 pictures missing\)"
    )
    with pytest.raises(FileNotFoundError, match=expected):
        looked_for(source(coco_root).read("train+restval"))
    with pytest.raises(FileNotFoundError, match=r"images row 2 \(id 98\) names .* is no folder"):
        looked_for(source(coco_root, images="elsewhere/{filepath}").read("val"))


def test_trains_on_joined_splits_and_reports_every_caption(coco_root):
    """Trap 9: train + restval, selection and report are disjoint."""
    reader = partial(KarpathySplits, annotations="dataset_coco.json", images="{filepath}")
    data = module(coco_root, reader, train="train+restval")
    loader = data.train_dataloader()
    batches = list(loader)
    assert sorted(torch.cat([batch.image_id for batch in batches]).tolist()) == [95, 97, 99, 100]
    assert batches[0].image.shape == (2, 3, 8, 8)
    reported = list(data.test_dataloader())
    assert torch.cat([batch.image_id for batch in reported]).tolist() == [96, 94]
    assert sum(len(batch.text_id) for batch in reported) == 7
    assert data.training_facts()["pairs"] == 17


def test_reporting_on_restval_after_training_on_it_is_refused(coco_root):
    """Trap 9: also when the split's name is only a part of the training's."""
    reader = partial(KarpathySplits, annotations="dataset_coco.json", images="{filepath}")
    with pytest.raises(ValueError, match=r"share 2 images, e\.g\. id 95"):
        module(coco_root, reader, train="train+restval", split="restval")
