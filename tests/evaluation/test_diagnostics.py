"""Diagnostics of an embedding space, against cases worked by hand on the unit circle."""

import math
from collections.abc import Sequence

import pytest
import torch
from evaluation.galleries import captions, gallery
from torch import Tensor

from mmlit.contracts import Encoded
from mmlit.evaluation import diagnostics
from mmlit.evaluation.diagnostics import (
    diagnose,
    effective_rank,
    hubness,
    modality_gap,
    mutual_knn,
    pair_alignment,
    recall_by_length,
    uniformity,
)
from mmlit.evaluation.ranking import Gallery, Ranking, rank_all


def circle(*degrees: float) -> Tensor:
    angle = torch.tensor(degrees).deg2rad()
    return torch.stack([angle.cos(), angle.sin()], 1)


def around(count: int) -> Tensor:
    """Evenly spaced points."""
    return circle(*(360 * i / count for i in range(count)))


def near(value: float) -> object:
    return pytest.approx(value, abs=1e-5)


def embedded(image: Tensor, text: Tensor, owner: Sequence[int]) -> tuple[Gallery, Ranking]:
    """A gallery of these vectors and its ranking by cosine."""
    encoded = [Encoded(torch.zeros(len(x), 0, 2), x, torch.zeros(len(x), 0).bool()) for x in (image, text)]
    gal = gallery(owner, len(image))._replace(image=encoded[0], text=encoded[1])
    return gal, rank_all(lambda one, other: one.pooled @ other.pooled.T, gal, image_block=4, text_block=4)


def test_modality_gap() -> None:
    """Means of ±60° and of 180° ± 60° are (½, 0) and (−½, 0); all at 0° and all at 90° are √2 apart."""
    assert modality_gap(circle(60, -60), circle(120, 240)) == near(1)
    assert modality_gap(circle(0, 0, 0), circle(90)) == near(math.sqrt(2))
    assert modality_gap(circle(10, 50), circle(50, 10, 10, 50)) == near(0)


def test_alignment_of_pairs() -> None:
    """The squared distance at angle θ is 2 − 2 cos θ: 0, 1, 2 and 4 at 0°, 60°, 90° and 180°."""
    assert pair_alignment(circle(0, 10, 30, 90), circle(0, 70, 120, 270)) == near((0 + 1 + 2 + 4) / 4)


def test_uniformity_by_hand() -> None:
    """Opposite points: exp(−2 · 4); a triangle: exp(−2 · 3); coinciding points: 1."""
    assert uniformity(circle(20, 200)) == near(-8)
    assert uniformity(circle(0, 120, 240)) == near(-6)
    assert uniformity(circle(15, 15, 15, 15)) == near(0)
    one_apart = (1 + 2 * math.exp(-4)) / 3  # two at 0°, one at 90°: squared distances 0, 2, 2
    assert uniformity(circle(0, 0, 90)) == near(math.log(one_apart))


def test_uniformity_of_the_whole_circle_is_its_integral() -> None:
    """The mean over all pairs, also a point with itself, is exp(−4) · I₀(4); more points than a block holds."""
    count = 2 * diagnostics.BLOCK + 7
    integral = math.exp(-4) * torch.special.i0(torch.tensor(4.0)).item()
    assert uniformity(around(count)) == near(math.log((count * integral - 1) / (count - 1)))


def test_effective_rank() -> None:
    """Equal singular values count fully, one alone is 1, and shares of ¾ and ¼ give exp of their entropy."""
    assert effective_rank(torch.eye(6)) == near(6)
    assert effective_rank(torch.eye(3).repeat(50, 1)) == near(3)
    assert effective_rank(torch.eye(40)[:4]) == near(4)  # fewer vectors than dimensions
    assert effective_rank(torch.ones(30, 20)) == pytest.approx(1, abs=1e-3)
    entropy = -(0.75 * math.log(0.75) + 0.25 * math.log(0.25))
    assert effective_rank(torch.diag(torch.tensor([3.0, 1.0, 0.0]))) == near(math.exp(entropy))


def test_effective_rank_is_that_of_the_singular_values() -> None:
    vectors = torch.randn(2 * diagnostics.BLOCK + 5, 9, generator=torch.Generator().manual_seed(0)) * torch.arange(9)
    for matrix in (vectors, vectors[:6], vectors.T):
        share = torch.linalg.svdvals(matrix.double())
        share = (share / share.sum())[share > 1e-9]
        assert effective_rank(matrix) == pytest.approx((-(share * share.log()).sum()).exp().item(), rel=1e-6)


def test_hubness() -> None:
    """Four queries that all find item 0 of four: counts 4, 0, 0, 0, mean 1, variance 3, third moment 6."""
    alone = torch.tensor([[0] + [-1] * 9] * 4)
    assert hubness(alone, 4) == near(6 / 3**1.5)
    assert hubness(torch.tensor([[0, 1, -1], [1, 0, -1]]), 2) == 0
    assert hubness(torch.tensor([[0, 1, 2], [1, 2, 0]]), 4) == near(-6 * 0.25 / (0.75 * 4) ** 1.5 * 4)


def test_mutual_neighbours_by_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    """One neighbour each. By the images 0–1 and 2–3 lie together, by the texts 0–1 and, for 2, 1; for 3, 2."""
    monkeypatch.setattr(diagnostics, "NEIGHBOURS", 1)
    image, text = circle(0, 10, 90, 95), circle(0, 10, 30, 95)
    assert mutual_knn(image, text) == 3 / 4  # neighbours 1, 0, 3, 2 and 1, 0, 1, 2
    assert mutual_knn(image, image) == 1
    assert mutual_knn(circle(0, 1, 90, 91), circle(0, 90, 1, 91)) == 0


