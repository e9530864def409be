"""Pictures that cannot be read: told by file and row, or replaced, counted and told once."""

import json
import logging

import numpy as np
import pytest
import torch
from data.real_files import TEXT, picture

from mmlit.contracts import ImageSpec
from mmlit.data.batching import AllCaptions, OneCaption
from mmlit.data.coco import CocoCaptions
from mmlit.data.datamodule import PairsDataModule
from mmlit.data.decode import decode
from mmlit.data.reading import Reading, UnreadablePictureError

IMAGES = 40


@pytest.fixture
def root(tmp_path):
    """Forty training images, five for selection, five to report on."""
    for split, first, count in (("train", 0, IMAGES), ("val", 100, 5), ("test", 200, 5)):
        ids = range(first, first + count)
        images = [{"id": id_, "file_name": f"{id_}.jpg"} for id_ in ids]
        texts = [{"id": 3 * id_ + k, "image_id": id_, "caption": f"{id_} {k}"} for id_ in ids for k in range(3)]
        for id_ in ids:
            picture(tmp_path / split / f"{id_}.jpg", id_)
        (tmp_path / f"{split}.json").write_text(json.dumps({"images": images, "annotations": texts}))
    return tmp_path


def data(root, *, on_error="skip", share=0.1, **changes) -> PairsDataModule:
    options = {
        "root": str(root),
        "source": lambda root: CocoCaptions(root=root, annotations="{split}.json", images="{split}", prepare=None),
        "train": "train", "val": "val", "test": "test", "batch_size": 8, "num_workers": 0, "drop_last": True,
        "seed": 0, "split": None, "image": ImageSpec(dim=1, size=8, resize="squash", interpolation="bilinear"),
        "text": TEXT, "batching": OneCaption(group_by_length=False),
        "reading": Reading(decode="fast", on_error=on_error, max_bad_share=share), "cache": None,
    }  # fmt: skip
    made = PairsDataModule(**options | changes)
    made.setup("fit")
    return made


def epoch(made: PairsDataModule, number: int = 0) -> list:
    loader = made.train_dataloader()
    loader.sampler.set_epoch(number)
    return list(loader)


def damage(root, *images: int, split: str = "train") -> None:
    for image in images:
        path = root / split / f"{image}.jpg"
        path.write_bytes(path.read_bytes()[:200])


@pytest.mark.parametrize("workers", [0, 2])
def test_raise_names_file_and_row_in_one_line(root, workers):
    damage(root, 7)
    told = r"^\S*train/7\.jpg \(\S*train\.json: images row 7 \(id 7\)\): not a readable picture: [^\n]*$"
    with pytest.raises(UnreadablePictureError, match=told):
        epoch(data(root, on_error="raise", num_workers=workers))


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("batching", [OneCaption, AllCaptions])
def test_skip_takes_other_images_and_no_epoch_shrinks(root, workers, batching):
    sound = epoch(data(root, batching=batching(group_by_length=False)))
    damage(root, 7, 23)
    (root / "train" / "31.jpg").unlink()
    made = data(root, num_workers=workers, batching=batching(group_by_length=False))
    found = epoch(made)
    assert [len(batch.image_id) for batch in found] == [8] * 5
    assert {7, 23, 31} <= {id_ for batch in sound for id_ in batch.image_id.tolist()}
    replaced = 0
    for before, after in zip(sound, found, strict=True):
        assert len(set(after.image_id.tolist())) == 8  # nobody stands twice
        assert set(after.text_image_id.tolist()) == set(after.image_id.tolist())
        for place, image in enumerate(before.image_id.tolist()):
            if image in (7, 23, 31):
                replaced += 1
                assert after.image_id[place] not in (7, 23, 31)
                assert (after.image[place] > 0).any()
            else:
                assert after.image_id[place] == image
                assert torch.equal(before.image[place], after.image[place])
    assert replaced == 3
    assert made.readers["train"].broken.flags.nonzero().flatten().tolist() == [7, 23, 31]


