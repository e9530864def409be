"""The best items of queries: of one block of scores, and over blocks that come one after another."""

import torch
import torch.nn.functional as F
from torch import Tensor

#: how many retrieved ids are kept per query
TOP = 10


def best(scores: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """The k highest of fp32 scores (B,C) per row and their columns; of equals the first, which `topk` leaves open."""
    values, index = scores.topk(min(k + 1, scores.shape[1]), dim=1)
    tied = (values[:, 1:] == values[:, :-1]).any(1).nonzero().flatten()
    if len(tied):
        values[tied], index[tied] = _first_of_equals(scores[tied], values.shape[1])
    return values[:, :k], index[:, :k]


def _first_of_equals(scores: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """As `best`, from integers that no two scores of a row share."""
    bits = (scores + 0.0).view(torch.int32)  # adding 0 makes one zero of −0 and 0
    order = bits ^ ((bits >> 31) & (2**31 - 1))  # integers that compare as the floats do
    key = order.long() * 2**31 - torch.arange(scores.shape[1], device=scores.device)
    index = (-key.topk(k, dim=1).values) % 2**31
    return scores.gather(1, index), index


class Top:
    """The best items of a block of queries, over blocks of items; of equals the first in the gallery.

    What beats a query's tenth is noted, and sorted in when there are enough notes: the longer the gallery, the rarer.
    """

    def __init__(self, num_queries: int, device: torch.device) -> None:
        self.score = torch.full((num_queries, TOP), -torch.inf, device=device)
        self.index = torch.full((num_queries, TOP), -1, device=device)
        self.notes: list[tuple[Tensor, Tensor, Tensor]] = []
        self.num_notes = 0

    def update(self, start: int, scores: Tensor) -> None:
        """Scores (Q,C) of the queries with the items from number `start` on; items come in their order."""
        if start == 0:
            near, at = best(scores, min(TOP, scores.shape[1]))
            self.score[:, : near.shape[1]], self.index[:, : near.shape[1]] = near, at
            return
        query, at, near = _above(scores, self.score[:, -1])
        self.notes.append((query, start + at, near))
        self.num_notes += len(query)
        if self.num_notes >= 2 * TOP * len(self.score):
            self.settle()

    def settle(self) -> None:
        """Sorts the notes in."""
        if not self.num_notes:
            return
        query, index, near = (torch.cat(part) for part in zip(*self.notes, strict=True))
        self.notes, self.num_notes = [], 0
        query, order = query.sort(stable=True)
        asking, row, count = query.unique_consecutive(return_inverse=True, return_counts=True)
        place = TOP + torch.arange(len(row), device=row.device) - (count.cumsum(0) - count)[row]
        width = TOP + int(count.max())
        scores, items = (
            torch.cat([part[asking], part.new_full((len(asking), width - TOP), fill)], 1)
            for part, fill in ((self.score, -torch.inf), (self.index, -1))
        )
        scores[row, place], items[row, place] = near[order], index[order]
        self.score[asking], at = best(scores, TOP)
        self.index[asking] = items.gather(1, at)


def _above(scores: Tensor, bound: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Rows, columns and values of the scores above their row's bound, by row; few are, and few runs are looked into."""
    runs, highest = _runs(scores)
    row, run = (highest > bound[:, None]).nonzero(as_tuple=True)
    near = runs[row, run]
    found, place = (near > bound[row, None]).nonzero(as_tuple=True)
    return row[found], run[found] * runs.shape[2] + place, near[found, place]


def _runs(scores: Tensor) -> tuple[Tensor, Tensor]:
    """Neighbours of each row together (B,G,R), with −∞ at the end, and the highest of each run (B,G)."""
    length = 32 if scores.is_contiguous() else 8  # neighbours that lie apart are costlier to read
    gap = -scores.shape[1] % length
    padded = F.pad(scores, (0, gap), value=-torch.inf) if gap else scores
    runs = padded.unflatten(1, (-1, length))
    return runs, runs.permute(1, 2, 0).amax(1).T
