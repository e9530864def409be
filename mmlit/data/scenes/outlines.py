"""The outlines of the shapes, as polygons."""

import math

Point = tuple[float, float]


def outline(*, shape: str, centre: Point, radius: float) -> list[Point]:
    """Return the corners of a shape's polygon, in the unit of `centre` and `radius`; a circle has many."""
    x, y = centre
    return [(x + radius * u, y + radius * v) for u, v in _CORNERS[shape]]


def area(corners: list[Point]) -> float:
    """Return the area of a polygon without crossings, by the shoelace formula."""
    following = corners[1:] + corners[:1]
    return abs(sum(x * v - u * y for (x, y), (u, v) in zip(corners, following, strict=True))) / 2


def _star() -> list[Point]:
    radii = (1.1, 0.45) * 5
    angles = [math.pi * (index / 5 - 0.5) for index in range(10)]
    return [(radius * math.cos(angle), radius * math.sin(angle)) for radius, angle in zip(radii, angles, strict=True)]


def _circle() -> list[Point]:
    angles = [2 * math.pi * index / 72 for index in range(72)]
    return [(0.95 * math.cos(angle), 0.95 * math.sin(angle)) for angle in angles]


def _cross(*, arm: float = 0.98, half: float = 0.32) -> list[Point]:
    quarter = [(half, -arm), (half, -half), (arm, -half)]
    corners = []
    for _ in range(4):
        corners += quarter
        quarter = [(-v, u) for u, v in quarter]
    return corners


# Corners for centre (0, 0) and radius 1. Areas are made alike rather than extents, so that an object's size
# is seen whatever its shape; the diamond is narrow so that few pixels still tell it from the square.
_CORNERS = {
    "circle": _circle(),
    "square": [(-0.82, -0.82), (0.82, -0.82), (0.82, 0.82), (-0.82, 0.82)],
    "triangle": [(0.0, -1.17), (1.0, 0.61), (-1.0, 0.61)],
    "star": _star(),
    "cross": _cross(),
    "diamond": [(0.0, -1.1), (0.68, 0.0), (0.0, 1.1), (-0.68, 0.0)],
}
# How far the farthest corner lies from the centre, in radii.
REACH = {shape: max(math.hypot(*corner) for corner in corners) for shape, corners in _CORNERS.items()}
