"""Galleries made by hand, scores looked up in a matrix, and the protocol in plain loops."""

from collections.abc import Sequence

import torch
from torch import Tensor

from mmlit.contracts import Encoded
from mmlit.evaluation.ranking import Gallery, Ranking


def numbered(count: int) -> Encoded:
    """Items whose embedding is their number."""
    return Encoded(
        torch.zeros(count, 0, 1), torch.arange(float(count))[:, None], torch.zeros(count, 0, dtype=torch.bool)
    )


def gallery(owner: Sequence[int], num_images: int) -> Gallery:
    """Images 0 … with ids 1000 …, texts 0 … with ids 5000 …; text m belongs to image number `owner[m]`."""
    return Gallery(
        numbered(num_images),
        numbered(len(owner)),
        1000 + torch.arange(num_images),
        5000 + torch.arange(len(owner)),
        1000 + torch.tensor(owner),
    )


class LookUp:
    """A score function that reads a matrix by the items' numbers and notes the blocks it was asked for."""

    def __init__(self, scores: Tensor) -> None:
        self.scores = scores
        self.asked: list[tuple[int, int]] = []

    def __call__(self, image: Encoded, text: Encoded) -> Tensor:
        rows, columns = image.pooled[:, 0].long(), text.pooled[:, 0].long()
        self.asked.append((len(rows), len(columns)))
        return self.scores[rows][:, columns]

    @property
    def largest(self) -> int:
        """Scores in the largest block."""
        return max(rows * columns for rows, columns in self.asked)


def captions(counts: Sequence[int]) -> list[int]:
    """Owners for this many captions of each image."""
    return [image for image, count in enumerate(counts) for _ in range(count)]


def coarse_numbers(seed: int, *shape: int, levels: int) -> Tensor:
    """Random scores of few values, so that ties abound."""
    return torch.randint(levels, shape, generator=torch.Generator().manual_seed(seed)) / levels - 0.5


def ranked_by_loops(scores: list[list[float]], true: list[list[bool]]) -> tuple[list[int], list[list[int]]]:
    """Of each row: 1 + the number of wrong items that score at least as high as the best true one; the ten best."""
    ranks, tops = [], []
    for row, own in zip(scores, true, strict=True):
        best = max(score for score, is_own in zip(row, own, strict=True) if is_own)
        ranks.append(1 + sum(score >= best for score, is_own in zip(row, own, strict=True) if not is_own))
        tops.append(first_ten(sorted(range(len(row)), key=lambda item, row=row: (-row[item], item))))
    return ranks, tops


def first_ten(items: list[int]) -> list[int]:
    """The first ten, filled up with −1."""
    return (items + [-1] * 10)[:10]


def transposed(matrix: list[list[float]]) -> list[list[float]]:
    return [list(column) for column in zip(*matrix, strict=True)]


def truth(gal: Gallery) -> list[list[bool]]:
    """Which text belongs to which image."""
    return [[int(i) == int(owner) for owner in gal.text_image_id] for i in gal.image_id]


def full_by_loops(scores: Tensor, gal: Gallery) -> Ranking:
    """`rank_all` in plain loops."""
    rows, true = scores.tolist(), truth(gal)
    i2t, t2i = ranked_by_loops(rows, true), ranked_by_loops(transposed(rows), transposed(true))  # type: ignore[arg-type]
    return Ranking(*(torch.tensor(part) for part in (*i2t, *t2i)))


def same(one: Ranking, other: Ranking) -> bool:
    """All four parts equal."""
    return all(torch.equal(left, right) for left, right in zip(one, other, strict=True))
