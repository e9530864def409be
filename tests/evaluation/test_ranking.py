"""Ranks of a gallery from scores of all pairs."""

import math
import weakref
from typing import Any

import pytest
import torch
from evaluation.galleries import LookUp, captions, coarse_numbers, first_ten, full_by_loops, gallery, numbered, same
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from mmlit.contracts import Encoded
from mmlit.evaluation.nearest import best
from mmlit.evaluation.ranking import rank_all

#: four images (rows) with two captions each (columns 0 1, 2 3, 4 5, 6 7)
BY_HAND = torch.tensor([
    [0.9, 0.1, 0.8, 0.2, 0.3, 0.0, 0.4, 0.5],  # its best, 0.9, is first: rank 1
    [0.7, 0.6, 0.1, 0.5, 0.2, 0.3, 0.5, 0.4],  # its best, 0.5, lies behind 0.7 and 0.6 and ties with 0.5: rank 4
    [0.1, 0.2, 0.3, 0.4, 0.0, 0.6, 0.7, 0.5],  # 0.6 behind 0.7: rank 2
    [0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.1, 0.2],  # 0.2 behind six: rank 7
])  # fmt: skip
BY_HAND_I2T = [1, 4, 2, 7]
#: column by column, down the four images
BY_HAND_T2I = [1, 4, 4, 2, 4, 1, 4, 4]


def test_four_by_eight_by_hand() -> None:
    """Trap 6: i2t counts the better of an image's captions; the ranks are written beside the matrix."""
    ranking = rank_all(LookUp(BY_HAND), gallery(captions([2, 2, 2, 2]), 4), image_block=4, text_block=8)
    assert ranking.i2t_rank.tolist() == BY_HAND_I2T
    assert ranking.t2i_rank.tolist() == BY_HAND_T2I
    assert ranking.i2t_top[0].tolist() == [0, 2, 7, 6, 4, 3, 1, 5, -1, -1]
    assert ranking.t2i_top[5].tolist() == [2, 1, 3, 0, *[-1] * 6]  # of the equal 1 and 3 the first comes first


@pytest.mark.parametrize("value", [0.0, 1.0, -3.5])
def test_constant_scores_rank_last(value: float) -> None:
    """Trap 1: embeddings that are all the same put every wrong item before the true one."""
    gal = gallery(captions([5] * 20), 20)
    ranking = rank_all(LookUp(torch.full((20, 100), value)), gal, image_block=7, text_block=9)
    assert ranking.i2t_rank.tolist() == [96] * 20
    assert ranking.t2i_rank.tolist() == [20] * 100


def test_constant_embeddings_do_not_score() -> None:
    """Trap 1: the same through a real cosine."""
    ones = Encoded(torch.zeros(12, 0, 4), torch.full((12, 4), 0.5), torch.zeros(12, 0).bool())
    gal = gallery(list(range(12)), 12)._replace(image=ones, text=ones)
    ranking = rank_all(lambda image, text: image.pooled @ text.pooled.T, gal, image_block=5, text_block=5)
    assert ranking.i2t_rank.tolist() == ranking.t2i_rank.tolist() == [12] * 12


def test_minus_zero_and_zero_are_a_tie() -> None:
    scores = torch.tensor([[-0.0, 0.0], [0.0, -0.0]])
    ranking = rank_all(LookUp(scores), gallery([0, 1], 2), image_block=2, text_block=2)
    assert ranking.i2t_rank.tolist() == ranking.t2i_rank.tolist() == [2, 2]
    assert ranking.i2t_top[:, :2].tolist() == [[0, 1], [0, 1]]


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize(("row", "column"), [(0, 0), (2, 7), (3, 1)])
def test_scores_that_are_not_finite_raise_by_name(row: int, column: int, value: float) -> None:
    """Trap 2: a NaN would win every comparison; the message names image and text by their ids, in any block."""
    scores = BY_HAND.clone()
    scores[row, column] = value
    message = f"score of image id {1000 + row} with text id {5000 + column} is {value}; only finite scores"
    for block in (1, 3, 8):
        with pytest.raises(ValueError, match=message):
            rank_all(LookUp(scores), gallery(captions([2] * 4), 4), image_block=block, text_block=block)


