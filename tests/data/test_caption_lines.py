"""Captions line by line: line i of each file belongs to line i of the list of images."""

from functools import partial

import pytest
from data.real_files import content, is_compact, looked_for, module, picture

from mmlit.data.caption_lines import CaptionLines
from mmlit.data.flickr_tokens import FlickrTokens

LISTS = {"train": ["3", "1", "2"], "val": ["4"], "test": ["5", "6"]}
OPTIONS = {"captions": ["{split}.1.en", "{split}.2.en"], "splits": "{split}_images.txt", "images": "flickr30k-images"}


@pytest.fixture
def root(tmp_path):
    for split, names in LISTS.items():
        (tmp_path / f"{split}_images.txt").write_text("".join(f"{name}.jpg\n" for name in names))
        for place in (1, 2):
            lines = [f"Caption {place} of {name}.\n" for name in names]
            (tmp_path / f"{split}.{place}.en").write_text("".join(lines))
        for name in names:
            picture(tmp_path / "flickr30k-images" / f"{name}.jpg", int(name))
    return tmp_path


def source(root, **changes):
    return CaptionLines(root=root, **OPTIONS | changes)


def test_lines_belong_together(root):
    captions = looked_for(source(root).read("train"))
    assert content(captions) == {
        f"flickr30k-images/{name}.jpg": [f"Caption 1 of {name}.", f"Caption 2 of {name}."] for name in LISTS["train"]
    }
    assert len({*captions.image_id.tolist(), *captions.text_id.tolist()}) == 9
    assert is_compact(captions)
    joined = looked_for(source(root).read("train+val"))
    assert joined.num_texts == 8
    assert joined.image_id[:3].tolist() == captions.image_id.tolist()


def test_images_have_the_ids_of_the_token_file(root):
    """So that a checkpoint's ranks can be compared, whichever form the captions came in."""
    (root / "tokens").write_text("".join(f"{name}.jpg#0\tx\n" for name in LISTS["train"]))
    tokens = FlickrTokens(root=root, annotations="tokens", splits="{split}_images.txt", images="flickr30k-images")
    assert (
        looked_for(tokens.read("train")).image_id.tolist() == looked_for(source(root).read("train")).image_id.tolist()
    )


def test_faults_are_told_by_file_and_line(root):
    path = root / "train.2.en"
    text = path.read_text()
    path.write_text(text + "one more\n")
    with pytest.raises(ValueError, match=r"train\.2\.en has 4 lines, .*train_images\.txt names 3 images"):
        looked_for(source(root).read("train"))
    path.write_text(text.replace("Caption 2 of 1.", " "))
    with pytest.raises(ValueError, match=r"train\.2\.en: line 2 has no caption"):
        looked_for(source(root).read("train"))
    path.write_text(text)
    (root / "val_images.txt").write_text("1.jpg\n")
    with pytest.raises(ValueError, match=r"val_images\.txt: line 1 names an image that .*train_images\.txt: line 2"):
        looked_for(source(root).read("train+val"))
    (root / "train_images.txt").write_text("3\n1\n3\n")
    with pytest.raises(ValueError, match=r"train_images\.txt: lines 1 and 3 both name '3\.jpg'"):
        looked_for(source(root).read("train"))
    for files in ([], ["{split}.1.en", "{split}.1.en"]):
        with pytest.raises(ValueError, match=r"data\.source\.captions=.* must name files, each once"):
            source(root, captions=files)


def test_missing_things_are_told(root):
    with pytest.raises(
        FileNotFoundError, match=r"split 'dev': .*dev_images\.txt not found \(splits found: test, train, val"
    ):
        looked_for(source(root).read("dev"))
    with pytest.raises(FileNotFoundError, match=r"train\.3\.en not found"):
        looked_for(source(root, captions=["{split}.3.en"]).read("train"))
    (root / "flickr30k-images" / "2.jpg").unlink()
    with pytest.raises(FileNotFoundError, match=r"train_images\.txt: line 3 names '2\.jpg', which is not in"):
        looked_for(source(root).read("train"))


def test_digest_sees_captions_order_and_pictures(root):
    digests = {looked_for(source(root).read("train")).digest}
    (root / "train.1.en").write_text("a\nb\nc\n")
    digests.add(looked_for(source(root).read("train")).digest)
    (root / "train_images.txt").write_text("1\n2\n3\n")
    digests.add(looked_for(source(root).read("train")).digest)
    path = root / "flickr30k-images" / "1.jpg"
    path.write_bytes(path.read_bytes() + b"\0")
    digests.add(looked_for(source(root).read("train")).digest)
    assert len(digests) == 4


def test_trains_and_reports_through_the_data_module(root):
    data = module(root, partial(CaptionLines, **OPTIONS))
    assert [batch.image.shape for batch in data.train_dataloader()] == [(2, 3, 8, 8)]
    assert sum(len(batch.text_id) for batch in data.test_dataloader()) == 4


def test_an_image_in_two_lists_is_refused(root):
    """Trap 9."""
    (root / "val_images.txt").write_text("1\n")
    with pytest.raises(ValueError, match="share 1 images"):
        module(root, partial(CaptionLines, **OPTIONS))
