"""The best items of queries: of one block of scores, and over blocks that come one after another."""

import torch
import torch.nn.functional as F
from torch import Tensor

#: how many retrieved ids are kept per query
TOP = 10
#: neighbours whose highest is looked at first, along a row and along a column; what lies apart is costlier to read
_RUN, _RUN_APART = 32, 8
#: scores that count, for each run: where there are more in the first block, all are counted and no run is looked into
_MANY = 1 / 8


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
        self.counts_all = True

    def update(self, start: int, scores: Tensor, least: Tensor) -> Tensor:
        """Takes in scores (Q,C) of the queries with the items from number `start` on; items come in their order.

        Returns how many of a query's scores are at least its `least` (Q,): (Q,).
        """
        runs, highest = _runs(scores)
        bound = self.score[:, -1] if start else _below_tenth(highest)
        asked = highest > bound[:, None]
        if not self.counts_all:
            asked |= highest >= least[:, None]
        row, run = _places(asked)
        near = runs[row, run]
        if self.counts_all:
            count = _at_least(scores, least)
        else:
            count = torch.zeros_like(least).index_add_(0, row, _at_least(near, least[row]))
        if not start:
            self.counts_all = bool(count.sum() > _MANY * highest.numel())
        found, place = (near > bound[row, None]).nonzero(as_tuple=True)
        self.notes.append((row[found], start + run[found] * runs.shape[2] + place, near[found, place]))
        self.num_notes += len(found)
        if not start or self.num_notes >= 2 * TOP * len(self.score):
            self.settle()
        return count.long()

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


def _runs(scores: Tensor) -> tuple[Tensor, Tensor]:
    """Neighbours of each row together (B,G,R), with −∞ at the end, and the highest of each run (B,G)."""
    length = _RUN if scores.is_contiguous() else _RUN_APART
    gap = -scores.shape[1] % length
    padded = F.pad(scores, (0, gap), value=-torch.inf) if gap else scores
    runs = padded.unflatten(1, (-1, length))
    return runs, runs.amax(2) if length == _RUN else runs.permute(1, 2, 0).amax(1).T


def _places(asked: Tensor) -> tuple[Tensor, Tensor]:
    """Rows and columns of what is true (B,G), the columns of a row in order; read as it lies."""
    if asked.is_contiguous():
        row, column = asked.nonzero(as_tuple=True)
    else:
        column, row = asked.T.nonzero(as_tuple=True)
    return row, column


def _below_tenth(highest: Tensor) -> Tensor:
    """What the ten best exceed: the number before that of the tenth highest run (B,G), −∞ with fewer runs: (B,)."""
    if highest.shape[1] < TOP:
        return torch.full_like(highest[:, 0], -torch.inf)
    tenth = highest.topk(TOP, dim=1).values[:, -1]
    return tenth.nextafter(torch.full_like(tenth, -torch.inf))


def _at_least(scores: Tensor, least: Tensor) -> Tensor:
    """How many of each row's scores (B,C) are at least its number (B,): (B,) in fp32."""
    reached = torch.empty_like(scores)  # 0 and 1 in fp32 are counted several times faster than booleans
    return torch.ge(scores, least[:, None], out=reached).sum(1)
