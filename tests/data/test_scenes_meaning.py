"""The semantics of captions, on graphs written by hand and against a slow check in plain loops."""

import itertools

import numpy as np
import pytest

from mmlit.data.scenes.meaning import (
    Count,
    Description,
    Form,
    Relation,
    holds,
    related,
    tabulate,
    well_formed,
)
from mmlit.data.scenes.world import (
    ALIGNED,
    APART,
    COLOURS,
    HELD_OUT,
    SHAPES,
    SIZES,
    Scene,
    SceneObject,
    draw_scene,
    has_held_out,
)


def thing(words: str, x: float, y: float) -> SceneObject:
    size, colour, shape = words.split()
    return SceneObject(shape=shape, colour=colour, size=size, centre=(x, y), radius=0.1)


def what(words: str) -> Description:
    found = {name: [word for word in words.split() if word in known] for name, known in WORDS.items()}
    return Description(**{name: some[0] for name, some in found.items() if some})


WORDS = {"shape": SHAPES, "colour": COLOURS, "size": SIZES}

# A small red circle top left, a large red square right of it and level with it, a small blue square below.
CORNER = Scene(
    objects=(
        thing("small red circle", 0.2, 0.2),
        thing("large red square", 0.7, 0.25),
        thing("small blue square", 0.22, 0.8),
    ),
    background="plain",
)
PAIR = Scene(objects=(thing("small red circle", 0.8, 0.5), thing("small blue square", 0.2, 0.5)), background="noise")


def forms(*objects: str, relations: tuple[Relation, ...] = (), counts: tuple[Count, ...] = ()) -> Form:
    return Form(objects=tuple(what(words) for words in objects), relations=relations, counts=counts)


@pytest.mark.parametrize(
    ("form", "of_corner", "of_pair"),
    [
        (forms("red circle"), True, True),
        (forms("large"), True, False),
        (forms("red star"), False, False),
        (forms("red circle", "blue square"), True, True),
        (forms("red", "red"), True, False),  # two distinct things
        (forms("red circle", "small red circle"), False, False),  # there is only one
        (forms("red circle", "red square", "blue square"), True, False),
        (forms("red circle", "blue square", relations=(Relation(0, "left", 1),)), False, False),
        (forms("red circle", "blue square", relations=(Relation(0, "right", 1),)), False, True),
        (forms("blue square", "red circle", relations=(Relation(0, "left", 1),)), False, True),
        (forms("red circle", "blue square", relations=(Relation(0, "above", 1),)), True, False),
        (forms("blue square", "red circle", relations=(Relation(0, "below", 1),)), True, False),
        (forms("red circle", "red square", relations=(Relation(0, "above", 1),)), False, False),  # aligned
        (forms("red circle", "square", relations=(Relation(0, "left", 1),)), True, False),
        (
            forms("red square", "blue square", relations=(Relation(0, "above", 1), Relation(0, "right", 1))),
            True,
            False,
        ),
        (
            forms("circle", "red square", "blue", relations=(Relation(0, "left", 1), Relation(0, "above", 2))),
            True,
            False,
        ),
        (forms(counts=(Count(what("square"), 2),)), True, False),
        (forms(counts=(Count(what("square"), 1),)), False, True),  # exactly one
        (forms("square", counts=(Count(what("red"), 2),)), True, False),
        (forms(counts=(Count(what(""), 3), Count(what("red"), 2))), True, False),
        (forms("red circle", "blue square", counts=(Count(what(""), 2),)), False, True),  # only these
    ],
)
def test_hand_written_forms(form: Form, of_corner: bool, of_pair: bool) -> None:
    assert holds(form, tabulate([CORNER, PAIR])).tolist() == [of_corner, of_pair]


def slow_holds(form: Form, scene: Scene) -> bool:
    """Transcribe the rules at the head of `meaning` without arrays."""

    def fits(item: SceneObject, description: Description) -> bool:
        wanted = description._asdict()
        return all(word is None or getattr(item, name) == word for name, word in wanted.items())

    def stand(a: SceneObject, name: str, b: SceneObject) -> bool:
        dx, dy = b.centre[0] - a.centre[0], b.centre[1] - a.centre[1]
        return {"left": dx, "right": -dx, "above": dy, "below": -dy}[name] >= APART

    for count in form.counts:
        if len([item for item in scene.objects if fits(item, count.what)]) != count.number:
            return False
    for chosen in itertools.permutations(scene.objects, len(form.objects)):
        described = all(fits(item, words) for item, words in zip(chosen, form.objects, strict=True))
        if described and all(stand(chosen[a], name, chosen[b]) for a, name, b in form.relations):
            return True
    return False


def random_form(rng: np.random.Generator) -> Form:
    def describe() -> Description:
        words = [(name, known[rng.integers(len(known))]) for name, known in WORDS.items()]
        return Description(**{name: word for name, word in words if rng.random() < 0.4})

    number = int(rng.integers(0, 4))
    pairs = [pair for pair in itertools.permutations(range(number), 2) if rng.random() < 0.25]
    names = ("left", "right", "above", "below")
    return Form(
        objects=tuple(describe() for _ in range(number)),
        relations=tuple(Relation(a, names[rng.integers(4)], b) for a, b in pairs),
        counts=tuple(Count(describe(), int(rng.integers(0, 4))) for _ in range(rng.integers(0, 2))),
    )


def test_agrees_with_the_slow_check() -> None:
    rng = np.random.default_rng(0)
    scenes = [draw_scene(rng=rng, split="test") for _ in range(40)]
    table = tabulate(scenes)
    drawn = [random_form(rng) for _ in range(300)]
    found = [holds(form, table).tolist() for form in drawn]
    assert found == [[slow_holds(form, scene) for scene in scenes] for form in drawn]
    share = np.mean(found)
    assert 0.05 < share < 0.95  # the comparison would mean nothing if one answer were always right


def test_related_names_both_axes() -> None:
    a, b = CORNER.objects[1], CORNER.objects[2]
    assert set(related(subject=a, target=b)) == {"right", "above"}
    assert set(related(subject=b, target=a)) == {"left", "below"}


@pytest.mark.parametrize(
    ("form", "expected"),
    [
        (forms("red circle", "blue"), True),
        (forms("red circle", "small"), False),  # a small red circle would be both
        (forms("red star", counts=(Count(what("star"), 2),)), False),
        (forms("red star", counts=(Count(what("circle"), 2),)), True),
        (forms(counts=(Count(what(""), 3), Count(what("red"), 2))), True),
    ],
)
def test_well_formed(form: Form, expected: bool) -> None:
    assert well_formed(form) is expected


@pytest.mark.parametrize("split", ["train", "test"])
def test_drawn_scenes_are_unambiguous(split: str) -> None:
    rng = np.random.default_rng(1)
    scenes = [draw_scene(rng=rng, split=split) for _ in range(200)]
    assert {len(scene.objects) for scene in scenes} == {2, 3, 4}
    for scene in scenes:
        words = [item[:3] for item in scene.objects]
        assert len(set(words)) == len(words)
        for a, b in itertools.combinations(scene.objects, 2):
            offsets = [abs(u - v) for u, v in zip(a.centre, b.centre, strict=True)]
            assert all(offset <= ALIGNED or offset >= APART for offset in offsets)
    assert any(map(has_held_out, scenes)) is (split == "test")
    words_left = {(colour, shape) for colour in COLOURS for shape in SHAPES} - HELD_OUT
    assert {colour for colour, _ in words_left} == set(COLOURS)
    assert {shape for _, shape in words_left} == set(SHAPES)
