"""What changes training items: each as its source says, decided by ids alone, refused where captions say otherwise."""

import io
import json

import numpy as np
import pytest
import torch
from data.real_files import TEXT, picture
from PIL import Image

from mmlit.contracts import Batch, ImageSpec
from mmlit.data.augmentation import Augmenter
from mmlit.data.augmentations.crop import Crop
from mmlit.data.augmentations.cutmix import Cutmix
from mmlit.data.augmentations.erasing import Erasing
from mmlit.data.augmentations.flip import Flip
from mmlit.data.augmentations.mixup import Mixup
from mmlit.data.augmentations.rand_augment import RandAugment
from mmlit.data.augmentations.word_dropout import WordDropout
from mmlit.data.batching import OneCaption
from mmlit.data.coco import CocoCaptions
from mmlit.data.datamodule import PairsDataModule
from mmlit.data.decode import decode
from mmlit.data.further import Further
from mmlit.data.reading import Reading

SPEC = ImageSpec(dim=1, size=16, resize="squash", interpolation="bilinear")
SPECIAL = (0, 1, 2)
ERASING = Erasing(probability=1.0, scale=(0.1, 0.2), ratio=(0.5, 2.0))


def augmenter(*augmentations, seed: int = 0) -> Augmenter:
    return Augmenter(augmentations, seed=seed, special_ids=SPECIAL)


def photograph(width: int = 48, height: int = 48) -> bytes:
    """More red from top to bottom, more blue from left to right."""
    across, down = np.meshgrid(np.linspace(0, 255, width), np.linspace(0, 255, height))
    pixels = np.stack([down, np.full_like(down, 90), across], 2).astype(np.uint8)
    Image.fromarray(pixels).save(file := io.BytesIO(), "PNG")
    return file.getvalue()


def pictures(made: Augmenter, *, count: int = 40, epoch: int = 0) -> list[torch.Tensor]:
    file = photograph()
    return [made.picture(file, SPEC, exact=True, epoch=epoch, image_id=number) for number in range(count)]


PLAIN = decode(photograph(), SPEC, exact=True)


@pytest.mark.parametrize(
    "augmentation",
    [Crop(scale=(0.3, 0.9)), Flip(probability=0.5), ERASING, RandAugment(number=2, magnitude=9)],
    ids=lambda each: type(each).__name__,
)
def test_pictures_are_decided_by_seed_epoch_and_id(augmentation):
    state = torch.get_rng_state()
    first = pictures(augmenter(augmentation))
    assert torch.equal(torch.get_rng_state(), state)  # others' draws stay what they are
    torch.rand(5)
    assert all(map(torch.equal, pictures(augmenter(augmentation)), first))
    assert all(view.shape == (3, 16, 16) and view.dtype == torch.uint8 for view in first)
    for other in (pictures(augmenter(augmentation, seed=1)), pictures(augmenter(augmentation), epoch=1)):
        assert sum(not torch.equal(one, two) for one, two in zip(first, other, strict=True)) > 10


def test_a_crop_is_of_the_whole_picture_and_has_its_share():
    found = pictures(augmenter(Crop(scale=(0.25, 0.25))))
    down = [(int(view[0, -1].float().mean()) - int(view[0, 0].float().mean())) / 255 for view in found]
    across = [(int(view[2, :, -1].float().mean()) - int(view[2, :, 0].float().mean())) / 255 for view in found]
    assert np.mean(np.array(down) * np.array(across)) == pytest.approx(0.25 * (15 / 16) ** 2, rel=0.15)
    assert len({int(view[0, 0, 0]) for view in found}) > 15  # places differ


def test_a_flip_mirrors_half_of_them():
    found = pictures(augmenter(Flip(probability=0.5)))
    mirrored = sum(torch.equal(view, PLAIN.flip(2)) for view in found)
    assert mirrored + sum(torch.equal(view, PLAIN) for view in found) == 40
    assert 10 < mirrored < 30


def test_erasing_paints_over_a_rectangle_after_all_else():
    for view in pictures(augmenter(ERASING, Flip(probability=1.0))):
        changed = (view != PLAIN.flip(2)).any(0)
        rows, columns = changed.any(1).nonzero().flatten(), changed.any(0).nonzero().flatten()
        box = view[:, rows.min() : rows.max() + 1, columns.min() : columns.max() + 1]
        assert (box == 127).all()
        assert 0.07 < box[0].numel() / 256 < 0.24


