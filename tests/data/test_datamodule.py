"""Order, captions, splits, batches: what training and evaluation are given."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from mmlit.contracts import ImageSpec, uniform
from mmlit.data.batching import Epoch, OneCaption
from mmlit.data.coco import CocoCaptions
from mmlit.data.datamodule import PairsDataModule
from mmlit.data.reading import Reading
from mmlit.data.sampling import EpochSampler, ShareSampler, held_out
from mmlit.data.token_table import token_table
from mmlit.text_encoders.tiny import TinyTextEncoder

SPEC = ImageSpec(dim=1, size=8, resize="squash", interpolation="bilinear")
TEXT = TinyTextEncoder(vocabulary_size=100, max_length=4, dim=32, num_layers=1, freeze=False)


def module(root, **changes):
    options = {
        "root": str(root),
        "source": lambda root: CocoCaptions(
            root=root, annotations="annotations/captions_{split}2017.json", images="{split}2017", prepare=None
        ),
        "train": "train",
        "val": "val",
        "test": "test",
        "batch_size": 4,
        "num_workers": 0,
        "drop_last": True,
        "seed": 0,
        "split": None,
        "image": SPEC,
        "text": TEXT,
        "batching": OneCaption(group_by_length=False),
        "reading": Reading(decode="fast", on_error="raise", max_bad_share=0.0),
        "cache": None,
    }
    return PairsDataModule(**options | changes)


@pytest.fixture
def three_splits(coco, tmp_path):
    coco("train", {i: [f"train {i} {k}" for k in range(1 + i % 3)] for i in range(1, 11)})
    coco("val", {i: ["one", "two two"] for i in range(20, 25)}, first_caption=100)
    coco("test", {i: ["x"] * (1 + i % 2) for i in range(30, 35)}, first_caption=200)
    return tmp_path


def epoch(data, number: int) -> list:
    loader = data.train_dataloader()
    loader.sampler.set_epoch(number)
    return list(loader)


def test_training_shows_one_caption_of_each_image(three_splits):
    """Trap 25: the last small batch is dropped in training, never in evaluation."""
    data = module(three_splits)
    data.setup("fit")
    batches = epoch(data, 0)
    assert [len(batch.image_id) for batch in batches] == [4, 4]
    for batch in batches:
        assert batch.image.shape == (4, 3, 8, 8)
        assert batch.image.dtype == torch.uint8
        assert batch.text_image_id.tolist() == batch.image_id.tolist()
        assert batch.token_ids.shape == batch.token_mask.shape
        assert batch.token_mask.any(0).all()  # trimmed to the longest of the batch
    assert sum(len(batch.image_id) for batch in data.val_dataloader()) == 5


def test_evaluation_shows_every_caption_once(three_splits):
    data = module(three_splits)
    data.setup("test")
    batches = list(data.test_dataloader())
    texts = torch.cat([batch.text_id for batch in batches])
    assert len(texts) == len(texts.unique()) == 7
    assert torch.cat([batch.image_id for batch in batches]).tolist() == [30, 31, 32, 33, 34]


def test_order_and_captions_depend_on_seed_and_epoch_alone(three_splits):
    def seen(seed, number, workers):
        data = module(three_splits, seed=seed, num_workers=workers)
        data.setup("fit")
        return [(batch.image_id.tolist(), batch.text_id.tolist()) for batch in epoch(data, number)]

    assert seen(0, 3, 0) == seen(0, 3, 2)
    assert seen(0, 3, 0) != seen(0, 4, 0)
    assert seen(0, 3, 0) != seen(1, 3, 0)


def test_captions_are_drawn_evenly(three_splits):
    data = module(three_splits)
    data.setup("fit")
    captions, lengths = data.readers["train"].captions, data.readers["train"].tokens.lengths
    image = captions.image_id.tolist().index(5)
    drawn = []
    for number in range(600):
        rows = OneCaption(group_by_length=False).epoch(captions, lengths, batch=4, seed=0, number=number)
        drawn += rows.text[rows.image == image].tolist()
    assert np.bincount(np.array(drawn) - min(drawn)).min() > 150


def sampler(size: int, seed: int = 1, **options) -> EpochSampler:
    def plan(number: int) -> Epoch:
        order = np.random.default_rng([seed, number]).permutation(size)
        return Epoch(order, 2 * order)

    return EpochSampler(plan=plan, size=size, **options)


@pytest.mark.parametrize("drop_last", [True, False])
def test_devices_share_the_same_global_batches(drop_last):
    one = list(sampler(23, batch_size=6, drop_last=drop_last))
    shares = [list(sampler(23, batch_size=3, drop_last=drop_last, rank=rank, world_size=2)) for rank in range(2)]
    assert len(one) == (18 if drop_last else 23)
    for start in range(0, 18, 6):
        together = [pair for share in shares for pair in share[start // 2 : start // 2 + 3]]
        assert sorted(together) == sorted(one[start : start + 6])
    assert sum(map(len, shares)) == len(one)
    assert len(sampler(23, batch_size=6, drop_last=drop_last)) == len(one)


@pytest.mark.parametrize("size", range(1, 40))
def test_every_device_takes_part_in_every_step(size):
    """Uneven shares, but never a device without a row: the others would wait for it for ever."""
    samplers = [sampler(size, batch_size=4, drop_last=False, rank=rank, world_size=3) for rank in range(3)]
    steps = {-(-len(each) // 4) for each in samplers}
    assert len(steps) == 1
    assert all(len(each) == len(list(each)) for each in samplers)
    assert sum(map(len, samplers)) > size - 3


def test_evaluation_shares_repeat_nothing():
    """Trap 5: 10 images on 4 devices, without the two that padding would add."""
    shares = [list(ShareSampler(size=10, rank=rank, world_size=4)) for rank in range(4)]
    assert sorted(number for share in shares for number in share) == list(range(10))


def test_held_out_images_are_the_same_for_every_run():
    ids = np.arange(1000) * 17
    aside = held_out(ids, 100)
    assert len(aside) == 100
    assert len(set(aside.tolist())) == 100
    shuffled = np.random.default_rng(0).permutation(1000)
    assert set(ids[shuffled][held_out(ids[shuffled], 100)]) == set(ids[aside])
    assert abs(aside.mean() - 500) < 100
    with pytest.raises(ValueError, match=r"data\.val=1000 .* 1 … 999"):
        held_out(ids, 1000)


def test_selection_from_training_images(three_splits):
    """Trap 9: selection and report never share an image."""
    data = module(three_splits, val=3, test="val")
    data.setup("fit")
    data.setup("test")
    ids = {part: set(reader.captions.image_id.tolist()) for part, reader in data.readers.items()}
    assert len(ids["train"]) == 7
    assert len(ids["val"]) == 3
    assert ids["train"] | ids["val"] == set(range(1, 11))
    assert ids["test"] == set(range(20, 25))


def test_reporting_on_what_was_selected_on_is_refused(three_splits):
    """Trap 9."""
    data = module(three_splits, split="val")
    data.setup("fit")
    with pytest.raises(ValueError, match="split=val is what training or selection uses"):
        data.setup("test")


def test_splits_that_share_an_image_are_refused(coco, three_splits):
    """Trap 9: by id, and by file where ids differ."""
    coco("test", {i: ["x"] for i in (5, 40)}, first_caption=200)
    data = module(three_splits)
    data.setup("fit")
    with pytest.raises(ValueError, match=r"captions_train2017.*captions_test2017.*share 1 images, e\.g\. id 5"):
        data.setup("test")


def test_splits_that_share_a_file_are_refused(coco, tmp_path):
    coco("train", {1: ["a"], 2: ["b"]})
    coco("val", {3: ["c"]}, first_caption=50)
    together = lambda root: CocoCaptions(  # noqa: E731
        root=root, annotations="annotations/captions_{split}2017.json", images="all", prepare=None
    )
    (tmp_path / "all").mkdir()
    for path in [*tmp_path.glob("train2017/*"), *tmp_path.glob("val2017/*")]:
        path.rename(tmp_path / "all" / path.name)
    annotation = tmp_path / "annotations" / "captions_val2017.json"
    annotation.write_text(annotation.read_text().replace("000000000003.jpg", "000000000002.jpg"))
    with pytest.raises(ValueError, match=r"share 1 images, e\.g\. file all/000000000002\.jpg"):
        module(tmp_path, source=together, batch_size=1).setup("fit")


@pytest.mark.parametrize(("option", "value"), [("batch_size", 0), ("num_workers", -1)])
def test_numbers_out_of_range_are_refused(option, value):
    with pytest.raises(ValueError, match=rf"data\.{option} must be >= \d, got {value}"):
        module("nowhere", **{option: value})


def test_a_batch_larger_than_the_training_split_is_refused(three_splits):
    data = module(three_splits, batch_size=11)
    with pytest.raises(ValueError, match=r"data\.batch_size=11 is more than the 10 training images"):
        data.setup("fit")


def test_tokens_are_those_of_the_tokenizer(three_splits):
    data = module(three_splits)
    data.setup("fit")
    captions = data.readers["train"].captions
    table = token_table(captions, TEXT, folder=None)
    ids, mask = table.take([0, 5])
    expected_ids, expected_mask = TEXT.tokenize([captions.texts[0].as_py(), captions.texts[5].as_py()])
    assert (ids == expected_ids).all()
    assert (mask == expected_mask).all()


def test_unreadable_picture_is_told_by_name(three_splits):
    (three_splits / "train2017" / "000000000004.jpg").write_bytes(b"broken")
    data = module(three_splits)
    data.setup("fit")
    with pytest.raises(
        ValueError,
        match=r"000000000004\.jpg \(.*captions_train2017\.json: images row 3 \(id 4\)\): not a readable picture",
    ):
        [list(epoch(data, number)) for number in range(5)]


def test_uniform_is_the_same_in_any_process():
    assert uniform(0, 3, 17).item() == uniform(0, 3, torch.tensor([17]))[0].item()


@pytest.mark.parametrize(("device", "pinned"), [("cuda", True), ("cpu", False), (None, False)])
def test_memory_is_pinned_for_a_gpu(three_splits, device, pinned):
    data = module(three_splits)
    data.setup("fit")
    if device is not None:
        strategy = SimpleNamespace(root_device=torch.device(device))
        data.trainer = SimpleNamespace(global_rank=0, world_size=1, strategy=strategy)
    assert data.train_dataloader().pin_memory is pinned
    assert data.val_dataloader().pin_memory is pinned
