"""Five captions of a scene, each with its meaning."""

from typing import NamedTuple

import numpy as np

from mmlit.data.scenes.grammar import KINDS, Kind
from mmlit.data.scenes.meaning import OPPOSITE, Form
from mmlit.data.scenes.wording import Wording, draw_wording, say
from mmlit.data.scenes.world import Scene

CAPTIONS_PER_IMAGE = 5
ATTEMPTS = 1000
# Half of the noun phrases stand without an opening, and "there is" belongs to the grammar's sentences.
OPENINGS = (
    "",
    "",
    "",
    "",
    "a picture of ",
    "an image with ",
    "this scene has ",
    "the picture shows ",
    "we see ",
)
WEIGHTS = np.array([kind.weight for kind in KINDS], dtype=float) / sum(kind.weight for kind in KINDS)


class Caption(NamedTuple):
    """A sentence, its meaning, and how it was said."""

    text: str
    form: Form
    pattern: str
    wording: Wording


def draw_captions(*, rng: np.random.Generator, scene: Scene) -> tuple[Caption, ...]:
    """Draw five captions of the scene that differ in their texts and in what they say.

    Raises:
        RuntimeError: The grammar found fewer than five, which no scene of two or more objects should allow.
    """
    captions: dict[str, Caption] = {}
    meanings = set()
    for _ in range(ATTEMPTS):
        kind = KINDS[rng.choice(len(KINDS), p=WEIGHTS)]
        form = kind.build(rng, scene)
        if form is None or _meaning(form) in meanings:
            continue
        caption = _word(rng=rng, kind=kind, form=form)
        if caption.text in captions:
            continue
        captions[caption.text] = caption
        meanings.add(_meaning(form))
        if len(captions) == CAPTIONS_PER_IMAGE:
            return tuple(captions.values())
    raise RuntimeError(f"the grammar found only {len(captions)} captions of {scene}")


def _word(*, rng: np.random.Generator, kind: Kind, form: Form) -> Caption:
    """Say a form in one of its kind's patterns, drawn at random."""
    choice = int(rng.integers(2 * len(kind.bodies) + len(kind.sentences)))
    if choice < 2 * len(kind.bodies):
        pattern = OPENINGS[rng.integers(len(OPENINGS))] + kind.bodies[choice // 2]
    else:
        pattern = kind.sentences[choice - 2 * len(kind.bodies)]
    wording = draw_wording(rng=rng)
    return Caption(text=say(form=form, pattern=pattern, wording=wording), form=form, pattern=pattern, wording=wording)


def _meaning(form: Form) -> tuple[frozenset[object], ...]:
    """Return a key that ignores the order in which things are said and from which side a relation is told."""
    relations = set()
    for subject, name, target in form.relations:
        a, b = form.objects[subject], form.objects[target]
        relations.add((a, name, b) if name in ("left", "above") else (b, OPPOSITE[name], a))
    return frozenset(form.objects), frozenset(relations), frozenset(form.counts)
