"""A folder of pictures with a text file beside each."""

import pytest
from data.real_files import content, is_compact, looked_for, picture

from mmlit.data.folder import stable_id
from mmlit.data.folder_pairs import FolderPairs


@pytest.fixture
def folder(tmp_path):
    for file, text in {
        "train/a.jpg": "a dog\n\n a cat \n", "train/sub/b.PNG": "\ufeffa bird", "val/a.jpg": "a fish\r\n",
    }.items():  # fmt: skip
        picture(tmp_path / file)
        (tmp_path / file).with_suffix(".txt").write_bytes(text.encode())
    (tmp_path / "README.md").write_text("x")
    (tmp_path / ".hidden").mkdir()
    picture(tmp_path / ".hidden" / "x.jpg")
    return tmp_path


def test_the_whole_folder_and_folders_of_splits(folder):
    source = FolderPairs(root=folder)
    captions = looked_for(source.read("train"))
    assert content(captions) == {"train/a.jpg": ["a dog", "a cat"], "train/sub/b.PNG": ["a bird"]}
    assert is_compact(captions)
    assert captions.image_id.tolist()[0] == stable_id("train/a.jpg")
    assert source.survey("train").places.to_pylist() == [
        "train/a.txt: line 1", "train/a.txt: line 3", "train/sub/b.txt: line 1",
    ]  # fmt: skip
    assert list(content(source.read("all"))) == ["train/a.jpg", "train/sub/b.PNG", "val/a.jpg"]
    assert next(iter(content(source.read("val+train")))) == "val/a.jpg"
    with pytest.raises(FileNotFoundError, match=r"split 'test': .*\(folders found: .hidden, train, val\)"):
        source.read("test")
    with pytest.raises(FileNotFoundError, match="is no folder"):
        FolderPairs(root=folder / "train" / "a.jpg")


def test_everything_that_is_no_pair_is_told(folder):
    picture(folder / "val" / "a.png")
    picture(folder / "val" / "lonely.jpg")
    (folder / "val" / "orphan.txt").write_text("x")
    for name, text in {"empty": b" \n", "latin": b"caf\xe9"}.items():
        picture(folder / "val" / f"{name}.jpg")
        (folder / "val" / f"{name}.txt").write_bytes(text)
    survey = FolderPairs(root=folder).survey("val")
    assert content(survey.captions) == {"val/a.jpg": ["a fish"]}
    assert [(row.place, row.what[:20]) for row in survey.bad] == [
        ("val/a.png", "and 'a.jpg' share on"),
        ("val/empty.txt", "has no caption in it"),
        ("val/latin.txt", "is not UTF-8: 'utf-8"),
        ("val/lonely.jpg", "has no lonely.txt be"),
        ("val/orphan.txt", "has no picture of it"),
    ]
    with pytest.raises(ValueError, match=r"val/a\.png and 'a\.jpg' share one text file \(5 such rows"):
        FolderPairs(root=folder).read("val")