def test_a_query_without_a_true_item_is_refused_by_name() -> None:
    with pytest.raises(ValueError, match="image id 1002 has no true item in the gallery"):
        rank_all(LookUp(torch.rand(3, 2)), gallery([0, 1], 3), image_block=2, text_block=2)
    with pytest.raises(ValueError, match="text id 5001 has no true item in the gallery"):
        rank_all(LookUp(torch.rand(2, 3)), gallery([0, 7, 1], 2), image_block=2, text_block=2)


@pytest.mark.parametrize("levels", [1, 2, 5, 10_000])
@pytest.mark.parametrize(
    "counts",
    [[1] * 9, [1, 2, 3, 4, 5, 6, 7], [7, 1, 6, 2, 5, 3, 4, 1, 1, 7], [5] * 6, [1], [3], [20, 1]],
    ids=lambda counts: "-".join(map(str, counts)),
)
def test_equals_the_loops_with_any_number_of_captions(counts: list[int], levels: int) -> None:
    """Traps 1, 6 and 7: one to seven captions per image, in order and shuffled, ties everywhere; the tops too."""
    owner = captions(counts)
    mixed = [owner[i] for i in torch.randperm(len(owner), generator=torch.Generator().manual_seed(1))]
    for owners in (owner, mixed):
        scores, gal = coarse_numbers(len(owner), len(counts), len(owner), levels=levels), gallery(owners, len(counts))
        assert same(rank_all(LookUp(scores), gal, image_block=4, text_block=6), full_by_loops(scores, gal))


def test_blocked_equals_full() -> None:
    """Every block size gives the same ranks and the same ten best, also where ties cross the blocks."""
    owner = captions([3, 1, 5, 2, 4, 1, 7, 2, 3, 2, 1, 6])
    scores, gal = coarse_numbers(3, 12, len(owner), levels=4), gallery(owner, 12)
    full = full_by_loops(scores, gal)
    for image_block in (1, 2, 3, 5, 11, 12, 100):
        for text_block in (1, 2, 4, 7, 10, 36, 37, 38, 100):
            assert same(rank_all(LookUp(scores), gal, image_block=image_block, text_block=text_block), full)


def test_no_block_is_larger_than_asked_for() -> None:
    """Memory: the scores of 40 × 200 pairs are never in one piece, and the first pass asks only for true blocks."""
    owner = captions([5] * 40)
    score = LookUp(torch.rand(40, 200, generator=torch.Generator().manual_seed(0)))
    rank_all(score, gallery(owner, 40), image_block=8, text_block=40)
    assert score.largest == 8 * 40
    assert len(score.asked) == 5 * 5 + 5


def test_the_ten_best_of_a_larger_gallery() -> None:
    scores = torch.rand(30, 90, generator=torch.Generator().manual_seed(5))
    ranking = rank_all(LookUp(scores), gallery(captions([3] * 30), 30), image_block=7, text_block=11)
    for row, top in zip(scores.tolist(), ranking.i2t_top.tolist(), strict=True):
        assert top == sorted(range(90), key=lambda item, row=row: -row[item])[:10]
    for column, top in zip(scores.T.tolist(), ranking.t2i_top.tolist(), strict=True):
        assert top == sorted(range(30), key=lambda item, column=column: -column[item])[:10]


@pytest.mark.parametrize("order", ["random", "rising", "falling", "tied", "good"])
def test_the_ten_best_whatever_the_order(order: str) -> None:
    """Traps 1 and 7: many blocks, so that notes are sorted in several times; rising scores make every item a note.

    The largest blocks have more than ten runs each way; a good model's items are counted in few of them.
    """
    counts = [1 + image % 7 for image in range(90)]
    owner = captions(counts)
    scores = {
        "random": torch.rand(90, len(owner), generator=torch.Generator().manual_seed(9)),
        "rising": torch.arange(90.0)[:, None] + torch.arange(len(owner)),
        "falling": -torch.arange(90.0)[:, None] - torch.arange(len(owner)),
        "tied": coarse_numbers(9, 90, len(owner), levels=6),
        "good": coarse_numbers(9, 90, len(owner), levels=50)
        + 0.86 * (torch.arange(90)[:, None] == torch.tensor(owner)),
    }[order]
    gal = gallery(owner, 90)
    full = full_by_loops(scores, gal)
    for image_block, text_block in ((3, 11), (16, 32), (33, 70), (82, 330)):
        assert same(rank_all(LookUp(scores), gal, image_block=image_block, text_block=text_block), full)


