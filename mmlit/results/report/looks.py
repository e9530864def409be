"""One colour, dash and mark per row, the same in every plot and table of a report."""

from collections.abc import Sequence
from typing import NamedTuple

from mmlit.results.labels import FIRST_AXIS
from mmlit.results.rows import Group

COLOURS = 8
"""How many there are; the page gives each a shade for light and one for dark."""

_DASHES = ("-", (0, (5, 2)), (0, (1.5, 1.5)), (0, (6, 2, 1.5, 2)))
_MARKS = "osD^vPX*"

Dash = str | tuple[float, tuple[float, ...]]


class Look(NamedTuple):
    """The number of a colour, and what tells rows of one colour apart."""

    colour: int
    dash: Dash
    mark: str


def looks(groups: Sequence[Group]) -> list[Look]:
    """A colour for each strategy where rows differ in it, else for each row; its rows by dash; marks repeat colours."""
    strategies = [str(group.identity.choices.get(FIRST_AXIS)) for group in groups]
    if len(set(strategies)) < 2:
        strategies = [str(i) for i in range(len(groups))]
    known = list(dict.fromkeys(strategies))
    found = []
    for place, strategy in enumerate(strategies):
        number, before = known.index(strategy), strategies[:place].count(strategy)
        mark = _MARKS[(number % COLOURS + number // COLOURS) % len(_MARKS)]
        found.append(Look(number % COLOURS, _DASHES[before % len(_DASHES)], mark))
    return found
