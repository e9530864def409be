"""The plots of a report: quality against cost, learning curves, effects of options."""

import math
from collections.abc import Sequence
from functools import partial
from typing import Any, NamedTuple

from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator
from matplotlib.transforms import Bbox

from mmlit.results.comparison import Row, Spread
from mmlit.results.placement import place_labels
from mmlit.results.plot import scale_costs
from mmlit.results.report.drawing import INK, MUTED, PAPER, colour, drawn
from mmlit.results.report.effects import Effect
from mmlit.results.report.learning import Learning
from mmlit.results.report.looks import Look
from mmlit.results.report.verdict import query_milliseconds

_MARK = 7
"""Pixels from a point's centre to where a label may begin."""

_LABELLED, _SHORT = 8, 26
"""Up to so many rows, and so many letters, points carry their labels; else the number that stands in the table."""

_CROWD = 24
"""With more rows only the best ones carry a number."""

_MEASURES = {"val/rsum": "rsum", "val/i2t_r1": "i2t R@1, %", "val/t2i_r1": "t2i R@1, %"}


class Plot(NamedTuple):
    """An `<svg>` and what stands below it."""

    svg: str
    caption: str


class Point(NamedTuple):
    """A row in a plot of quality against cost."""

    name: str
    cost: float
    quality: Spread
    look: Look


def trade_off(rows: Sequence[Row], looks: Sequence[Look]) -> list[Plot]:
    """The rsum (mean ± sd over seeds) against training and against one query, a plot each."""
    names = [str(i) if numbered(rows) else row.label for i, row in enumerate(rows, start=1)]
    plots = []
    for key, title, costs in (
        ("training", "training of one run, seconds", [row.fit_seconds.mean for row in rows]),
        ("query", "one query, milliseconds", [query_milliseconds(row) for row in rows]),
    ):
        points = "; ".join(
            f"{row.label}: rsum {row.metrics['rsum'].mean:.1f} at {cost:.3g}"
            for row, cost in list(zip(rows, costs, strict=True))[:_LABELLED]
        )

        places = zip(names, costs, rows, looks, strict=True)
        given = [Point(name, cost, row.metrics["rsum"], look) for name, cost, row, look in places]

        def draw(axes: Axes, title: str = title, given: Sequence[Point] = given) -> None:
            _points(axes, given)
            axes.set_xlabel(title)
            axes.set_ylabel("rsum")

        about = f"rsum against {title}: {points}"
        plots.append(Plot(drawn(f"cost-{key}", about, (5.4, 3.7), draw, partial(_names, points=given)), ""))
    return plots


def numbered(rows: Sequence[Row]) -> bool:
    """Whether points carry numbers, for there are many rows or their labels are long."""
    return len(rows) > _LABELLED or max(len(row.label) for row in rows) > _SHORT


def selection_plots(curves: Sequence[Learning], looks: Sequence[Look]) -> list[Plot]:
    """One plot for each measure of the selection split, with all rows; none where it was measured once, at the end.

    Args:
        curves: of the rows to show.
        looks: of these rows.
    """
    plots = []
    for measure, title in _MEASURES.items():
        shown = [(one, look) for one, look in zip(curves, looks, strict=True) if measure in one.measures]
        if not any(len(one.measures[measure].steps) > 1 for one, _ in shown):
            continue

        def draw(axes: Axes, shown: Any = shown, measure: str = measure, title: str = title) -> None:
            for one, look in shown:
                _curve(axes, one, measure, look)
            _label_steps(axes, title)

        about = f"{title} of the selection split against optimizer steps: {', '.join(one.label for one, _ in shown)}"
        svg = drawn(measure.replace("/", "-"), about, (5.4, 3.3), draw)
        plots.append(Plot(svg, f"{title} of the selection split"))
    return plots


def loss_plots(curves: Sequence[Learning], looks: Sequence[Look]) -> list[Plot]:
    """The training loss of each row by itself: losses of two strategies are not on one scale."""
    plots = []
    for place, (one, look) in enumerate(zip(curves, looks, strict=True)):
        if "train/loss" not in one.measures:
            continue

        def draw(axes: Axes, one: Learning = one, look: Look = look) -> None:
            _curve(axes, one, "train/loss", look)
            _label_steps(axes, "training loss")

        about = f"training loss of {one.label} against optimizer steps"
        plots.append(Plot(drawn(f"loss{place}", about, (3.6, 2.4), draw), one.label))
    return plots


