"""Data sets of the Hugging Face library, made on disk: pictures within, pictures beside, splits and refusals."""

import sys

import numpy as np
import pytest
from data.real_files import content, looked_for, module, picture

from mmlit.data.huggingface import HuggingFacePairs


def source(root, name, **options) -> HuggingFacePairs:
    defaults = {"subset": None, "image": "image", "caption": "caption"}
    return HuggingFacePairs(
        root=root, name=str(name), **{**defaults, **dict.fromkeys(("image_id", "split", "tags")), **options}
    )


@pytest.fixture(scope="module")
def datasets():
    library = pytest.importorskip("datasets")
    library.disable_progress_bars()
    return library


@pytest.fixture
def embedded(datasets, tmp_path):
    """24 pictures in the table, 1 or 2 captions each; the folder they came from."""
    for number in range(24):
        picture(tmp_path / "files" / f"{number}.jpg", number)
    files = [(tmp_path / "files" / f"{number}.jpg").read_bytes() for number in range(24)]
    features = datasets.Features({
        "image": datasets.Image(), "caption": datasets.List(datasets.Value("string")),
        "id": datasets.Value("int32"), "part": datasets.Value("string"),
        "tags": datasets.List(datasets.Value("string")),
    })  # fmt: skip
    columns = {
        "image": [{"bytes": file, "path": None} for file in files],
        "caption": [[f"caption {number} {place}" for place in range(1 + number % 2)] for number in range(24)],
        "id": list(range(100, 124)),
        "part": ["train"] * 16 + ["val"] * 4 + ["test"] * 4,
        "tags": [["t"]] * 24,
    }
    return datasets.Dataset.from_dict(columns, features=features)


def test_pictures_within_are_read_from_the_mapped_file(embedded, datasets, tmp_path):
    """Trap 33: neither copied nor turned into Python objects, also where images are set aside."""
    splits = {"train": embedded.select(range(18)), "test": embedded.select(range(18, 24))}
    datasets.DatasetDict(splits).save_to_disk(tmp_path / "saved")
    data = module(tmp_path, lambda root: source(root, "saved", image_id="id", tags="tags"), val=0.2)
    captions = data.readers["train"].captions
    assert [data.readers[part].captions.num_images for part in ("train", "val", "test")] == [14, 4, 6]
    for part in ("train", "val", "test"):
        some = data.readers[part].captions
        for image in range(some.num_images):
            number = int(some.image_id[image]) - 100
            assert some.picture(image) == (tmp_path / "files" / f"{number}.jpg").read_bytes()
            assert some.texts[some.texts_of(image)[0]].as_py() == f"caption {number} 0"
    assert captions.blobs.nbytes == data.readers["val"].captions.blobs.nbytes  # one and the same
    assert captions.tags[0].as_py() == ["t"]
    assert captions.name(0).endswith(f"saved/train: row {captions.image_id[0] - 100})")
    assert next(iter(data.train_dataloader())).image.shape == (2, 3, 8, 8)


def test_parquet_files_with_a_column_of_splits(embedded, tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    (tmp_path / "pq").mkdir()
    embedded.to_parquet(tmp_path / "pq" / "test.parquet")
    import datasets

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    captions = source(tmp_path, tmp_path / "pq", split="part").read("test+val")
    assert captions.num_images == 8
    assert captions.picture(0) == (tmp_path / "files" / "16.jpg").read_bytes()
    assert captions.digest != source(tmp_path, tmp_path / "pq", split="part").read("train").digest
    subset = captions.subset(np.array([7, 1]))
    assert subset.picture(0) == (tmp_path / "files" / "23.jpg").read_bytes()


def test_rows_of_one_id_are_one_image_and_rows_without_a_picture_are_told(datasets, tmp_path):
    picture(tmp_path / "a.jpg")
    file = (tmp_path / "a.jpg").read_bytes()
    columns = {
        "image": [{"bytes": file, "path": "x"}, {"bytes": file, "path": "x"}, None],
        "caption": ["one", "two", "three"], "id": [5, 5, 6],
    }  # fmt: skip
    features = datasets.Features(
        {"image": datasets.Image(), "caption": datasets.Value("string"), "id": datasets.Value("int64")}
    )
    datasets.Dataset.from_dict(columns, features=features).save_to_disk(tmp_path / "saved")
    survey = source(tmp_path, tmp_path / "saved", image_id="id").survey("all")
    assert survey.captions.texts.to_pylist() == ["one", "two"]
    assert survey.captions.num_images == 1
    assert [tuple(row) for row in survey.bad] == [("all: row 2", "has no image, got None")]
    with pytest.raises(ValueError, match="all: row 2 has no image"):
        source(tmp_path, tmp_path / "saved").read("all")


def test_paths_are_files_below_the_root(datasets, tmp_path):
    picture(tmp_path / "im" / "a.jpg")
    rows = {"image": ["im/a.jpg", str(tmp_path / "im" / "a.jpg")], "caption": ["one", "two"]}
    datasets.Dataset.from_dict(rows).save_to_disk(tmp_path / "saved")
    (tmp_path / "saved" / "im").symlink_to(tmp_path / "im")
    found = source(tmp_path, "saved").survey("all")
    assert content(looked_for(found.captions)) == {"im/a.jpg": ["one"]}
    assert "does not lie below" in found.bad[0].what


def test_refusals(embedded, datasets, tmp_path, monkeypatch):
    datasets.DatasetDict(train=embedded).save_to_disk(tmp_path / "saved")
    with pytest.raises(ValueError, match=r"split 'validation': .*\(splits found: train\)"):
        source(tmp_path, "saved").read("validation")
    with pytest.raises(ValueError, match=r"no column 'text' \(data.source.caption\); there are: 'image', 'caption'"):
        source(tmp_path, "saved", caption="text").read("train")
    with pytest.raises(ValueError, match=r"column 'image' is of type struct.*, not of strings"):
        source(tmp_path, "saved", tags="image").read("train")
    with pytest.raises(ValueError, match=r"data\.source\.name=some/thing: cannot be loaded"):
        source(tmp_path, "some/thing").read("train")
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(ValueError, match=r"pip install 'mmlit\[datasets\]'"):
        source(tmp_path, "saved").read("train")
