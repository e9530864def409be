"""What a scene is made of, and how one is drawn at random.

A scene is a square picture of side 1 with two to four objects, no two of them alike and none touching
another. Coordinates run to the right (x) and down (y), from 0 to 1.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from mmlit.data.scenes.outlines import REACH

SHAPES = ("circle", "square", "triangle", "star", "cross", "diamond")
COLOURS = ("red", "orange", "yellow", "green", "blue", "purple", "black", "white")
SIZES = ("small", "large")
BACKGROUNDS = ("plain", "gradient", "stripes", "checks", "noise")
SPLITS = ("train", "val", "test")
MAX_OBJECTS = 4

# (colour, shape) pairs that only the test split shows: every shape and six of the colours lose one partner,
# so each word is still seen in training, but not this combination.
HELD_OUT = frozenset(
    {
        ("red", "star"),
        ("blue", "circle"),
        ("green", "cross"),
        ("yellow", "square"),
        ("purple", "triangle"),
        ("white", "diamond"),
    }
)

# Along each axis two centres are either nearly aligned or clearly apart, never between, so that no relation
# of a scene is a matter of opinion. In fractions of the picture's side.
ALIGNED = 0.08
APART = 0.18

RADIUS = {"small": 0.12, "large": 0.185}
RADIUS_SPREAD = 0.01
# Room between the circles around two objects, and between such a circle and the edge.
GAP = 0.02
EDGE = 0.01
REPEAT = 0.3
# How many places are tried for an object, and how many arrangements for a scene, before it starts afresh.
TRIES = 40
ARRANGEMENTS = 50


class SceneObject(NamedTuple):
    """One object: its words, its centre (x, y) and the radius of its outline, in fractions of the side."""

    shape: str
    colour: str
    size: str
    centre: tuple[float, float]
    radius: float


class Scene(NamedTuple):
    """A scene graph: the objects, in no particular order, and the kind of background."""

    objects: tuple[SceneObject, ...]
    background: str


def allowed_pairs(split: str) -> list[tuple[str, str]]:
    """Return the (colour, shape) pairs that may occur in pictures, and in hard negatives, of `split`."""
    pairs = [(colour, shape) for colour in COLOURS for shape in SHAPES]
    return pairs if split == "test" else [pair for pair in pairs if pair not in HELD_OUT]


def has_held_out(scene: Scene) -> bool:
    """Say whether the scene shows a combination that never occurs in training."""
    return any((item.colour, item.shape) in HELD_OUT for item in scene.objects)


def draw_scene(*, rng: np.random.Generator, split: str) -> Scene:
    """Draw a scene of two to four objects.

    Now and then an object takes over the colour or the shape of an earlier one: otherwise counts such as
    "three red shapes" and pairs that differ in a single attribute would be rare.
    """
    background = BACKGROUNDS[rng.integers(len(BACKGROUNDS))]
    objects = None
    while objects is None:
        objects = _draw_objects(rng=rng, split=split)
    return Scene(objects=objects, background=background)


def _draw_objects(*, rng: np.random.Generator, split: str) -> tuple[SceneObject, ...] | None:
    """Draw the objects; None where they are so large that hardly any arrangement of them fits."""
    number = int(rng.integers(2, MAX_OBJECTS + 1))
    words: list[tuple[str, str, str]] = []
    while len(words) < number:
        drawn = _draw_words(rng=rng, split=split, earlier=words)
        if drawn is not None:
            words.append(drawn)
    radii = [round(RADIUS[size] + RADIUS_SPREAD * float(rng.uniform(-1, 1)), 4) for _, _, size in words]
    reaches = [radius * REACH[shape] for radius, (shape, _, _) in zip(radii, words, strict=True)]
    for _ in range(ARRANGEMENTS):
        centres = _place(rng=rng, reaches=reaches)
        if centres is not None:
            return tuple(
                SceneObject(*word, centre=centre, radius=radius)
                for word, centre, radius in zip(words, centres, radii, strict=True)
            )
    return None


def _draw_words(
    *, rng: np.random.Generator, split: str, earlier: Sequence[tuple[str, str, str]]
) -> tuple[str, str, str] | None:
    """Draw (shape, colour, size); None where the draw is not allowed or is already in the scene."""
    pairs = allowed_pairs(split)
    colour, shape = pairs[rng.integers(len(pairs))]
    if earlier and rng.random() < REPEAT:
        shape = earlier[int(rng.integers(len(earlier)))][0]
    if earlier and rng.random() < REPEAT:
        colour = earlier[int(rng.integers(len(earlier)))][1]
    words = (shape, colour, SIZES[rng.integers(len(SIZES))])
    return None if words in earlier or (colour, shape) not in pairs else words


def _place(*, rng: np.random.Generator, reaches: Sequence[float]) -> list[tuple[float, float]] | None:
    """Place circles of these radii one after the other; None where one of them found no room."""
    centres: list[tuple[float, float]] = []
    for reach in reaches:
        low = reach + EDGE
        for x, y in (low + (1 - 2 * low) * rng.random((TRIES, 2))).round(4).tolist():
            others = zip(centres, reaches, strict=False)
            if all(_fits(dx=x - u, dy=y - v, room=reach + other + GAP) for (u, v), other in others):
                centres.append((x, y))
                break
        else:
            return None
    return centres


def _fits(*, dx: float, dy: float, room: float) -> bool:
    """Say whether two centres at this offset leave `room` and are unambiguous along both axes."""
    dx, dy = abs(dx), abs(dy)
    return not (ALIGNED < dx < APART or ALIGNED < dy < APART) and dx * dx + dy * dy >= room * room