def effect_plot(number: int, effect: Effect) -> str:
    """Each combination of the other options as a dot, their mean as a bar, for every value of one option."""

    def draw(axes: Axes) -> None:
        for place, value in enumerate(effect.values):
            points = [block[place] for block in effect.blocks]
            axes.plot(points, [place] * len(points), "o", color=MUTED, markersize=4, alpha=0.55, markeredgewidth=0)
            axes.plot([value.mean], [place], marker="D", color=colour(0), markersize=7, markeredgecolor=PAPER)
        axes.set_yticks(range(len(effect.values)), [_cut(value.name) for value in effect.values], parse_math=False)
        axes.set_ylim(len(effect.values) - 0.5, -0.5)
        axes.set_xlabel("rsum")
        axes.grid(visible=False, axis="y")

    told = "; ".join(f"{value.name}: {value.mean:.1f}" for value in effect.values)
    return drawn(
        f"effect{number}", f"mean rsum by {effect.option}: {told}", (5.4, 0.9 + 0.32 * len(effect.values)), draw
    )


def _points(axes: Axes, points: Sequence[Point]) -> None:
    alike: dict[tuple[Look, bool], list[Point]] = {}  # drawn at once, which takes far less time
    for place, point in enumerate(points):
        alike.setdefault((point.look._replace(dash="-"), place == 0), []).append(point)
    for (look, is_baseline), own in alike.items():
        axes.errorbar(
            [point.cost for point in own],
            [point.quality.mean for point in own],
            yerr=[math.nan if point.quality.sd is None else point.quality.sd for point in own],
            fmt=look.mark,
            markersize=7,
            markerfacecolor=PAPER if is_baseline else colour(look.colour),  # the baseline is hollow
            markeredgewidth=1.6,
            color=colour(look.colour),
            capsize=3,
            zorder=3,
        )
    scale_costs(axes, [point.cost for point in points])
    axes.margins(x=0.2, y=0.16)


def _labelled(points: Sequence[Point]) -> list[Point]:
    """Which points carry a label: all if they are few enough, else the baseline and those of the highest rsum."""
    if len(points) <= _CROWD:
        return list(points)
    return [points[0], *sorted(points[1:], key=lambda point: -point.quality.mean)[:_LABELLED]]


def _names(axes: Axes, renderer: Any, points: Sequence[Point]) -> None:
    ends = [[(one.cost, one.quality.mean + side * (one.quality.sd or 0.0)) for side in (-1, 1)] for one in points]
    marks = [Bbox(axes.transData.transform(each)).padded(_MARK) for each in ends]
    labels = [
        axes.annotate(
            point.name,
            (point.cost, point.quality.mean),
            xytext=(0, 0),
            textcoords="offset points",
            color=colour(point.look.colour),
            zorder=4,
            parse_math=False,
            gid=f"halo{number}",
            in_layout=False,  # the axes' room must not depend on labels whose places depend on the axes
        )
        for number, point in enumerate(_labelled(points))
    ]
    place_labels(labels, marks, axes.get_window_extent(renderer), renderer)


def _curve(axes: Axes, one: Learning, measure: str, look: Look) -> None:
    curve = one.measures[measure]
    if len(curve.steps) == 1:
        axes.errorbar(curve.steps, curve.mean, yerr=curve.sd, fmt=look.mark, capsize=3, color=colour(look.colour))
        return
    axes.plot(curve.steps, curve.mean, zorder=3, color=colour(look.colour), linestyle=look.dash, linewidth=1.8)
    if curve.sd is not None:
        low, high = curve.mean - curve.sd, curve.mean + curve.sd
        axes.fill_between(curve.steps, low, high, color=colour(look.colour), alpha=0.16, linewidth=0)


def _label_steps(axes: Axes, title: str) -> None:
    axes.set_xlabel("optimizer steps")
    axes.set_ylabel(title)
    axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
    axes.yaxis.label.set_color(INK)


def _cut(text: str) -> str:
    return text if len(text) <= _SHORT else f"{text[: _SHORT - 1]}…"
