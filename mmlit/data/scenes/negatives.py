"""Hard negatives: a caption of the scene, and the same words changed so little that it is just not true any
more.

The kinds carry SugarCrepe's names, and each item changes one thing:

- `swap_att`: two things exchange their colours or their sizes.
- `swap_obj`: two things exchange their places in the sentence, attributes and all.
- `replace_rel`: a relation turns into its opposite.
- `replace_obj`: a shape is replaced by one that the picture does not show.
- `replace_att`: a colour is replaced by one that the picture does not show, or a size by the other.
- `replace_colour`, `replace_size`: the two halves of `replace_att`, each alone.
- `replace_count`: one count turns into another number, never one that the rest of the caption rules out
  ("two shapes, three of them red"): a reader who sees no picture finds nothing wrong with it.

By kind of mistake: colour is `replace_colour`, shape `replace_obj`, size `replace_size`, relation
`replace_rel`, count `replace_count`.

Every change is checked against the scene: the caption is true, the negative is false. Outside the test
split no negative speaks of a held-out combination, which would give it away.
"""

import itertools
from collections.abc import Callable, Iterator, Sequence
from math import prod
from typing import NamedTuple

import numpy as np

from mmlit.data.scenes.captions import Caption
from mmlit.data.scenes.meaning import (
    OPPOSITE,
    VOCABULARY,
    Description,
    Form,
    SceneTable,
    holds,
    tabulate,
    well_formed,
)
from mmlit.data.scenes.wording import say
from mmlit.data.scenes.world import MAX_OBJECTS, Scene, allowed_pairs


class Negative(NamedTuple):
    """A caption that is true of the scene and a changed one that is false."""

    caption: str
    negative_caption: str


def draw_negatives(
    *, rng: np.random.Generator, scene: Scene, captions: Sequence[Caption], split: str
) -> dict[str, Negative]:
    """Draw at most one negative of each kind; a kind for which no caption of the scene can be changed is
    absent."""
    table = tabulate([scene])
    drawn = {}
    for kind, change in CHANGES.items():
        options = [(caption, form) for caption in captions for form in change(caption.form, scene)]
        # Small numbers are the more frequent in captions. A number falls where one can, which is in about half of all
        # items: frequency does not tell which is the caption. Other kinds leave numbers, and so this order, alone.
        order = sorted(rng.permutation(len(options)), key=lambda index: _growth(*options[index]) > 0)
        for index in order:
            caption, form = options[index]
            if _usable(form=form, table=table, split=split):
                text = say(form=form, pattern=caption.pattern, wording=caption.wording)
                drawn[kind] = Negative(caption=caption.text, negative_caption=text)
                break
    return drawn


def _growth(caption: Caption, form: Form) -> int:
    """Return by how much the numbers of a changed form are higher than those of its caption, all together."""
    return sum(count.number for count in form.counts) - sum(count.number for count in caption.form.counts)


def _usable(*, form: Form, table: SceneTable, split: str) -> bool:
    """Say whether the changed form is false, well formed, and without combinations that the split does not
    have."""
    pairs = allowed_pairs(split)
    known = all((what.colour, what.shape) in pairs for what in _whats(form) if what.colour and what.shape)
    return known and well_formed(form) and not holds(form, table)[0]


def _swap_attributes(form: Form, scene: Scene) -> Iterator[Form]:
    for (i, a), (j, b) in itertools.combinations(enumerate(_whats(form)), 2):
        if a.colour and b.colour and a.colour != b.colour:
            yield _with(form, {i: a._replace(colour=b.colour), j: b._replace(colour=a.colour)})
        if a.size and b.size and a.size != b.size:
            yield _with(form, {i: a._replace(size=b.size), j: b._replace(size=a.size)})


def _swap_objects(form: Form, scene: Scene) -> Iterator[Form]:
    for (i, a), (j, b) in itertools.combinations(enumerate(_whats(form)), 2):
        if any(a) and any(b):
            yield _with(form, {i: b, j: a})