def test_items_with_tokens_are_scored_in_smaller_blocks() -> None:
    """Memory: a score that compares tokens keeps something for each pair of them."""
    owner = captions([5] * 130)
    score, gal = LookUp(torch.rand(130, 650)), gallery(owner, 130)
    rank_all(score, gal, image_block=512, text_block=1280)
    assert score.largest == 130 * 650
    with_tokens = gal.text._replace(tokens=torch.zeros(650, 3, 1), mask=torch.ones(650, 3).bool())
    score.asked = []
    rank_all(score, gal._replace(text=with_tokens), image_block=512, text_block=1280)
    assert score.largest == 64 * 320
    score.asked = []
    rank_all(score, gal._replace(text=with_tokens), image_block=10, text_block=20)
    assert score.largest == 10 * 20


class _Memory(TorchDispatchMode):
    """Notes the bytes of the largest tensor that is made, and the most that are held at once."""

    def __init__(self) -> None:
        super().__init__()
        self.largest = self.now = self.most = 0
        self.held: set[int] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(made):
            if isinstance(tensor, Tensor) and tensor.untyped_storage().data_ptr() not in self.held:
                self._hold(tensor.untyped_storage())
        return made

    def _hold(self, storage: torch.UntypedStorage) -> None:
        self.held.add(storage.data_ptr())
        self.now += storage.nbytes()
        self.largest, self.most = max(self.largest, storage.nbytes()), max(self.most, self.now)
        weakref.finalize(storage, self._free, storage.data_ptr(), storage.nbytes())

    def _free(self, place: int, nbytes: int) -> None:
        self.held.discard(place)
        self.now -= nbytes


@pytest.mark.parametrize("noise", [0.2, 3.0])
def test_memory_grows_with_images_plus_texts(noise: float) -> None:
    """What is held beside the embeddings at most doubles with both sides; a matrix of all scores would be four times.

    A good and a bad model; the bad one's ranks are far from 1.
    """
    most = []
    for num_images in (200, 400):
        generator = torch.Generator().manual_seed(0)
        image = torch.randn(num_images, 8, generator=generator)
        text = image.repeat_interleave(5, 0) + noise * torch.randn(5 * num_images, 8, generator=generator)
        gal = gallery(captions([5] * num_images), num_images)
        gal = gal._replace(image=gal.image._replace(pooled=image), text=gal.text._replace(pooled=text))
        with _Memory() as memory:
            rank_all(lambda one, other: one.pooled @ other.pooled.T, gal, image_block=8, text_block=64)
        most.append(memory.most)
        assert memory.largest < num_images * 5 * num_images * 4 / 8, "no matrix of all scores, nor an eighth of it"
    assert most[1] < 2.2 * most[0]
    assert most[1] < 400 * 2000 * 4 / 2


def test_low_precision_scores_are_compared_as_the_numbers_that_they_are() -> None:
    """Trap 3: bf16 scores are ranked after a cast, so that their ties are ties."""
    scores = torch.rand(10, 20, generator=torch.Generator().manual_seed(6)).bfloat16()
    gal = gallery(captions([2] * 10), 10)
    assert len(scores.unique()) < 200
    assert same(rank_all(LookUp(scores), gal, image_block=3, text_block=5), full_by_loops(scores.float(), gal))


@pytest.mark.parametrize("width", [1, 3, 10, 50, 1000])
def test_of_equal_items_the_first_is_best(width: int) -> None:
    values = coarse_numbers(8, 20, width, levels=3)
    values[::2, ::3] = -torch.inf
    values[1, :] = -values[1, :] * 0  # zeros of both signs
    k = min(10, width)
    scores, index = best(values, k)
    expected = [
        first_ten(sorted(range(width), key=lambda item, row=row: (-row[item], item)))[:k] for row in values.tolist()
    ]
    assert index.tolist() == expected
    assert torch.equal(scores, values.gather(1, index))


def test_trimming_cuts_only_what_all_of_them_pad() -> None:
    mask = torch.tensor([[True, False, True, False, False], [True, False, False, False, False]])
    tokens = torch.arange(20.0).view(2, 5, 2)
    cut = Encoded(tokens, tokens[:, 0], mask).trimmed()
    assert torch.equal(cut.tokens, tokens[:, :3])
    assert torch.equal(cut.mask, mask[:, :3])
    assert numbered(3).trimmed().tokens.shape == (3, 0, 1)
