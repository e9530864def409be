"""Triplet alignment: heads, hinges both ways, never between two captions of one image."""

import math

import pytest
import torch
from contract.alignment_checks import CHECKS
from contract.alignment_inputs import IMAGE, TEXT, batch_of, pairs_of

from mmlit.alignments.triplet import Triplet
from mmlit.layers.heads import HeadKind
from mmlit.losses.triplet import Hinges


def triplet(
    *,
    dim: int | None = 5,
    image_head: HeadKind = "linear",
    text_head: HeadKind = "linear",
    dropout: float = 0.0,
    margin: float = 0.2,
    hinges: Hinges = "max",
) -> Triplet:
    torch.manual_seed(0)
    return Triplet(
        image=IMAGE,
        text=TEXT,
        dim=dim,
        image_head=image_head,
        text_head=text_head,
        dropout=dropout,
        margin=margin,
        hinges=hinges,
    )


@pytest.mark.parametrize("hinges", ["sum", "max"])
def test_losses_equal_the_loops(hinges: Hinges) -> None:
    """Traps 8 and 18: hinges on cosines; image 1 is twice in the batch, and none of its captions a negative."""
    alignment, given = triplet(margin=0.5, hinges=hinges), batch_of([3, 1, 4, 1], [1, 4, 3, 1, 1, 4])
    pairs = pairs_of(alignment, given)
    terms = alignment.losses(pairs)
    assert list(terms) == ["i2t", "t2i"]
    rows = alignment.score(pairs.image, pairs.text).tolist()
    columns = [list(column) for column in zip(*rows, strict=True)]
    ids, owner = given.image_id.tolist(), given.text_image_id.tolist()
    combine = {"sum": sum, "max": max}[hinges]
    for name, scores, queries, gallery in (("i2t", rows, ids, owner), ("t2i", columns, owner, ids)):
        expected = []
        for query, row in zip(queries, scores, strict=True):
            own = [score for score, other in zip(row, gallery, strict=True) if other == query]
            others = [score for score, other in zip(row, gallery, strict=True) if other != query]
            expected.append(sum(combine([max(0.0, 0.5 - s + n) for n in others]) for s in own) / len(own))
        torch.testing.assert_close(terms[name], torch.tensor(expected))


@pytest.mark.parametrize("hinges", ["sum", "max"])
def test_the_sum_of_both_means_is_the_published_loss_per_pair(hinges: Hinges) -> None:
    """One caption per image: Eq. 5 or 6 over the batch, divided by its size."""
    alignment, given = triplet(hinges=hinges), batch_of([1, 2, 3, 4], [1, 2, 3, 4])
    pairs = pairs_of(alignment, given)
    scores = pairs.image.pooled @ pairs.text.pooled.T
    own, others = scores.diagonal(), ~torch.eye(4, dtype=torch.bool)
    hinge = [(0.2 - own[:, None] + side).clamp_min(0) * others for side in (scores, scores.T)]
    expected = torch.stack([part.sum(1) if hinges == "sum" else part.amax(1) for part in hinge]).sum() / 4
    terms = alignment.losses(pairs)
    torch.testing.assert_close(terms["i2t"].mean() + terms["t2i"].mean(), expected)


@pytest.mark.parametrize("check", ["overfits_sixteen_pairs", "two_devices_give_the_numbers_of_one"])
def test_the_other_option_holds_the_contract_too(check: str) -> None:
    """`sum` is in the yaml file, and so in the contract's own test."""
    CHECKS[check](lambda: triplet(dim=32, hinges="max"))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"margin": 0.0}, r"margin must lie in \(0, 2\], got 0.0"),
        ({"margin": math.nan}, r"margin must lie in \(0, 2\], got nan"),
        ({"hinges": "mean"}, "hinges must be sum or max, got 'mean'"),
        ({"dropout": 1.0}, r"dropout must lie in \[0, 1\), got 1.0"),
        ({"image_head": "identity"}, r"keeps the encoder's width 32, .* dim 5: set alignment\.dim=32 \(or null\)"),
    ],
)
def test_wrong_options_are_refused_by_name(options: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        triplet(**options)  # type: ignore[arg-type]
