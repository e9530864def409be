"""The vocabulary: correspondence by ids, draws by ids, taking items out of a batch."""

import pytest
import torch
from torch import Tensor

from mmlit.contracts import Batch, Encoded, Pairs, uniform

WORD = 2**64


def encoded(count: int) -> Encoded:
    return Encoded(torch.zeros(count, 0, 2), torch.arange(2.0 * count).view(count, 2), torch.zeros(count, 0).bool())


def pairs_of(
    image_id: Tensor,
    text_id: Tensor,
    text_image_id: Tensor,
    *,
    images: slice = slice(None),
    texts: slice = slice(None),
    draw_key: int = 0,
    mix: tuple[Tensor, Tensor] | None = None,
) -> Pairs:
    """The pairs of the device that has the rows `images` and `texts` of a global batch."""
    all_image, all_text = encoded(len(image_id)), encoded(len(text_id))
    batch = Batch(
        image=all_image.take(images),
        image_id=image_id[images],
        token_ids=torch.zeros(len(text_id[texts]), 3, dtype=torch.int64),
        token_mask=torch.ones(len(text_id[texts]), 3, dtype=torch.bool),
        text=all_text.take(texts),
        text_id=text_id[texts],
        text_image_id=text_image_id[texts],
    )
    return Pairs(
        image=all_image.take(images),
        text=all_text.take(texts),
        all_image=all_image,
        all_text=all_text,
        image_offset=images.start or 0,
        text_offset=texts.start or 0,
        all_image_id=image_id,
        all_text_id=text_id,
        all_text_image_id=text_image_id,
        batch=batch,
        encode_image=lambda pixels: encoded(len(pixels)),
        encode_text=lambda ids, mask: encoded(len(ids)),
        draw_key=draw_key,
        all_mix_image_id=None if mix is None else mix[0],
        all_mix_weight=None if mix is None else mix[1],
    )


def split_mix_64(key: int) -> int:
    """The first output of SplitMix64 for the state `key`: Steele, Lea, Flood 2014, Fig. 16, in unsigned integers."""
    state = (key + 0x9E3779B97F4A7C15) % WORD
    state = ((state ^ (state >> 30)) * 0xBF58476D1CE4E5B9) % WORD
    state = ((state ^ (state >> 27)) * 0x94D049BB133111EB) % WORD
    return state ^ (state >> 31)


