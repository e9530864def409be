"""The grammar: the kinds of captions, each a rule and the patterns that can say what it builds.

The weights make most captions specific (two or three objects with their attributes) and leave some vague.
"""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import numpy as np

from mmlit.data.scenes import rules
from mmlit.data.scenes.meaning import Form
from mmlit.data.scenes.world import Scene

Builder = Callable[[np.random.Generator, Scene], Form | None]


class Kind(NamedTuple):
    """A kind of caption: `bodies` are noun phrases that may follow an opening, `sentences` stand alone.

    `weight` is relative to the other kinds, before rules that do not apply are left out.
    """

    weight: int
    build: Builder
    bodies: tuple[str, ...]
    sentences: tuple[str, ...] = ()


KINDS = (
    Kind(1, partial(rules.some, number=1, only=False), ("{0}",), ("there is {0}",)),
    Kind(
        3,
        partial(rules.some, number=2, only=False),
        ("{0} and {1}", "{0} together with {1}", "both {0} and {1}"),
        ("there is {0} and there is {1}", "there is {0} and also {1}"),
    ),
    Kind(4, partial(rules.some, number=3, only=False), ("{0}, {1} and {2}",), ("there is {0}, {1} and {2}",)),
    Kind(
        2,
        partial(rules.some, number=2, only=True),
        ("only {0} and {1}", "nothing but {0} and {1}", "just {0} and {1}"),
    ),
    Kind(2, partial(rules.some, number=3, only=True), ("{n0}: {0}, {1} and {2}",)),
    Kind(
        7,
        partial(rules.relation, number=2, reverse=False),
        ("{0} {r0} {1}",),
        ("{0} is {r0} {1}", "{r0} {1} there is {0}", "there is {0} {r0} {1}"),
    ),
    Kind(
        3,
        partial(rules.relation, number=2, reverse=True),
        ("{0} with {1} {p0}",),
        ("there is {0} and, {p0}, {1}",),
    ),
    Kind(
        2,
        partial(rules.relation, number=3, reverse=False),
        ("{0} {r0} {1}, and also {2}",),
        ("{0} is {r0} {1}, and there is also {2}",),
    ),
    Kind(2, rules.diagonal, ("{0} {v0} and {r1} {1}",), ("{0} is {v0} and {r1} {1}",)),
    Kind(
        2,
        partial(rules.two_targets, same=False),
        ("{0} {r0} {1} and {r1} {2}",),
        ("{0} is {r0} {1} and {r1} {2}",),
    ),
    Kind(
        2,
        partial(rules.two_targets, same=True),
        ("{0} {r0} both {1} and {2}",),
        ("{0} is {r0} both {1} and {2}",),
    ),
    Kind(1, partial(rules.count, others=0), ("{n0}",), ("there are {n0}",)),
    Kind(4, partial(rules.count, others=1), ("{n0} and {0}",), ("there are {n0} and {0}",)),
    Kind(2, partial(rules.count, others=2), ("{n0}, {0} and {1}",), ("there are {n0}, {0} and {1}",)),
    Kind(2, rules.two_counts, ("{n0} and {n1}",), ("there are {n0} and {n1}",)),
    Kind(1, partial(rules.parts, number=1), ("{n0}, {o1}",), ("there are {n0}, {o1}",)),
    Kind(2, partial(rules.parts, number=2), ("{n0}, {o1} and {o2}",)),
)
