"""What an epoch shows: one caption, all captions, each caption; lengths together, images apart."""

import numpy as np
import pytest

from mmlit.data.batching import ALL, AllCaptions, EachCaption, OneCaption, _grouped
from mmlit.data.captions import Captions


def captions(counts: list[int]) -> Captions:
    """Image n has counts[n] captions."""
    owner = np.repeat(np.arange(len(counts)), counts)
    return Captions.assemble(
        root=None,
        source=None,
        files=[f"{n}.jpg" for n in range(len(counts))],
        image_id=np.arange(len(counts)) * 7 + 3,
        owner=owner,
        texts=["x"] * len(owner),
        text_id=np.arange(len(owner)),
        digest="",
    )


MANY = captions([5] * 40 + [6, 7, 1])


def lengths(given: Captions) -> np.ndarray:
    return np.random.default_rng(0).integers(2, 30, given.num_texts)


def epoch(batching, number: int = 0, given: Captions = MANY, batch: int = 8, seed: int = 0):
    return batching.epoch(given, lengths(given), batch=batch, seed=seed, number=number)


@pytest.mark.parametrize("grouped", [True, False])
def test_one_caption_shows_every_image_once_with_a_caption_of_its_own(grouped):
    image, text = epoch(OneCaption(group_by_length=grouped))
    assert sorted(image) == list(range(43))
    assert ((MANY.first[image] <= text) & (text < MANY.first[image + 1])).all()
    again = epoch(OneCaption(group_by_length=grouped), number=1)
    assert (again.image != image).any()
    assert (np.sort(again.text) != np.sort(text)).any()


def test_all_captions_shows_every_image_once_with_all_of_them():
    image, text = epoch(AllCaptions(group_by_length=False))
    assert sorted(image) == list(range(43))
    assert (text == ALL).all()


@pytest.mark.parametrize("unique", [True, False])
@pytest.mark.parametrize("grouped", [True, False])
@pytest.mark.parametrize("number", range(5))
def test_each_caption_comes_once(grouped, unique, number):
    image, text = epoch(EachCaption(group_by_length=grouped, unique_images=unique), number)
    assert sorted(text) == list(range(MANY.num_texts))
    assert ((MANY.first[image] <= text) & (text < MANY.first[image + 1])).all()
    twice = [len(set(part)) < len(part) for part in np.split(image, range(8, len(image), 8))]
    assert any(twice) == (not unique)


def test_images_stay_apart_where_it_is_tight():
    """Eight batches of ten, twenty images of four captions."""
    image, _ = epoch(EachCaption(group_by_length=False, unique_images=True), given=captions([4] * 20), batch=10)
    assert all(len(set(part)) == 10 for part in image.reshape(8, 10))


def test_an_image_with_more_captions_than_batches_is_refused():
    with pytest.raises(ValueError, match=r"an image with 7 captions does not fit into 2 batches of 5"):
        epoch(EachCaption(group_by_length=False, unique_images=True), given=captions([7, 1, 1]), batch=5)


def test_lengths_are_grouped_and_batches_stay_in_random_order():
    size = np.random.default_rng(1).integers(2, 60, 1000)
    order = _grouped(np.random.default_rng(2).permutation(1000), size, 16, 0, 0, window=None)
    assert sorted(order) == list(range(1000))
    batches = [size[part] for part in np.split(order, range(16, 1000, 16))]
    padding = [(part.max() - part).mean() for part in batches]
    assert np.mean(padding) < 5  # in random order it is more than twenty
    means = np.array([part.mean() for part in batches])
    assert abs(np.corrcoef(means[:-1], means[1:])[0, 1]) < 0.4


def test_many_captions_are_put_apart_quickly():
    given = captions([5] * 20_000)
    image, _ = epoch(EachCaption(group_by_length=False, unique_images=True), given=given, batch=1024)
    assert all(len(set(part)) == len(part) for part in np.split(image, range(1024, len(image), 1024)))
