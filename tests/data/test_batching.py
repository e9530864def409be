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
    with pytest.raises(
        ValueError, match=r"9 captions of 3 images, up to 7 of one, do not fit into batches of 5 without"
    ):
        epoch(EachCaption(group_by_length=False, unique_images=True), given=captions([7, 1, 1]), batch=5)


@pytest.mark.parametrize("grouped", [True, False])
@pytest.mark.parametrize("batch", [80, 97, 100])
def test_images_stay_apart_in_batches_as_large_as_can_be(grouped, batch):
    """Full batches need every image, or nearly; grouped ones are then as alike as that allows."""
    given, batching = captions([5] * 100), EachCaption(group_by_length=grouped, unique_images=True)
    image, text = epoch(batching, given=given, batch=batch)
    assert sorted(text) == list(range(500))
    assert all(len(set(part)) == len(part) for part in np.split(image, range(batch, 500, batch)))
    again, other = (epoch(batching, given=given, batch=batch, number=number).text for number in (0, 1))
    assert (again == text).all()
    assert (other != text).any()
    spread = np.mean([lengths(given)[part].std() for part in np.split(text, range(batch, 500, batch))])
    assert (spread < 7) == grouped  # lengths lie evenly in 2 … 29: 8 in random order


def test_one_more_than_there_are_images_is_refused():
    with pytest.raises(ValueError, match=r"500 captions of 100 images, up to 5 of one, do not fit into batches of 101"):
        epoch(EachCaption(group_by_length=False, unique_images=True), given=captions([5] * 100), batch=101)


def test_images_put_apart_stay_among_their_lengths():
    """What is computed for padding is hardly more than where they are not put apart."""
    given = captions([5] * 1000)
    size = np.random.default_rng(0).geometric(0.1, given.num_texts) + 3
    computed = []
    for unique in (False, True):
        batching = EachCaption(group_by_length=True, unique_images=unique)
        _, text = batching.epoch(given, size, batch=64, seed=0, number=0)
        computed.append(sum(len(part) * part.max() for part in np.split(size[text], range(64, 5000, 64))))
    assert size.sum() * 1.05 < computed[0] < computed[1] < computed[0] * 1.05


def test_grouped_images_are_put_apart_quickly_in_large_batches():
    """Where both batches beside one have the image, another one has not: what was sorted is not dealt out anew."""
    given = captions([5] * 4000)
    size = lengths(given)
    batching = EachCaption(group_by_length=True, unique_images=True)
    image, text = batching.epoch(given, size, batch=1000, seed=0, number=0)
    assert all(len(set(part)) == 1000 for part in image.reshape(20, 1000))
    assert np.mean([part.std() for part in size[text].reshape(20, 1000)]) < 1


def test_what_fills_no_batch_is_not_always_the_longest():
    """One of 19 images is left out of two batches of nine: another one in other epochs, of any length."""
    given, size = captions([1] * 19), np.arange(19)
    left = [
        OneCaption(group_by_length=True).epoch(given, size, batch=9, seed=0, number=number).text[-1]
        for number in range(20)
    ]
    assert len(set(left)) > 5
    assert np.mean(left) < 14


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
