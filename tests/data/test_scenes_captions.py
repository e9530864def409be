"""What captions and hard negatives look like, and that they are true and false."""

import numpy as np
import pytest

from mmlit.data.scenes.captions import draw_captions
from mmlit.data.scenes.grammar import KINDS
from mmlit.data.scenes.meaning import Count, Description, Form, Relation, holds, tabulate, well_formed
from mmlit.data.scenes.negatives import CHANGES, draw_negatives
from mmlit.data.scenes.wording import Wording, say
from mmlit.data.scenes.world import HELD_OUT, draw_scene

FIRST = Wording("small", "large", "shape", "to the left of", "to the right of", "above", "below")
SECOND = Wording("little", "big", "object", "left of", "right of", "higher than", "lower than")
STAR = Description(shape="star", colour="orange", size="small")
RED = Description(colour="red")
CROSS = Description(shape="cross")
ALL = Description()


@pytest.mark.parametrize(
    ("pattern", "form", "first", "second"),
    [
        ("{0}", Form(objects=(STAR,)), "a small orange star", "a little orange star"),
        ("{0} and {1}", Form(objects=(RED, CROSS)), "a red shape and a cross", "a red object and a cross"),
        ("{0}", Form(objects=(ALL,)), "a shape", "an object"),
        (
            "{0} {r0} {1}",
            Form(objects=(CROSS, RED), relations=(Relation(0, "left", 1),)),
            "a cross to the left of a red shape",
            "a cross left of a red object",
        ),
        (
            "{0} with {1} {p0}",
            Form(objects=(CROSS, RED), relations=(Relation(1, "right", 0),)),
            "a cross with a red shape to its right",
            "a cross with a red object to its right",
        ),
        (
            "{0} {v0} and {r1} {1}",
            Form(objects=(CROSS, RED), relations=(Relation(0, "below", 1), Relation(0, "right", 1))),
            "a cross below and to the right of a red shape",
            "a cross below and right of a red object",
        ),
        (
            "{n0}, {o1} and {o2}",
            Form(counts=(Count(ALL, 4), Count(CROSS, 2), Count(STAR, 1))),
            "four shapes, two of them crosses and one of them a small orange star",
            "four objects, two of them crosses and one of them a little orange star",
        ),
        (
            "{n0}, {o1}",
            Form(counts=(Count(ALL, 2), Count(RED, 2))),
            "two shapes, both of them red",
            "two objects, both of them red",
        ),
        (
            "{n0}, {o1}",
            Form(counts=(Count(ALL, 3), Count(RED, 3))),
            "three shapes, all of them red",
            "three objects, all of them red",
        ),
        (
            "{n0} and {0}",
            Form(objects=(RED,), counts=(Count(CROSS, 2),)),
            "two crosses and a red shape",
            None,
        ),
    ],
)
def test_forms_are_said_in_english(pattern: str, form: Form, first: str, second: str | None) -> None:
    assert say(form=form, pattern=pattern, wording=FIRST) == first
    if second is not None:
        assert say(form=form, pattern=pattern, wording=SECOND) == second


def test_captions_are_five_different_true_sentences() -> None:
    rng = np.random.default_rng(0)
    for _ in range(150):
        scene = draw_scene(rng=rng, split="test")
        captions = draw_captions(rng=rng, scene=scene)
        assert len({caption.text for caption in captions}) == len({caption.form for caption in captions}) == 5
        for caption in captions:
            assert well_formed(caption.form)
            assert holds(caption.form, tabulate([scene])).tolist() == [True], caption


def test_every_kind_of_caption_is_used() -> None:
    rng = np.random.default_rng(0)
    patterns = {
        caption.pattern
        for _ in range(800)
        for caption in draw_captions(rng=rng, scene=draw_scene(rng=rng, split="train"))
    }
    for kind in KINDS:
        for body in kind.bodies:
            assert any(pattern.endswith(body) for pattern in patterns), body
        assert set(kind.sentences) <= patterns


