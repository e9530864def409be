"""Alignment by projection: heads, and the cosine margin loss."""

import math

import pytest
import torch
from contract.alignment_inputs import IMAGE, TEXT, batch_of, pairs_of, usual_batch

from mmlit.alignments.projection import Projection
from mmlit.contracts import ImageSpec, TextSpec
from mmlit.layers.heads import HeadKind

MARGIN = 0.1


def projection(
    *,
    image: ImageSpec = IMAGE,
    text: TextSpec = TEXT,
    dim: int | None = 5,
    image_head: HeadKind = "linear",
    text_head: HeadKind = "linear",
    dropout: float = 0.0,
    margin: float = MARGIN,
) -> Projection:
    torch.manual_seed(0)
    return Projection(
        image=image, text=text, dim=dim, image_head=image_head, text_head=text_head, dropout=dropout, margin=margin
    )


def unit(vector: list[float]) -> list[float]:
    length = math.sqrt(sum(x * x for x in vector))
    return [x / length for x in vector]


def slow(cosines: list[list[float]], true: list[list[bool]]) -> list[float]:
    """Half the mean of 1 − c over a row's positives plus half the mean excess of the others that exceed the margin."""
    losses = []
    for row, own in zip(cosines, true, strict=True):
        pulls = [1 - cosine for cosine, is_own in zip(row, own, strict=True) if is_own]
        pushes = [c - MARGIN for c, is_own in zip(row, own, strict=True) if not is_own and c > MARGIN]
        losses.append(0.5 * (sum(pulls) / len(pulls) + (sum(pushes) / len(pushes) if pushes else 0.0)))
    return losses


def test_losses_and_scores_equal_the_loops() -> None:
    """Trap 18: from the heads' outputs to cosines and both directions' rows, number by number."""
    alignment, given = projection(), batch_of([3, 1, 4, 1], [1, 4, 3, 1, 1, 4])
    heads = alignment.space.image, alignment.space.text
    images, texts = (head(side.pooled).tolist() for head, side in zip(heads, (given.image, given.text), strict=True))
    cosines = [[sum(a * b for a, b in zip(unit(i), unit(t), strict=True)) for t in texts] for i in images]
    true = [[int(i) == int(owner) for owner in given.text_image_id] for i in given.image_id]
    pairs = pairs_of(alignment, given)
    torch.testing.assert_close(alignment.score(pairs.image, pairs.text), torch.tensor(cosines), rtol=1e-5, atol=1e-6)
    terms = alignment.losses(pairs)
    assert list(terms) == ["i2t", "t2i"]
    columns = [list(column) for column in zip(*cosines, strict=True)]
    torch.testing.assert_close(terms["i2t"], torch.tensor(slow(cosines, true)), rtol=1e-5, atol=1e-6)
    flipped = [list(column) for column in zip(*true, strict=True)]
    torch.testing.assert_close(terms["t2i"], torch.tensor(slow(columns, flipped)), rtol=1e-5, atol=1e-6)


def test_a_second_caption_of_an_image_is_pulled() -> None:
    """Trap 8: for the image that is twice in the batch the gradient lifts both captions' cosines with both copies."""
    alignment, given = projection(margin=-1.0), batch_of([1, 1, 2], [1, 1, 2], image_features=[10, 11, 12])
    pairs = pairs_of(alignment, given)
    image = pairs.image.pooled.detach().requires_grad_()
    moved = pairs._replace(image=pairs.image._replace(pooled=image), all_image=pairs.image._replace(pooled=image))
    terms = alignment.losses(moved)
    (gradient,) = torch.autograd.grad(terms["i2t"][0], image)
    texts = pairs.text.pooled.detach()
    # of row 0: pulled to texts 0 and 1 by a half each, pushed from text 2, and the term is weighted by a half
    torch.testing.assert_close(gradient[0], 0.5 * (texts[2] - 0.5 * (texts[0] + texts[1])))


def test_no_softmax_over_the_batch() -> None:
    """A pair far below the margin has no say: taking it away changes nothing for the others."""
    alignment = projection(margin=0.99)
    terms = [alignment.losses(pairs_of(alignment, batch_of(ids, ids)))["i2t"][:3] for ids in ([1, 2, 3], [1, 2, 3, 4])]
    torch.testing.assert_close(terms[0], terms[1])


def test_identity_heads_need_nothing_learned() -> None:
    same = TEXT._replace(dim=IMAGE.dim)
    alignment = projection(text=same, dim=None, image_head="identity", text_head="identity")
    assert not list(alignment.parameters())
    given = usual_batch()
    embedded = alignment.embed_image(given.image).pooled
    torch.testing.assert_close(embedded, torch.nn.functional.normalize(given.image.pooled, dim=1))


def test_an_identity_head_of_another_width_is_refused() -> None:
    with pytest.raises(
        ValueError, match=r"an identity head keeps the encoder's width 32, .* dim 5: set alignment\.dim=32"
    ):
        projection(image_head="identity")


@pytest.mark.parametrize("margin", [-1.5, 1.0, math.nan])
def test_margin_out_of_range_is_refused(margin: float) -> None:
    with pytest.raises(ValueError, match=rf"margin must lie in \[-1, 1\), got {margin}"):
        projection(margin=margin)


def test_dropout_out_of_range_is_refused() -> None:
    with pytest.raises(ValueError, match=r"dropout must lie in \[0, 1\), got 1.5"):
        projection(dropout=1.5)
