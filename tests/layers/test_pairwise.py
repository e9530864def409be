"""All pairs block by block."""

from collections.abc import Callable

import pytest
import torch
from contract.alignment_inputs import IMAGE, TEXT, pairs_of, usual_batch
from torch import Tensor

from mmlit.alignments.contrastive import Contrastive
from mmlit.contracts import Encoded
from mmlit.layers.pairwise import all_pairs, both_ways

WIDTH = 6
WEIGHT = torch.linspace(-1, 1, WIDTH, dtype=torch.float64)


def vectors(count: int, seed: int) -> Tensor:
    values = torch.randn(count, WIDTH, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return values.requires_grad_()


def match(image: Tensor, text: Tensor) -> Tensor:
    """A score that is no product of two factors."""
    return (image[:, None] + text).tanh() @ WEIGHT


@pytest.mark.parametrize("side", [1, 2, 4, 100])
@pytest.mark.parametrize(("num_images", "num_texts"), [(5, 7), (1, 7), (5, 1), (1, 1)])
def test_the_size_of_a_block_changes_nothing(side: int, num_images: int, num_texts: int) -> None:
    """Scores and gradients are those of all pairs at once, also where the last blocks are smaller."""
    image, text = vectors(num_images, 0), vectors(num_texts, 1)
    cotangent = torch.linspace(1, 3, num_images * num_texts, dtype=torch.float64).view(num_images, num_texts)
    scores, whole = all_pairs(match, image, text, side=side), match(image, text)
    torch.testing.assert_close(scores, whole)
    blocked, expected = (torch.autograd.grad((cotangent * value).sum(), [image, text]) for value in (scores, whole))
    torch.testing.assert_close(blocked, expected)
    with torch.no_grad():
        torch.testing.assert_close(all_pairs(match, image, text, side=side), whole)


def test_blocks_are_square_and_cover_each_pair_once() -> None:
    shapes: list[tuple[int, int]] = []

    def noted(image: Tensor, text: Tensor) -> Tensor:
        shapes.append((len(image), len(text)))
        return match(image, text)

    with torch.no_grad():
        all_pairs(noted, vectors(5, 0), vectors(7, 1), side=4)
    assert shapes == [(4, 4), (4, 3), (1, 4), (1, 3)]


def kept_bytes(run: Callable[[], Tensor]) -> int:
    """What autograd keeps of `run` for the backward pass."""
    kept: list[Tensor] = []

    def note(tensor: Tensor) -> Tensor:
        kept.append(tensor)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        assert run().requires_grad
    return sum({t.untyped_storage().data_ptr(): t.untyped_storage().nbytes() for t in kept}.values())


def test_nothing_per_pair_is_kept_for_the_backward_pass() -> None:
    """Memory: without blocks one vector per pair is kept, with blocks a small part of that."""
    image, text = vectors(64, 0), vectors(64, 1)
    one_vector_per_pair = 64 * 64 * WIDTH * 8
    assert kept_bytes(lambda: match(image, text)) >= one_vector_per_pair
    assert kept_bytes(lambda: all_pairs(match, image, text, side=32)) < one_vector_per_pair / 10


@pytest.mark.parametrize("alone", [True, False])
def test_both_ways_takes_own_rows_against_all(alone: bool) -> None:
    """Of several devices each scores its rows and its columns of one matrix; a lonely one scores that matrix once."""
    torch.manual_seed(0)
    alignment = Contrastive(
        image=IMAGE,
        text=TEXT,
        dim=5,
        image_head="linear",
        text_head="linear",
        dropout=0.0,
        temperature=0.2,
        learn_temperature=True,
        label_smoothing=0.0,
        hardness=0.0,
        decoupled=False,
    )
    images_at, texts_at = (slice(None), slice(None)) if alone else (slice(1, 3), slice(2, 7))
    pairs = pairs_of(alignment, usual_batch(), images_at=images_at, texts_at=texts_at)
    calls = []

    def score(image: Encoded, text: Encoded) -> Tensor:
        calls.append((len(image.pooled), len(text.pooled)))
        return alignment.score(image, text)

    i2t, t2i = both_ways(score, pairs)
    whole = alignment.score(pairs.all_image, pairs.all_text)
    torch.testing.assert_close(i2t, whole[images_at])
    torch.testing.assert_close(t2i, whole[:, texts_at].T)
    assert calls == ([(5, 7)] if alone else [(2, 7), (5, 5)])
