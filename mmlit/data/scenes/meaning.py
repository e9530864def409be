"""What a caption says, as a small logical expression, and of which scenes it is true.

This is the only place that decides truth; captions, hard negatives and true pairs all ask it.

A `Form` has objects, relations among them, and counts. It is true of a scene if and only if both of these
hold:

- There are *distinct* things in the scene, one for each entry of `objects`, such that every thing fits its
  description (a description's attribute that is None fits anything) and every relation holds between them:
  "a red circle and a blue square", "a red circle left of a blue square".
- For every entry of `counts`, the number of things that fit the description is *exactly* the number given:
  "two squares" is false of a picture with three, and "a square" (an object, not a count) is true of it.

Relations compare centres: a is left of b where b's centre lies at least `world.APART` (0.18 of the
picture's side) further right, and above b where b's centre lies at least that much further down; right and
below are the converses. Both axes are judged on their own, so a thing may be left of another *and* above
it.
"""

import itertools
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from mmlit.data.scenes.world import APART, COLOURS, MAX_OBJECTS, SHAPES, SIZES, Scene, SceneObject

OPPOSITE = {"left": "right", "right": "left", "above": "below", "below": "above"}


class Description(NamedTuple):
    """What is said of an object; None where the attribute is not mentioned."""

    shape: str | None = None
    colour: str | None = None
    size: str | None = None


class Relation(NamedTuple):
    """`objects[subject]` is left, right, above or below (`name`) of `objects[target]`."""

    subject: int
    name: str
    target: int


class Count(NamedTuple):
    """Exactly `number` things fit `what`."""

    what: Description
    number: int


class Form(NamedTuple):
    """The meaning of a caption; its parts stand in the order in which the caption says them."""

    objects: tuple[Description, ...] = ()
    relations: tuple[Relation, ...] = ()
    counts: tuple[Count, ...] = ()


class SceneTable(NamedTuple):
    """N scenes as arrays, things along the first axis, so that one form is checked on all scenes at once.

    `words` maps an attribute's name to (4, N) indices, -1 where the scene has no such thing; `relations`
    maps a relation's name to (4, 4, N) booleans, subject first.
    """

    words: dict[str, np.ndarray]
    relations: dict[str, np.ndarray]


VOCABULARY = {"shape": SHAPES, "colour": COLOURS, "size": SIZES}


def tabulate(scenes: Sequence[Scene]) -> SceneTable:
    """Turn scenes into the arrays that `holds` reads."""
    words = {name: np.full((MAX_OBJECTS, len(scenes)), -1, dtype=np.int8) for name in VOCABULARY}
    # NaN compares false with everything: a missing thing stands in no relation.
    centres = np.full((2, MAX_OBJECTS, len(scenes)), np.nan)
    for column, scene in enumerate(scenes):
        for row, item in enumerate(scene.objects):
            centres[:, row, column] = item.centre
            for name, known in VOCABULARY.items():
                words[name][row, column] = known.index(getattr(item, name))
    # `further[axis][a, b]`: b's centre lies clearly further along the axis than a's.
    further = centres[:, None, :, :] - centres[:, :, None, :] >= APART
    left, above = further
    relations = {"left": left, "above": above, "right": left.swapaxes(0, 1), "below": above.swapaxes(0, 1)}
    return SceneTable(words=words, relations=relations)


def holds(form: Form, table: SceneTable) -> np.ndarray:
    """Return (N,) booleans: is the form true of each scene? See the head of this module for the rules."""
    number = table.words["shape"].shape[1]
    true = np.ones(number, dtype=bool)
    for what, count in form.counts:
        true &= _fitting(what, table).sum(axis=0) == count
    return true & _exists(form, table) if form.objects else true


def _exists(form: Form, table: SceneTable) -> np.ndarray:
    """Return (N,) booleans: do distinct things fit the objects and their relations?"""
    fitting = [_fitting(what, table) for what in form.objects]
    found = np.zeros(fitting[0].shape[1], dtype=bool)
    for things in itertools.permutations(range(MAX_OBJECTS), len(fitting)):
        here = fitting[0][things[0]].copy()
        for candidates, thing in zip(fitting[1:], things[1:], strict=True):
            here &= candidates[thing]
        for subject, name, target in form.relations:
            here &= table.relations[name][things[subject], things[target]]
        found |= here
    return found


def _fitting(what: Description, table: SceneTable) -> np.ndarray:
    """Return (4, N) booleans: which things of each scene fit the description?"""
    fit = table.words["shape"] >= 0
    for name, known in VOCABULARY.items():
        word = getattr(what, name)
        if word is not None:
            fit = fit & (table.words[name] == known.index(word))
    return fit


def describe(item: SceneObject) -> Description:
    """Return the full description of an object."""
    return Description(shape=item.shape, colour=item.colour, size=item.size)


def related(*, subject: SceneObject, target: SceneObject) -> tuple[str, ...]:
    """Return the names of the relations in which `subject` stands to `target`."""
    table = tabulate([Scene(objects=(subject, target), background="plain")])
    return tuple(name for name, matrix in table.relations.items() if matrix[0, 1, 0])


def well_formed(form: Form) -> bool:
    """Say whether no thing could be taken for two of those that the form lists.

    A count without attributes ("three shapes, two of them red") is of everything; the rest is part of it.
    """
    listed = [*form.objects, *(count.what for count in form.counts if any(count.what))]
    return all(_apart(a, b) for a, b in itertools.combinations(listed, 2))


def _apart(first: Description, second: Description) -> bool:
    """Say whether nothing fits both descriptions."""
    return any(a and b and a != b for a, b in zip(first, second, strict=True))