def words(count: int = 50) -> tuple[torch.Tensor, torch.Tensor]:
    """Captions of two to nine tokens between marks 1 and 2, padded with 0."""
    lengths = 2 + torch.arange(count) % 8
    mask = torch.arange(11) < (lengths + 2)[:, None]
    ids = torch.arange(10, 21).repeat(count, 1) * mask
    ids[:, 0] = 1
    ids[torch.arange(count), lengths + 1] = 2
    return ids, mask


def dropped(made: Augmenter, epoch: int = 0) -> list[list[int]]:
    ids, mask = words()
    found, kept = made.tokens(ids, mask, text_id=torch.arange(50), epochs=torch.full((50,), epoch))
    assert found.shape == kept.shape
    assert kept.any(0).all()  # trimmed to the longest
    assert (kept.int().diff(dim=1) <= 0).all()  # nothing between
    assert (found[~kept] == 0).all()
    return [row[there].tolist() for row, there in zip(found, kept, strict=True)]


@pytest.mark.parametrize("probability", [0.0, 0.3, 0.99])
def test_words_are_left_out_and_marks_stay(probability):
    found = dropped(augmenter(WordDropout(probability=probability)))
    ids, mask = words()
    before = [row[there].tolist() for row, there in zip(ids, mask, strict=True)]
    for row, all_of_it in zip(found, before, strict=True):
        assert row[0] == 1
        assert row[-1] == 2
        assert len(row) >= 3  # one word at least
        assert row == [token for token in all_of_it if token in row]  # in their order
    total = sum(len(row) - 2 for row in before)
    least = 50 / total  # one word of each
    kept = sum(len(row) - 2 for row in found) / total
    assert kept == pytest.approx(max(1 - probability, least), abs=0.09)
    assert dropped(augmenter(WordDropout(probability=probability))) == found
    if probability == 0.3:
        assert dropped(augmenter(WordDropout(probability=probability)), epoch=1) != found


def batch() -> Batch:
    """Four pictures of one grey each, image 4 twice, with tags."""
    ids = torch.tensor([3, 1, 4, 4])
    greys = torch.tensor([0, 80, 160, 240], dtype=torch.uint8)
    labels = torch.tensor([[1, 0], [0, 1], [0, 0], [1, 1]]).bool()
    pixels = greys[:, None, None, None].expand(4, 3, 16, 16)
    return Batch(pixels, ids, ids[:, None], ids[:, None] > 0, None, ids, ids, labels)


@pytest.mark.parametrize(("mix", "mean"), [(Mixup(alpha=1.0), 0.5), (Cutmix(alpha=1.0), 0.68)], ids=["mixup", "cutmix"])
def test_pictures_and_targets_mix_by_one_share(mix, mean):
    """Trap 23: neither's captions are told to be wholly true. The mean of the picture has the share, too."""
    weights = []
    for epoch in range(200):
        given = batch()
        found = augmenter(mix).mix(given, epochs=[epoch] * 4)
        assert found.mix_image_id.tolist() == [1, 4, 4, 3]
        for row, weight in enumerate(found.mix_weight.tolist()):
            own, other = (float(given.image[place].float().mean()) for place in (row, (row + 1) % 4))
            assert float(found.image[row].float().mean()) == pytest.approx(
                weight * own + (1 - weight) * other, abs=0.51
            )
            expected = weight * given.labels[row].float() + (1 - weight) * given.labels[(row + 1) % 4].float()
            assert torch.allclose(found.labels[row], expected)
        shown = torch.stack([found.mix_weight, 1 - found.mix_weight.roll(1)]).sum(0)
        assert torch.allclose(shown, torch.ones(4)), "each caption is shown once in all"
        weights.append(float(found.mix_weight[0]))
    # Beta(1, 1) is uniform; a rectangle is cut at the picture's edges, so that more of it stays
    assert np.mean(weights) == pytest.approx(mean, abs=0.08)
    assert np.std(weights) > 0.15
    again = augmenter(mix).mix(batch(), epochs=[199] * 4)
    assert torch.equal(again.image, found.image)


def test_cutmix_shows_a_rectangle():
    found = augmenter(Cutmix(alpha=1.0)).mix(batch(), epochs=range(4))
    shown = found.image[0, 0] == 80
    rows, columns = shown.any(1).nonzero().flatten(), shown.any(0).nonzero().flatten()
    assert shown[rows.min() : rows.max() + 1, columns.min() : columns.max() + 1].all()
    assert ((found.image[0, 0] == 0) | shown).all()


def test_a_picture_alone_is_mixed_with_itself():
    """The rest of an epoch may be one picture on one device and two on another: what is gathered is there on both."""
    alone = Batch(*(part[:1] if isinstance(part, torch.Tensor) else part for part in batch()))
    found = augmenter(Mixup(alpha=1.0)).mix(alone, epochs=[0])
    assert torch.equal(found.image, alone.image)
    assert torch.equal(found.labels, alone.labels.float())
    assert found.mix_image_id.tolist() == alone.image_id.tolist()
    assert found.mix_weight.shape == (1,)


