"""The rules of the grammar: each builds a form that is true of the scene it is given.

A rule returns None where the scene does not offer what it needs, or where the caption would be ambiguous.
"""

import numpy as np

from mmlit.data.scenes.meaning import Count, Description, Form, Relation, describe, related, well_formed
from mmlit.data.scenes.world import Scene, SceneObject

# How often an attribute is mentioned; a description without shape and colour is drawn again. No two things
# of a scene share all three, so what is counted is described by fewer.
MENTION = {"shape": 0.93, "colour": 0.9, "size": 0.45}
MENTION_COUNTED = {"shape": 0.6, "colour": 0.5, "size": 0.25}


def some(rng: np.random.Generator, scene: Scene, *, number: int, only: bool) -> Form | None:
    """List `number` objects; `only`: and say that there are no others."""
    picked = _pick(rng, scene, number=number)
    if picked is None or (only and len(scene.objects) != number):
        return None
    counts = (Count(Description(), number),) if only else ()
    return _checked(Form(objects=_mention_each(rng, picked), counts=counts))


def relation(rng: np.random.Generator, scene: Scene, *, number: int, reverse: bool) -> Form | None:
    """Relate two objects and list further ones; `reverse`: tell it from the second object's side."""
    picked = _pick(rng, scene, number=number)
    if picked is None:
        return None
    subject, target = (1, 0) if reverse else (0, 1)
    names = related(subject=picked[subject], target=picked[target])
    if not names:
        return None
    relation = Relation(subject, names[rng.integers(len(names))], target)
    return _checked(Form(objects=_mention_each(rng, picked), relations=(relation,)))


def diagonal(rng: np.random.Generator, scene: Scene) -> Form | None:
    """Relate two objects along both axes, the vertical first."""
    picked = _pick(rng, scene, number=2)
    names = related(subject=picked[0], target=picked[1]) if picked else ()
    if not picked or len(names) != 2:
        return None
    relations = tuple(Relation(0, name, 1) for name in sorted(names, key=("above", "below", "left", "right").index))
    return _checked(Form(objects=_mention_each(rng, picked), relations=relations))


def two_targets(rng: np.random.Generator, scene: Scene, *, same: bool) -> Form | None:
    """Relate one object to two others; `same`: in the same relation to both, otherwise in different ones."""
    picked = _pick(rng, scene, number=3)
    if picked is None:
        return None
    first, second = (related(subject=picked[0], target=target) for target in picked[1:])
    pairs = [(a, b) for a in first for b in second if (a == b) == same]
    if not pairs:
        return None
    names = pairs[rng.integers(len(pairs))]
    relations = (Relation(0, names[0], 1), Relation(0, names[1], 2))
    return _checked(Form(objects=_mention_each(rng, picked), relations=relations))


def count(rng: np.random.Generator, scene: Scene, *, others: int) -> Form | None:
    """Count at least two things that share something, and list `others` that do not."""
    picked = _pick(rng, scene, number=others + 1)
    if picked is None:
        return None
    count = _count_alike(rng, scene, picked[0])
    if count.number < 2:
        return None
    return _checked(Form(objects=_mention_each(rng, picked[1:]), counts=(count,)))


def two_counts(rng: np.random.Generator, scene: Scene) -> Form | None:
    """Count two kinds of things, at least two of the first kind."""
    picked = _pick(rng, scene, number=2)
    counts = tuple(_count_alike(rng, scene, item) for item in picked or ())
    return _checked(Form(counts=counts)) if counts and counts[0].number > 1 else None


def parts(rng: np.random.Generator, scene: Scene, *, number: int) -> Form | None:
    """Count everything, then `number` parts of it."""
    picked = _pick(rng, scene, number=number)
    if picked is None:
        return None
    parts = tuple(_count_alike(rng, scene, item) for item in picked)
    # "one of them small and red and two of them blue" is hard to read.
    if any(what.size and not what.shape for what, _ in parts):
        return None
    return _checked(Form(counts=(Count(Description(), len(scene.objects)), *parts)))


def _pick(rng: np.random.Generator, scene: Scene, *, number: int) -> list[SceneObject] | None:
    """Pick distinct objects in random order; None where the scene has fewer."""
    order = rng.permutation(len(scene.objects))[:number]
    return [scene.objects[index] for index in order] if len(order) == number else None


def _mention_each(rng: np.random.Generator, picked: list[SceneObject]) -> tuple[Description, ...]:
    """Describe each object by some of its attributes, at least its shape or its colour."""
    return tuple(_mention(rng, describe(item), MENTION) for item in picked)


def _count_alike(rng: np.random.Generator, scene: Scene, item: SceneObject) -> Count:
    """Count what shares some attributes with `item`, itself included."""
    what = _mention(rng, describe(item), MENTION_COUNTED)
    alike = [all(a is None or a == b for a, b in zip(what, describe(other), strict=True)) for other in scene.objects]
    return Count(what, sum(alike))


def _mention(rng: np.random.Generator, full: Description, chances: dict[str, float]) -> Description:
    """Keep each attribute with its chance, until the shape or the colour is among them."""
    while True:
        kept = Description(**{name: word for name, word in full._asdict().items() if rng.random() < chances[name]})
        if kept.shape or kept.colour:
            return kept


def _checked(form: Form) -> Form | None:
    return form if well_formed(form) else None