def unshift(value: int, shift: int) -> int:
    """The x with x ^ (x >> shift) = value."""
    result = value
    for _ in range(64 // shift):
        result = value ^ (result >> shift)
    return result


def key_of(output: int) -> int:
    """The key for which SplitMix64 gives `output`: each of its steps can be undone."""
    state = unshift(output, 31) * pow(0x94D049BB133111EB, -1, WORD) % WORD
    state = unshift(state, 27) * pow(0xBF58476D1CE4E5B9, -1, WORD) % WORD
    return (unshift(state, 30) - 0x9E3779B97F4A7C15) % WORD


def signed(word: int) -> int:
    return word - WORD if word >= WORD // 2 else word


def test_an_image_or_a_caption_that_comes_twice_is_a_positive() -> None:
    """Trap 8: correspondence is decided by ids, not by the place in the batch."""
    pairs = pairs_of(torch.tensor([7, 8, 7]), torch.tensor([70, 80, 71]), torch.tensor([7, 8, 7]))
    expected = torch.tensor([[1.0, 0, 1], [0, 1, 0], [1, 0, 1]])
    assert torch.equal(pairs.positives(slice(None), slice(None)), expected)


def test_blocks_of_positives_are_blocks_of_the_whole() -> None:
    image_id, owner = torch.tensor([4, 9, 4, 1, 6]), torch.tensor([9, 9, 4, 6, 1, 1, 4])
    pairs = pairs_of(image_id, torch.arange(7), owner)
    whole = torch.tensor([[float(i == j) for j in owner] for i in image_id])
    for rows in (slice(0, 2), slice(2, 5), slice(None)):
        for columns in (slice(0, 1), slice(3, 7), slice(None)):
            assert torch.equal(pairs.positives(rows, columns), whole[rows, columns])


def test_mixed_pictures_share_their_weight() -> None:
    """Image 0 shows 30 % of image 2, image 1 is mixed with itself, image 2 shows 100 % of itself."""
    mix = (torch.tensor([12, 11, 10]), torch.tensor([0.7, 0.4, 1.0]))
    pairs = pairs_of(torch.tensor([10, 11, 12]), torch.arange(3), torch.tensor([10, 11, 12]), mix=mix)
    expected = torch.tensor([[0.7, 0, 0.3], [0, 1, 0], [0, 0, 1]])
    torch.testing.assert_close(pairs.positives(slice(None), slice(None)), expected)
    torch.testing.assert_close(pairs.positives(slice(1, 3), slice(0, 2)), expected[1:3, 0:2])


def test_rows_of_a_device_are_its_share() -> None:
    ids = torch.arange(8)
    pairs = pairs_of(ids, ids, ids, images=slice(3, 8), texts=slice(2, 6))
    assert (pairs.image_rows, pairs.text_rows) == (slice(3, 8), slice(2, 6))
    assert torch.equal(pairs.all_image.pooled[pairs.image_rows], pairs.image.pooled)
    assert torch.equal(pairs.all_text.pooled[pairs.text_rows], pairs.text.pooled)


@pytest.mark.parametrize("key", [0, 1, -1, 12345678901, 2**62, -(2**63), 2**63 - 1])
def test_uniform_is_split_mix_64(key: int) -> None:
    """The upper 52 bits of the output, in the middle of their interval of (0, 1)."""
    assert uniform(key).item() == ((split_mix_64(key % WORD) >> 12) + 0.5) / 2**52


def test_several_keys_are_hashed_one_after_the_other() -> None:
    state = 0
    for key in (3, -9, 2**40):
        state = split_mix_64((state + key) % WORD)
    assert uniform(3, torch.tensor(-9), 2**40).item() == ((state >> 12) + 0.5) / 2**52


@pytest.mark.parametrize("output", [0, WORD - 1], ids=["lowest", "highest"])
def test_even_the_extreme_draws_lie_inside(output: int) -> None:
    """A draw of exactly 0 or 1 would become an infinite Gumbel noise."""
    key = key_of(output)
    assert split_mix_64(key) == output
    assert 0 < uniform(signed(key)).item() < 1


def test_draws_are_uniform() -> None:
    """Kolmogorov–Smirnov: the largest gap to the uniform distribution stays below its 0.1 % quantile, 1.95 / √n."""
    ids = torch.arange(300)
    draws = pairs_of(ids, ids, ids, draw_key=5).draws(slice(None), slice(None)).flatten()
    ordered, count = draws.sort().values, draws.numel()
    gap = torch.maximum(
        (torch.arange(1, count + 1) / count - ordered).max(), (ordered - torch.arange(count) / count).max()
    )
    assert gap < 1.95 / count**0.5
    assert len(draws.unique()) == count


def test_neighbouring_draws_are_independent() -> None:
    """Between neighbours in each direction, and between two steps: correlations within four standard errors of 0."""
    ids = torch.arange(300)
    draws, later = (pairs_of(ids, ids, ids, draw_key=key).draws(slice(None), slice(None)) for key in (5, 6))
    for one, other in ((draws[1:], draws[:-1]), (draws[:, 1:], draws[:, :-1]), (draws, later), (draws, draws.T)):
        both = torch.stack([one.flatten(), other.flatten()])
        off_diagonal = both[:, both[0] != both[1]]
        assert abs(torch.corrcoef(off_diagonal)[0, 1]) < 4 / off_diagonal.shape[1] ** 0.5


def test_draws_follow_the_ids_and_not_the_device() -> None:
    """The same pair gets the same draw in another share, another order and another batch."""
    image_id, text_id = torch.tensor([5, 2**40, 11, 3]), torch.tensor([50, 110, 30, 51, 111])
    owner = torch.tensor([5, 11, 3, 5, 11])
    whole = pairs_of(image_id, text_id, owner, draw_key=9).draws(slice(None), slice(None))
    share = pairs_of(image_id, text_id, owner, images=slice(1, 3), texts=slice(3, 5), draw_key=9)
    assert torch.equal(share.draws(share.image_rows, slice(None)), whole[1:3])
    assert torch.equal(share.draws(slice(None), share.text_rows), whole[:, 3:5])
    order = torch.tensor([3, 0, 2, 1])
    shuffled = pairs_of(image_id[order], text_id.flip(0), owner.flip(0), draw_key=9)
    assert torch.equal(shuffled.draws(slice(None), slice(None)), whole[order].flip(1))
    assert not torch.equal(pairs_of(image_id, text_id, owner, draw_key=10).draws(slice(None), slice(None)), whole)


def test_take_keeps_the_three_parts_together() -> None:
    tokens = torch.arange(24.0).view(4, 3, 2)
    items = Encoded(tokens, tokens.sum(1), torch.arange(12).view(4, 3) % 2 == 0)
    for index in (torch.tensor([2, 0, 2]), slice(1, 3), torch.tensor([True, False, False, True])):
        taken = items.take(index)
        assert isinstance(taken, Encoded)
        for part, whole in zip(taken, items, strict=True):
            assert torch.equal(part, whole[index])
