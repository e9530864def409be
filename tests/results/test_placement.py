"""Labels stand clear of points and of one another."""

import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.transforms import Bbox

from mmlit.results.placement import MARGIN, place_labels

CENTRE = (200.0, 200.0)


def placed(marks: list[Bbox], names: tuple[str, ...] = ("label",), frame: Bbox | None = None) -> list[Bbox]:
    """The labels' pixels, of points in the middle of a figure of 400 × 400 pixels."""
    figure = Figure(figsize=(4, 4), dpi=100)
    renderer = FigureCanvasAgg(figure).get_renderer()
    axes = figure.add_axes((0, 0, 1, 1), xlim=(0, 400), ylim=(0, 400))
    labels = [axes.annotate(name, CENTRE, xytext=(0, 0), textcoords="offset points") for name in names]
    place_labels(labels, marks, frame or Bbox([[0, 0], [400, 400]]), renderer)
    return [label.get_window_extent(renderer) for label in labels]


def point(x: float, y: float) -> Bbox:
    return Bbox([[x - 5, y - 5], [x + 5, y + 5]])


def gap(one: Bbox, other: Bbox) -> float:
    """Pixels between two boxes, along the axis that parts them; negative where they overlap."""
    across = max(one.x0 - other.x1, other.x0 - one.x1)
    upright = max(one.y0 - other.y1, other.y0 - one.y1)
    return max(across, upright)


def test_a_free_label_stands_right_of_its_point() -> None:
    (label,) = placed([point(*CENTRE)])
    assert label.x0 > CENTRE[0]
    assert label.y0 < CENTRE[1] < label.y1


@pytest.mark.parametrize("free", [0.0, 1.0, MARGIN - 1])
def test_a_label_does_not_touch_a_neighbours_mark(free: float) -> None:
    """Right of its point the label would overlap nothing, but stand next to the neighbour's mark."""
    (usual,) = placed([point(*CENTRE)])
    neighbour = Bbox([[usual.x1 + free, 190], [usual.x1 + free + 10, 210]])
    (label,) = placed([point(*CENTRE), neighbour])
    assert gap(usual, neighbour) == pytest.approx(free)
    assert gap(label, neighbour) >= MARGIN
    assert gap(label, point(*CENTRE)) >= 0


def test_labels_keep_clear_of_one_another_and_inside() -> None:
    labels = placed([point(*CENTRE)], ("one", "two", "three", "four"))
    for i, one in enumerate(labels):
        assert all(gap(one, other) > 0 for other in labels[:i])
    (label,) = placed([point(*CENTRE)], frame=Bbox([[0, 0], [215, 400]]))
    assert label.x1 <= 215