@pytest.mark.parametrize(
    ("make", "told"),
    [
        (lambda: Crop(scale=(0.9, 0.5)), r"augmentation\.crop\.scale"),
        (lambda: Flip(probability=2.0), r"augmentation\.flip\.probability must lie in \[0, 1\], got 2\.0"),
        (lambda: RandAugment(number=0, magnitude=9), r"rand_augment\.number must be >= 1, got 0"),
        (lambda: RandAugment(number=2, magnitude=31), r"rand_augment\.magnitude must lie in 0 … 30, got 31"),
        (lambda: Erasing(probability=0.5, scale=(0.1, 2.0), ratio=(1.0, 1.0)), r"erasing\.scale"),
        (lambda: Erasing(probability=0.5, scale=(0.1, 0.2), ratio=(0.0, 1.0)), r"erasing\.ratio"),
        (lambda: Mixup(alpha=0.0), r"mixup\.alpha must be > 0, got 0\.0"),
        (lambda: Cutmix(alpha=-1.0), r"cutmix\.alpha must be > 0"),
        (lambda: WordDropout(probability=1.0), r"word_dropout\.probability must lie in \[0, 1\), got 1\.0"),
        (lambda: augmenter(Mixup(alpha=1.0), Cutmix(alpha=1.0)), "Mixup and Cutmix both mix pictures; take one"),
    ],
)
def test_wrong_options_are_told(make, told):
    with pytest.raises(ValueError, match=told):
        make()


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    for split, first, count in (("train", 0, 16), ("val", 100, 5), ("test", 200, 5)):
        ids = range(first, first + count)
        images = [{"id": id_, "file_name": f"{id_}.jpg"} for id_ in ids]
        texts = [{"id": id_, "image_id": id_, "caption": f"{id_} a dog"} for id_ in ids]
        for id_ in ids:
            picture(folder / split / f"{id_}.jpg", id_)
        (folder / f"{split}.json").write_text(json.dumps({"images": images, "annotations": texts}))
    return folder


def data(root, *augmentations, workers: int = 0, tell=()) -> PairsDataModule:
    made = PairsDataModule(
        root=str(root),
        source=lambda root: CocoCaptions(root=root, annotations="{split}.json", images="{split}", prepare=None),
        train="train", val="val", test="test", batch_size=4, num_workers=workers, drop_last=True, seed=0,
        split=None, image=SPEC, text=TEXT, batching=OneCaption(group_by_length=False),
        reading=Reading(decode="fast", on_error="raise", max_bad_share=0.0), cache=None,
        further=Further(augmentations=augmentations), captions_tell=tell,
    )  # fmt: skip
    made.setup("fit")
    return made


def test_training_is_augmented_the_same_by_any_number_of_workers_and_no_other_split(root):
    some = (Crop(scale=(0.3, 0.9)), Mixup(alpha=1.0), WordDropout(probability=0.5))
    batches = [list(data(root, *some, workers=workers).train_dataloader()) for workers in (0, 2)]
    for one, other in zip(*batches, strict=True):
        for name in ("image", "token_ids", "token_mask", "mix_image_id", "mix_weight"):
            assert torch.equal(getattr(one, name), getattr(other, name)), name
    plain = data(root)
    assert not torch.equal(batches[0][0].image, next(iter(plain.train_dataloader())).image)
    for one, other in zip(data(root, *some).val_dataloader(), plain.val_dataloader(), strict=True):
        assert torch.equal(one.image, other.image)
        assert one.mix_weight is None


@pytest.mark.parametrize(
    ("augmentation", "false"),
    [(Flip(probability=0.1), "sides"), (RandAugment(number=1, magnitude=1), "colours"), (ERASING, "objects"),
     (Crop(scale=(0.5, 1.0)), "objects")],
)  # fmt: skip
def test_data_whose_captions_would_become_false_refuse_it(root, augmentation, false):
    """Trap 23."""
    name = type(augmentation).__name__
    with pytest.raises(ValueError, match=rf"{name} makes captions false that tell of {false}[\w, ]*, as these do"):
        data(root, augmentation, tell=["sides", "colours", "objects"])
    data(
        root,
        augmentation,
        tell=[word for word in ("sides", "colours", "objects") if word not in augmentation.contradicts],
    )
    with pytest.raises(ValueError, match=r"data\.captions_tell must be of sides, colours, objects, got size"):
        data(root, tell=["size"])
