"""A scene becomes a picture.

The same random numbers are drawn whatever the size, so a scene looks alike at 24 and at 256 pixels.
Backgrounds keep to greyish tones of middle brightness: every object colour, black and white among them,
stands out from all of them.
"""

import math

import numpy as np
from PIL import Image, ImageDraw

from mmlit.data.scenes.outlines import outline
from mmlit.data.scenes.world import Scene, SceneObject

RGB = {
    "red": (214, 30, 40),
    "orange": (250, 140, 20),
    "yellow": (248, 228, 50),
    "green": (40, 165, 60),
    "blue": (40, 75, 225),
    "purple": (135, 40, 170),
    "black": (16, 16, 20),
    "white": (250, 250, 250),
}
# Shades of one colour, per channel: less than half the distance between any two colours.
SHADE = 10
TONE = (122, 158)
TINT = 9
CONTRAST = (10, 24)
# Masks are drawn with at least so many pixels along a side, then averaged down.
MASK_SIDE = 512


def render(*, rng: np.random.Generator, scene: Scene, size: int) -> Image.Image:
    """Return the RGB picture of a scene, `size` pixels high and wide."""
    canvas = _background(rng=rng, kind=scene.background, size=size)
    for item in scene.objects:
        colour = np.clip(np.array(RGB[item.colour]) + rng.integers(-SHADE, SHADE + 1, size=3), 0, 255)
        cover = _mask(item=item, size=size)[:, :, None]
        canvas = canvas * (1 - cover) + colour * cover
    return Image.fromarray(np.rint(canvas).astype(np.uint8), mode="RGB")


def _mask(*, item: SceneObject, size: int) -> np.ndarray:
    """Return (size, size) floats: how much of each pixel the object covers."""
    factor = max(2, math.ceil(MASK_SIDE / size))
    side = factor * size
    mask = Image.new("L", (side, side))
    corners = outline(shape=item.shape, centre=item.centre, radius=item.radius)
    # Pillow counts pixel centres, hence the half.
    ImageDraw.Draw(mask).polygon([(u * side - 0.5, v * side - 0.5) for u, v in corners], fill=255)
    return np.asarray(mask.reduce(factor), dtype=np.float64) / 255


def _background(*, rng: np.random.Generator, kind: str, size: int) -> np.ndarray:
    """Return (size, size, 3) floats: a mixture of two near tones, along the kind's pattern."""
    tone = rng.uniform(*TONE) + rng.uniform(-TINT, TINT, size=3)
    other = tone + rng.choice((-1, 1)) * rng.uniform(*CONTRAST) + rng.uniform(-TINT, TINT, size=3) / 2
    angle, periods, phase = rng.uniform(0, np.pi), rng.uniform(2, 4), rng.uniform(0, 2 * np.pi)
    grain = rng.random((7, 7), dtype=np.float32)
    v, u = (np.mgrid[:size, :size] + 0.5) / size - 0.5
    along, across = u * np.cos(angle) + v * np.sin(angle), v * np.cos(angle) - u * np.sin(angle)
    first, second = (np.clip(2 * np.sin(2 * np.pi * periods * t + phase), -1, 1) for t in (along, across))
    weight = {
        "plain": lambda: np.zeros_like(u),
        "gradient": lambda: 0.5 + along / math.sqrt(2),
        "stripes": lambda: 0.5 + first / 2,
        "checks": lambda: 0.5 + first * second / 2,
        "noise": lambda: np.asarray(Image.fromarray(grain).resize((size, size), Image.Resampling.BICUBIC)),
    }[kind]()
    return tone + np.clip(weight, 0, 1)[:, :, None] * (other - tone)
