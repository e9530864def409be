"""Labels and views of training batches: of the right pictures, whoever reads them, and in no other split."""

import json

import pytest
import torch
from data.real_files import TEXT, picture

from mmlit.contracts import ImageSpec
from mmlit.data.batching import OneCaption
from mmlit.data.coco import CocoCaptions
from mmlit.data.datamodule import PairsDataModule
from mmlit.data.further import Further
from mmlit.data.reading import Reading, UnreadablePictureError
from mmlit.data.views import TwoViews

SPEC = ImageSpec(dim=1, size=8, resize="squash", interpolation="bilinear")
VIEWS = TwoViews(scale=(0.2, 1.0), flip=0.5, jitter=0.8, grayscale=0.2, blur=0.5)


@pytest.fixture
def root(tmp_path):
    """Sixteen training images; number n shows n % 3 of a cat and a dog, and the rest of it in a picture."""
    for split, first, count in (("train", 0, 16), ("val", 100, 5), ("test", 200, 5)):
        ids = range(first, first + count)
        images = [{"id": id_, "file_name": f"{id_}.jpg"} for id_ in ids]
        texts = [{"id": id_, "image_id": id_, "caption": str(id_)} for id_ in ids]
        things = [{"id": 10 * id_ + k, "image_id": id_, "category_id": k} for id_ in ids for k in range(id_ % 3)]
        for id_ in ids:
            picture(tmp_path / split / f"{id_}.jpg", id_)
        (tmp_path / f"captions_{split}.json").write_text(json.dumps({"images": images, "annotations": texts}))
        categories = [{"id": 0, "name": "dog"}, {"id": 1, "name": "cat"}]
        content = {"images": images, "annotations": things, "categories": categories}
        (tmp_path / f"instances_{split}.json").write_text(json.dumps(content))
    return tmp_path


def data(root, *, seed=0, workers=0, batch=4) -> PairsDataModule:
    made = PairsDataModule(
        root=str(root),
        source=lambda root: CocoCaptions(
            root=root, annotations="captions_{split}.json", images="{split}", prepare=None
        ),
        train="train", val="val", test="test", batch_size=batch, num_workers=workers, drop_last=True, seed=seed,
        split=None, image=SPEC, text=TEXT, batching=OneCaption(group_by_length=False),
        reading=Reading(decode="fast", on_error="skip", max_bad_share=0.2), cache=None,
        further=Further(tags=True, views=VIEWS),
    )  # fmt: skip
    made.setup("fit")
    return made


def views_by_image(made: PairsDataModule, epoch: int) -> dict[int, torch.Tensor]:
    loader = made.train_dataloader()
    loader.sampler.set_epoch(epoch)
    found = {}
    for batch in loader:
        assert len(batch.views) == 2
        found |= dict(zip(batch.image_id.tolist(), torch.stack(batch.views, 1), strict=True))
    return found


def test_labels_are_of_the_pictures_that_are_there(root):
    (root / "train" / "7.jpg").write_bytes(b"broken")  # another takes its place, with its own labels
    made = data(root)
    assert made.readers["train"].tags.names == ("cat", "dog")
    for batch in made.train_dataloader():
        assert 7 not in batch.image_id
        for id_, label in zip(batch.image_id.tolist(), batch.labels.tolist(), strict=True):
            assert label == [id_ % 3 == 2, id_ % 3 >= 1]
    assert all(batch.labels is None and batch.views is None for batch in made.val_dataloader())
    sample = [batch for _ in range(2) for batch in made.training_sample()]  # as the selection split is read
    assert [batch.image_id.tolist() for batch in sample[:2]] == [batch.image_id.tolist() for batch in sample[2:]]
    assert sum(len(batch.image_id) for batch in sample[:2]) == made.readers["val"].captions.num_images
    assert all(batch.labels is None and batch.views is None and 7 not in batch.image_id for batch in sample)


def test_views_are_decided_by_seed_epoch_and_image(root):
    """Whatever the batches, the workers, or the place in them: a resumed run sees what it would have seen."""
    first = views_by_image(data(root), 1)
    assert len(first) == 16
    for other in (data(root, workers=2), data(root, batch=8)):
        found = views_by_image(other, 1)
        assert all(torch.equal(found[id_], view) for id_, view in first.items())
    for other, epoch in ((data(root), 2), (data(root, seed=1), 1)):
        found = views_by_image(other, epoch)
        assert not any(torch.equal(found[id_], view) for id_, view in first.items())


def test_a_picture_that_only_views_cannot_read_is_told_by_file_and_row(root):
    made = data(root)

    def fails(*_: object) -> tuple[torch.Tensor, ...]:
        raise ValueError("it ends early")

    made.readers["train"].views = made.readers["train"].views._replace(make=fails)
    with pytest.raises(UnreadablePictureError, match=r"train/\d+\.jpg \(.*images row \d+ .*: it ends early"):
        next(iter(made.train_dataloader()))
