"""The pictures: size, anti-aliasing, colours, and that objects keep apart."""

import math

import numpy as np
import pytest

from mmlit.data.scenes.outlines import REACH, area, outline
from mmlit.data.scenes.render import RGB, SHADE, render
from mmlit.data.scenes.world import BACKGROUNDS, COLOURS, SHAPES, Scene, SceneObject, draw_scene


def one(shape: str, colour: str = "red", background: str = "plain") -> Scene:
    item = SceneObject(shape=shape, colour=colour, size="large", centre=(0.5, 0.5), radius=0.2)
    return Scene(objects=(item,), background=background)


def pixels(scene: Scene, size: int) -> np.ndarray:
    return np.asarray(render(rng=np.random.default_rng(0), scene=scene, size=size), dtype=float)


@pytest.mark.parametrize("size", [24, 33, 64, 256])
def test_size_and_mode(size: int) -> None:
    picture = render(rng=np.random.default_rng(0), scene=one("star"), size=size)
    assert (picture.size, picture.mode) == ((size, size), "RGB")


@pytest.mark.parametrize("shape", SHAPES)
def test_edges_are_anti_aliased_and_areas_right(shape: str) -> None:
    empty = pixels(Scene(objects=(), background="plain"), 64)[0, 0]
    colour = pixels(one(shape), 256)[128, 128]
    canvas = pixels(one(shape), 64)
    cover = (canvas - empty) @ (colour - empty) / ((colour - empty) @ (colour - empty))
    assert ((cover > 0.1) & (cover < 0.9)).sum() >= 8
    expected = area(outline(shape=shape, centre=(0.5, 0.5), radius=0.2)) * 64 * 64
    assert cover.sum() == pytest.approx(expected, rel=0.03)


def test_the_picture_is_the_same_at_every_size() -> None:
    scene = draw_scene(rng=np.random.default_rng(2), split="test")
    large, small = pixels(scene, 128), pixels(scene, 32)
    reduced = large.reshape(32, 4, 32, 4, 3).mean(axis=(1, 3))
    assert np.abs(reduced - small).mean() < 1.5


@pytest.mark.parametrize("background", BACKGROUNDS)
def test_every_colour_stands_out_from_every_background(background: str) -> None:
    for seed in range(20):
        picture = render(rng=np.random.default_rng(seed), scene=Scene((), background), size=24)
        canvas = np.asarray(picture, dtype=float).reshape(-1, 3)
        for colour in COLOURS:
            assert np.linalg.norm(canvas - RGB[colour], axis=1).min() > 60, (background, colour)


def test_colours_stay_apart_in_all_their_shades() -> None:
    for first in COLOURS:
        others = [math.dist(RGB[first], RGB[other]) for other in COLOURS if other != first]
        assert min(others) > 2 * SHADE * math.sqrt(3)


def test_objects_neither_touch_nor_leave_the_picture() -> None:
    rng = np.random.default_rng(4)
    for _ in range(200):
        placed: list[tuple[tuple[float, float], float]] = []
        for item in draw_scene(rng=rng, split="test").objects:
            reach = item.radius * REACH[item.shape]
            assert all(reach < value < 1 - reach for value in item.centre)
            assert all(math.dist(item.centre, centre) > reach + other for centre, other in placed)
            placed.append((item.centre, reach))


def test_outlines() -> None:
    assert area([(0, 0), (2, 0), (2, 1), (0, 1)]) == 2
    circle = outline(shape="circle", centre=(3, 4), radius=2)
    assert area(circle) == pytest.approx(math.pi * (0.95 * 2) ** 2, rel=0.005)
    areas = [area(outline(shape=shape, centre=(0, 0), radius=1)) for shape in SHAPES]
    assert max(areas) < 2.2 * min(areas)
