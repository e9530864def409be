"""Where the labels of points stand, so that they cover neither points nor one another."""

from collections.abc import Sequence
from typing import Literal, NamedTuple

from matplotlib.backend_bases import RendererBase
from matplotlib.text import Annotation
from matplotlib.transforms import Bbox


class Place(NamedTuple):
    """Where a label may stand: points right of and above the mark, and which of its edges is there."""

    right: float
    above: float
    across: Literal["left", "center", "right"]
    upright: Literal["bottom", "center", "top"]


_PLACES = (
    Place(9, 0, "left", "center"),
    Place(-9, 0, "right", "center"),
    Place(7, 7, "left", "bottom"),
    Place(7, -7, "left", "top"),
    Place(-7, 7, "right", "bottom"),
    Place(-7, -7, "right", "top"),
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
    taken = list(marks)
    for label in labels:
        costs = [_covered(_put(label, place, renderer), taken, frame) for place in _PLACES]
        taken.append(_put(label, _PLACES[costs.index(min(costs))], renderer))


def _put(label: Annotation, place: Place, renderer: RendererBase) -> Bbox:
    label.set_position((place.right, place.above))
    label.set_horizontalalignment(place.across)
    label.set_verticalalignment(place.upright)
    return label.get_window_extent(renderer)


def _covered(box: Bbox, taken: Sequence[Bbox], frame: Bbox) -> float:
    """Square pixels of other things under a label; what leaves the axes counts tenfold."""
    inside = _area(Bbox.intersection(box, frame))
    return sum(_area(Bbox.intersection(box, other)) for other in taken) + 10 * (_area(box) - inside)


def _area(box: Bbox | None) -> float:
    return 0.0 if box is None else float(box.width * box.height)
