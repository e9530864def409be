"""Where the labels of points stand, so that they neither cover nor touch points or one another."""

from collections.abc import Sequence
from typing import Literal, NamedTuple

import numpy as np
from matplotlib.backend_bases import RendererBase
from matplotlib.text import Annotation
from matplotlib.transforms import Bbox
from numpy.typing import NDArray

MARGIN = 6.0
"""Pixels that should stay free around a label: what touches a mark seems to belong to it."""


class Place(NamedTuple):
    """Where a label may stand: points right of and above the mark, and which of its edges is there."""

    right: float
    above: float
    across: Literal["left", "center", "right"]
    upright: Literal["bottom", "center", "top"]


_PLACES = (
    Place(9, 0, "left", "center"),
    Place(-9, 0, "right", "center"),
    Place(8, 8, "left", "bottom"),
    Place(8, -8, "left", "top"),
    Place(-8, 8, "right", "bottom"),
    Place(-8, -8, "right", "top"),
    Place(0, 10, "center", "bottom"),
    Place(0, -10, "center", "top"),
)


def place_labels(labels: Sequence[Annotation], marks: Sequence[Bbox], frame: Bbox, renderer: RendererBase) -> None:
    """Move each label beside its point, one after the other, to where it covers least.

    Args:
        labels: annotations with offsets in points; moved in place.
        marks: the pixels of everything that should stay visible.
        frame: the pixels of the axes, which labels should not leave.
        renderer: measures the labels.
    """
    taken = np.array([mark.extents for mark in marks]).reshape(-1, 4)
    for label in labels:
        # Measured once: a text's size does not depend on its place, and measuring takes most of the time.
        _put(label, Place(0, 0, "left", "bottom"))
        corner = label.get_window_extent(renderer)
        boxes = [_moved(corner, place, renderer) for place in _PLACES]
        costs = [_covered(box, taken, frame) for box in boxes]
        chosen = costs.index(min(costs))
        _put(label, _PLACES[chosen])
        taken = np.vstack([taken, boxes[chosen].extents])


def _put(label: Annotation, place: Place) -> None:
    label.set_position((place.right, place.above))
    label.set_horizontalalignment(place.across)
    label.set_verticalalignment(place.upright)


def _moved(corner: Bbox, place: Place, renderer: RendererBase) -> Bbox:
    """Where a label is that stands right of and above its point if it is put to another place."""
    across = {"left": 0.0, "center": 0.5, "right": 1.0}[place.across]
    upright = {"bottom": 0.0, "center": 0.5, "top": 1.0}[place.upright]
    pixel = float(renderer.points_to_pixels(1.0))  # type: ignore[arg-type]
    x0, y0, x1, y1 = map(float, corner.extents)
    return corner.translated(place.right * pixel - across * (x1 - x0), place.above * pixel - upright * (y1 - y0))


def _covered(box: Bbox, taken: NDArray[np.float64], frame: Bbox) -> float:
    """Square pixels of other things (K,4) on a label or within its margin; what leaves the axes counts tenfold."""
    left, bottom, right, top = box.padded(MARGIN).extents
    width = np.minimum(right, taken[:, 2]) - np.maximum(left, taken[:, 0])
    height = np.minimum(top, taken[:, 3]) - np.maximum(bottom, taken[:, 1])
    inside = Bbox.intersection(box, frame)
    outside = box.width * box.height - (inside.width * inside.height if inside is not None else 0.0)
    return float((width.clip(0) * height.clip(0)).sum() + 10 * outside)