def _replace_relations(form: Form, scene: Scene) -> Iterator[Form]:
    # All relations of one name together: "left of both a star and a cross" says one word for two relations.
    for name in sorted({relation.name for relation in form.relations}):
        turned = (r._replace(name=OPPOSITE[name]) if r.name == name else r for r in form.relations)
        yield form._replace(relations=tuple(turned))


def _replace_shapes(form: Form, scene: Scene) -> Iterator[Form]:
    for index, what in enumerate(_whats(form)):
        for word in _absent("shape", scene) if what.shape else ():
            yield _with(form, {index: what._replace(shape=word)})


def _replace_attributes(form: Form, scene: Scene) -> Iterator[Form]:
    for index, what in enumerate(_whats(form)):
        yield from _other_colours(form, scene, index, what)
        yield from _other_size(form, index, what)


def _replace_colours(form: Form, scene: Scene) -> Iterator[Form]:
    for index, what in enumerate(_whats(form)):
        yield from _other_colours(form, scene, index, what)


def _replace_sizes(form: Form, scene: Scene) -> Iterator[Form]:
    for index, what in enumerate(_whats(form)):
        yield from _other_size(form, index, what)


def _other_colours(form: Form, scene: Scene, index: int, what: Description) -> Iterator[Form]:
    for word in _absent("colour", scene) if what.colour else ():
        yield _with(form, {index: what._replace(colour=word)})


def _other_size(form: Form, index: int, what: Description) -> Iterator[Form]:
    if what.size:
        yield _with(form, {index: what._replace(size="small" if what.size == "large" else "large")})


def _replace_counts(form: Form, scene: Scene) -> Iterator[Form]:
    for place, count in enumerate(form.counts):
        # The grammar counts everything ("only", "three shapes: …") where it lists everything: not to be changed alone.
        if form.objects and not any(count.what):
            continue
        # The first count is always a plural: "there are two squares".
        for number in range(1 if place else 2, MAX_OBJECTS + 1):
            counts = (*form.counts[:place], count._replace(number=number), *form.counts[place + 1 :])
            changed = form._replace(counts=counts)
            if number != count.number and _adds_up(changed):
                yield changed


def _adds_up(form: Form) -> bool:
    """Say whether some scene may show so many things: no two are alike, and no two entries of a form overlap."""
    everything = [count.number for count in form.counts if not any(count.what)]
    counts = [count for count in form.counts if any(count.what)]
    listed = len(form.objects) + sum(count.number for count in counts)
    return listed <= min([MAX_OBJECTS, *everything]) and all(number <= _kinds(what) for what, number in counts)


def _kinds(what: Description) -> int:
    """Return how many things that differ in some word fit the description."""
    return prod(len(VOCABULARY[name]) for name, word in what._asdict().items() if word is None)


CHANGES: dict[str, Callable[[Form, Scene], Iterator[Form]]] = {
    "swap_att": _swap_attributes,
    "swap_obj": _swap_objects,
    "replace_rel": _replace_relations,
    "replace_obj": _replace_shapes,
    "replace_att": _replace_attributes,
    # Last, so that the same random numbers go to the kinds above as before there were these.
    "replace_colour": _replace_colours,
    "replace_size": _replace_sizes,
    "replace_count": _replace_counts,
}


def _absent(attribute: str, scene: Scene) -> list[str]:
    """Return the words for the attribute that fit nothing in the scene."""
    present = {getattr(item, attribute) for item in scene.objects}
    return [word for word in VOCABULARY[attribute] if word not in present]


def _whats(form: Form) -> list[Description]:
    """Return every description of a form: those of its objects, then those of its counts."""
    return [*form.objects, *(count.what for count in form.counts)]


def _with(form: Form, changed: dict[int, Description]) -> Form:
    """Put other descriptions into the form, by their places in `_whats`."""
    whats = [changed.get(index, what) for index, what in enumerate(_whats(form))]
    objects, rest = whats[: len(form.objects)], whats[len(form.objects) :]
    counts = tuple(count._replace(what=what) for count, what in zip(form.counts, rest, strict=True))
    return form._replace(objects=tuple(objects), counts=counts)
