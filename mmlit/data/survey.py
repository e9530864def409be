"""A split as it is: what can be used of it, and every row that cannot."""

from collections.abc import Collection, Iterable
from typing import NamedTuple, Protocol, runtime_checkable

import numpy as np
import pyarrow as pa

from mmlit.data.captions import Captions


class BadRow(NamedTuple):
    """A row that cannot be used: `place` is its file and number, below the root; `what` follows it in a sentence."""

    place: str
    what: str


class Survey(NamedTuple):
    """The usable pairs of a split, or None if there are none, and all bad rows.

    `places` (M,) where each caption stands; `first` (N,) the number of each image's first row, for tables.
    """

    captions: Captions | None
    places: pa.Array | None
    bad: list[BadRow]
    first: np.ndarray | None = None

    def beside(self, others: dict[str, tuple[int, str]] | None) -> "Survey":
        """It, with what is known of the table's other splits."""
        return self if self.captions is None else self._replace(captions=self.captions._replace(others=others))


@runtime_checkable
class Surveyable(Protocol):
    """A source that does not stop at the first bad row when it is asked for all of them."""

    def survey(self, split: str) -> Survey:
        """One split, or several joined by `+`."""


def counted(count: int, thing: str) -> str:
    """`1 row`, `2 rows`."""
    return f"{count:,} {thing}{'s' * (count != 1)}"


def unnamed_splits(parts: Iterable[Captions], named: Collection[str]) -> dict[str, tuple[int, str]]:
    """Splits of the tables of `parts` that are not among `named`: rows, and where the first stands."""
    others = {name: told for captions in parts for name, told in (captions.others or {}).items()}
    return {name: told for name, told in others.items() if name not in named}


def sound(survey: Survey, *, root: object, source: object) -> Captions:
    """The captions of a split that has no bad row.

    Raises:
        ValueError: naming the first bad row, or that there is none at all.
    """
    if survey.bad:
        place, what = survey.bad[0]
        count = f"{len(survey.bad):,} such rows in this split; " if len(survey.bad) > 1 else ""
        raise ValueError(f"{root}/{place} {what} ({count}mmlit data check lists what is wrong in all splits)")
    if survey.captions is None:
        raise ValueError(f"{source}: no pairs in it")
    return survey.captions