def test_negatives_are_false_and_their_captions_true() -> None:
    rng = np.random.default_rng(3)
    seen = dict.fromkeys(CHANGES, 0)
    for _ in range(150):
        scene = draw_scene(rng=rng, split="val")
        captions = draw_captions(rng=rng, scene=scene)
        negatives = draw_negatives(rng=rng, scene=scene, captions=captions, split="val")
        for kind, (caption, negative) in negatives.items():
            seen[kind] += 1
            assert caption in {true.text for true in captions}
            assert negative not in {true.text for true in captions}
            changed = set(caption.split()) ^ set(negative.split())
            assert len(changed) <= 8
            if kind == "swap_att":
                assert len(caption.split()) == len(negative.split())
            assert not any(f"{colour} {shape}" in negative for colour, shape in HELD_OUT)
    assert min(count for kind, count in seen.items() if kind != "replace_count") > 100
    assert seen["replace_count"] > 60  # of the five captions of a scene, often none counts


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        (
            "swap_att",
            {"a small blue circle left of a large red star", "a large red circle left of a small blue star"},
        ),
        ("swap_obj", {"a large blue star left of a small red circle"}),
        ("replace_rel", {"a small red circle right of a large blue star"}),
        (
            "replace_size",
            {"a large red circle left of a large blue star", "a small red circle left of a small blue star"},
        ),
    ],
)
def test_changes_by_hand(kind: str, expected: set[str]) -> None:
    circle, star = Description("circle", "red", "small"), Description("star", "blue", "large")
    form = Form(objects=(circle, star), relations=(Relation(0, "left", 1),))
    scene = draw_scene(rng=np.random.default_rng(0), split="train")  # these changes do not look at it
    wording = SECOND._replace(small="small", large="large")
    changed = CHANGES[kind](form, scene)
    assert {say(form=form, pattern="{0} {r0} {1}", wording=wording) for form in changed} == expected


def test_replacements_are_not_in_the_picture() -> None:
    rng = np.random.default_rng(5)
    scene = draw_scene(rng=rng, split="train")
    item = scene.objects[0]
    form = Form(objects=(Description(shape=item.shape, colour=item.colour),))
    present = {(thing.shape, thing.colour) for thing in scene.objects}
    for kind, place in (("replace_obj", "shape"), ("replace_att", "colour"), ("replace_colour", "colour")):
        replaced = {getattr(changed.objects[0], place) for changed in CHANGES[kind](form, scene)}
        assert replaced
        assert not replaced & {word for pair in present for word in pair}


GREEN_STAR = Description(shape="star", colour="green")


@pytest.mark.parametrize(
    ("pattern", "form", "expected"),
    [
        ("{n0}", Form(counts=(Count(RED, 2),)), {"three red shapes", "four red shapes"}),
        ("{n0}", Form(counts=(Count(RED, 3),)), {"two red shapes", "four red shapes"}),
        # no two things of a scene are alike: there are a small green star and a large one at most
        ("{n0}", Form(counts=(Count(GREEN_STAR, 2),)), set()),
        ("{n0} and {0}", Form(objects=(CROSS,), counts=(Count(STAR._replace(shape=None), 2),)), {"three"}),
        ("{n0} and {n1}", Form(counts=(Count(RED, 2), Count(Description(colour="blue"), 1))), {"three", "two blue"}),
        ("{n0}, {o1}", Form(counts=(Count(ALL, 3), Count(RED, 2))), {"two shapes", "four", "one of them", "all of"}),
        # what everything is listed for cannot change alone, nor what the words do not say
        ("{n0}: {0}, {1} and {2}", Form(objects=(RED, CROSS, STAR), counts=(Count(ALL, 3),)), set()),
        ("only {0} and {1}", Form(objects=(RED, CROSS), counts=(Count(ALL, 2),)), set()),
    ],
)
def test_counts_by_hand(pattern: str, form: Form, expected: set[str]) -> None:
    scene = draw_scene(rng=np.random.default_rng(0), split="train")  # this change does not look at it
    said = [say(form=changed, pattern=pattern, wording=FIRST) for changed in CHANGES["replace_count"](form, scene)]
    true = say(form=form, pattern=pattern, wording=FIRST)
    assert true not in said
    assert len(set(said)) == len(said) == len(expected)
    assert all(sum(part in text for text in said) == 1 for part in expected), said