def test_mutual_neighbours_equal_the_loops(monkeypatch: pytest.MonkeyPatch) -> None:
    """In blocks and at once; unrelated sides share k / (N − 1) of their neighbours on average."""
    image, text = torch.nn.functional.normalize(
        torch.randn(2, 57, 8, generator=torch.Generator().manual_seed(3)), dim=2
    )
    text = torch.nn.functional.normalize(image + text, dim=1)
    nearest = [
        [set(sorted((j for j in range(57) if j != i), key=lambda j, i=i, c=c: -c[i][j])[:10]) for i in range(57)]
        for c in ((image @ image.T).tolist(), (text @ text.T).tolist())
    ]
    expected = sum(len(one & other) for one, other in zip(*nearest, strict=True)) / 570
    for block in (1, 7, 57, 512):
        monkeypatch.setattr(diagnostics, "BLOCK", block)
        assert mutual_knn(image, text) == pytest.approx(expected)
    assert 0.2 < expected < 0.9


def test_recall_by_length() -> None:
    """Nine texts in thirds by their words; ranks 1 are hits."""
    words = torch.tensor([9, 3, 12, 5, 4, 8, 7, 20, 15])
    rank = torch.tensor([1, 1, 1, 2, 1, 9, 1, 2, 4])
    assert recall_by_length(rank, words) == {
        "short_max_words": 5,
        "medium_max_words": 9,
        "t2i_r1_short": near(200 / 3),
        "t2i_r1_medium": near(200 / 3),
        "t2i_r1_long": near(100 / 3),
    }


def test_texts_of_one_length_stay_together() -> None:
    """Eight of ten have 7 words: they are all short, and no third is medium."""
    words = torch.tensor([7, 7, 7, 7, 9, 7, 7, 7, 7, 11])
    found = recall_by_length(torch.tensor([1, 2, 2, 2, 1, 1, 2, 2, 2, 2]), words)
    assert found == {"short_max_words": 7, "medium_max_words": 7, "t2i_r1_short": 25.0, "t2i_r1_long": 50.0}
    alike = recall_by_length(torch.tensor([1, 2]), torch.tensor([4, 4]))
    assert alike == {"short_max_words": 4, "medium_max_words": 4, "t2i_r1_short": 50.0}


def test_all_of_a_gallery() -> None:
    """Two images 90° apart, two captions each, turned by 30°; lengths of vectors do not matter."""
    image, text = circle(0, 90) * torch.tensor([[2.0], [0.3]]), circle(30, 30, 120, 120) * 5
    gal, ranking = embedded(image, text, captions([2, 2]))
    gap = 2 * math.sin(math.radians(15)) * math.sqrt(0.5)  # both means have length √½, 30° apart
    assert diagnose(gal, ranking, num_words=torch.tensor([3, 5, 3, 5])) == {
        "modality_gap": near(gap),
        "pair_alignment": near(2 - math.sqrt(3)),
        "image_uniformity": near(-4),
        "text_uniformity": near(math.log((2 + 4 * math.exp(-4)) / 6)),
        "image_effective_rank": near(2),
        "text_effective_rank": near(2),
        "i2t_hubness": 0,
        "t2i_hubness": 0,
        "mutual_knn": 1,
        "short_max_words": 3,
        "medium_max_words": 5,
        "t2i_r1_short": 100,
        "t2i_r1_medium": 100,
    }


def test_texts_in_any_order(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pairs are found by their ids; without word counts there is no recall by length."""
    monkeypatch.setattr(diagnostics, "NEIGHBOURS", 1)
    points, order = circle(0, 10, 30, 70, 150), [3, 0, 4, 1, 2]
    gal, ranking = embedded(points, points[order], order)
    found = diagnose(gal, ranking, num_words=None)
    assert found["pair_alignment"] == near(0)
    assert found["mutual_knn"] == 1
    assert not any(name.startswith(("t2i_r1", "short")) for name in found)


def test_every_caption_of_an_image_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Captions at −80° and 80° have the mean 0°, where their image stands; either alone has another neighbour."""
    monkeypatch.setattr(diagnostics, "NEIGHBOURS", 1)
    image, text = circle(0, 60, 260), circle(-80, 80, 60, 260)
    gal, ranking = embedded(image, text, [0, 0, 1, 2])
    assert diagnose(gal, ranking, num_words=None)["mutual_knn"] == 1
    assert mutual_knn(image, text[[0, 2, 3]]) < 1
    assert mutual_knn(image, text[[1, 2, 3]]) < 1


def test_one_item_is_refused() -> None:
    gal, ranking = embedded(circle(0), circle(0, 1), [0, 0])
    with pytest.raises(ValueError, match="at least 2 images and 2 texts, got 1 and 2"):
        diagnose(gal, ranking, num_words=None)


def test_word_counts_of_other_texts_are_refused() -> None:
    gal, ranking = embedded(circle(0, 90), circle(0, 90), [0, 1])
    with pytest.raises(ValueError, match=r"num_words must have one number per text, got \(3,\) for 2 texts"):
        diagnose(gal, ranking, num_words=torch.tensor([1, 2, 3]))