def test_what_takes_the_place_does_not_depend_on_who_reads_or_when(root):
    damage(root, 3, 5, 30)
    one, two, late = data(root), data(root, num_workers=2), data(root)
    epoch(late, 4)  # has found the broken ones already
    for number in (0, 3):
        ids = [[batch.image_id.tolist() for batch in epoch(made, number)] for made in (one, two, late)]
        assert ids[0] == ids[1] == ids[2]


def test_each_is_told_once(root, caplog):
    damage(root, 7, 23)
    made = data(root)
    with caplog.at_level(logging.WARNING):
        for number in range(3):
            epoch(made, number)
    lines = [record.getMessage() for record in caplog.records if "not a readable picture" in record.getMessage()]
    assert len(lines) == 2
    assert any("train/7.jpg" in line and "images row 7 (id 7)" in line for line in lines)


@pytest.mark.parametrize("workers", [0, 1])
def test_too_many_stop_the_run(root, workers):
    damage(root, *range(0, 12, 2))
    told = r"^5 of 40 pictures of \S*train\.json cannot be read, more than 0.1 \(reading\.max_bad_share\), the last one"
    with pytest.raises(UnreadablePictureError, match=told):
        epoch(data(root, num_workers=workers))


def test_missing_files_count_before_anything_is_trained(root):
    for image in range(5):
        (root / "train" / f"{image}.jpg").unlink()
    with pytest.raises(UnreadablePictureError, match=r"5 of 40 .* no such file"):
        data(root)
    with pytest.raises(
        FileNotFoundError, match=r"images row 0 \(id 0\) names '0\.jpg', .*\(5 of 40 pictures missing\)"
    ):
        data(root, on_error="raise")


@pytest.mark.parametrize("split", ["val", "test"])
def test_a_gallery_with_a_hole_is_refused_however_training_reads(root, split):
    damage(root, 100 if split == "val" else 200, split=split)
    made = data(root)
    made.setup("test")
    with pytest.raises(UnreadablePictureError, match=rf"{split}/\d00\.jpg \("):
        list(made.val_dataloader() if split == "val" else made.test_dataloader())


def test_missing_images_are_not_set_aside_for_selection(root):
    for image in range(4):
        (root / "train" / f"{image}.jpg").unlink()
    made = data(root, val=30, share=0.5)
    assert not set(range(4)) & set(made.readers["val"].captions.image_id.tolist())
    assert made.readers["train"].captions.missing.tolist() == [0, 1, 2, 3]


def test_the_reported_split_is_read_exactly(root):
    made = data(root)
    made.setup("test")
    assert [made.readers[part].exact for part in ("train", "val", "test")] == [False, False, True]
    exact = Reading(decode="exact", on_error="raise", max_bad_share=0.0)
    assert all(reader.exact for reader in data(root, reading=exact).readers.values())


@pytest.mark.parametrize("share", [-0.1, 1.0])
def test_a_share_out_of_range_is_refused(share):
    with pytest.raises(ValueError, match=rf"reading\.max_bad_share must lie in \[0, 1\), got {share}"):
        Reading(decode="fast", on_error="skip", max_bad_share=share)


def test_paths_that_leave_the_folder_are_refused(root):
    content = json.loads((root / "train.json").read_text())
    content["images"][2]["file_name"] = "../../secret.jpg"
    (root / "train.json").write_text(json.dumps(content))
    with pytest.raises(ValueError, match=r"images row 2 \(id 2\)\): no path below"):
        data(root)


def test_black_pictures_keep_the_numbers_of_a_store_in_order(root):
    damage(root, 1)
    pixels = data(root).readers["train"].pixels([0, 1, 2])
    assert not pixels[1].any()
    assert np.all([bool(pixels[place].any()) for place in (0, 2)])


def test_training_shows_pictures_as_they_are(root):
    """Trap 23: what is left of something stays left of it, for captions say so."""
    made = data(root, reading=Reading(decode="exact", on_error="raise", max_bad_share=0.0))
    (batch, *_) = epoch(made)
    for image, pixels in zip(batch.image_id.tolist(), batch.image, strict=True):
        file = (root / "train" / f"{image}.jpg").read_bytes()
        assert torch.equal(pixels, decode(file, made.image, exact=True))
