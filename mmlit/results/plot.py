"""The trade-off in one picture: what quality costs in training and in evaluation."""

import io
import math
from collections.abc import Sequence

from matplotlib import style
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg, RendererAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patheffects import withStroke
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter
from matplotlib.transforms import Bbox

from mmlit.results.comparison import Comparison, Row, Spread
from mmlit.results.placement import place_labels

WIDTH, HEIGHT, DPI = 9.0, 4.2, 200
"""Inches and dots per inch: 1800 × 840 pixels, sharp at half that width."""

_LEGEND_LINE = 0.24
"""Inches that a line of the legend adds to the height."""

_NAMED = 24
"""With more rows, only the first ones have a label: the baseline and those of the highest rsum."""

_MARK = 16
"""Pixels from a point's centre to where a label may begin."""

_COLOURS = ("#3b6ea5", "#d1345b", "#1f7a3d", "#8e3b9e", "#a8700a", "#0b7f95", "#555555")
_STYLE = {
    "font.family": "DejaVu Sans",
    "font.size": 10.5,
    "axes.edgecolor": "#888888",
    "axes.labelcolor": "#333333",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "text.color": "#222222",
    "xtick.color": "#555555",
    "ytick.color": "#555555",
}


def picture(comparison: Comparison) -> bytes:
    """Draw rsum (mean ± sd over seeds) against seconds of training and of evaluation.

    Points carry their labels, or numbers and a legend below where labels are many or long. Of very many rows the
    baseline and the next best are named.

    Returns:
        A PNG of 1800 × 840 pixels, higher with a legend; the same comparison gives the same bytes.
    """
    rows = comparison.rows
    numbered = len(rows) > 6 or max(len(row.label) for row in rows) > 24
    names = [str(i) for i in range(1, len(rows) + 1)] if numbered else [row.label for row in rows]
    shown = names[:_NAMED]
    panels = (
        ("training, seconds per run", [row.fit_seconds.mean for row in rows]),
        ("evaluation, seconds per run", [row.evaluation_seconds.mean for row in rows]),
    )
    height = HEIGHT + _LEGEND_LINE * (len(shown) + 1) / 2 if numbered else HEIGHT
    # The default style first: a user's own matplotlibrc shall not change the picture.
    with style.context(["default", _STYLE]):
        figure = Figure(figsize=(WIDTH, height), dpi=DPI, facecolor="white", layout="constrained")
        canvas = FigureCanvasAgg(figure)
        both = figure.subplots(1, 2, sharey=True)
        for axes, (label, seconds) in zip(both, panels, strict=True):
            _draw_points(axes, rows, seconds)
            axes.set_xlabel(label)
        both[0].set_ylabel("rsum, mean ± sd over seeds")
        if numbered:
            _draw_legend(figure, rows[:_NAMED])
        # Only a drawn figure knows where its points lie.
        canvas.draw()
        for axes, (_, seconds) in zip(both, panels, strict=True):
            places = [(cost, row.metrics["rsum"]) for row, cost in zip(rows, seconds, strict=True)]
            _draw_names(axes, canvas.get_renderer(), shown, places)
        file = io.BytesIO()
        figure.savefig(file, format="png", dpi=DPI, metadata={"Software": None})
    return file.getvalue()


def _draw_points(axes: Axes, rows: Sequence[Row], seconds: Sequence[float]) -> None:
    for first in range(min(len(_COLOURS) + 1, len(rows))):  # what looks alike is drawn at once
        alike = [0] if first == 0 else [i for i in range(1, len(rows)) if (i - first) % len(_COLOURS) == 0]
        spreads = [rows[i].metrics["rsum"] for i in alike]
        axes.errorbar(
            [seconds[i] for i in alike],
            [spread.mean for spread in spreads],
            yerr=[math.nan if spread.sd is None else spread.sd for spread in spreads],
            fmt="o",
            markersize=8,
            markerfacecolor=_fill(first),
            markeredgewidth=1.8,
            color=_colour(first),
            capsize=4,
            zorder=3,
        )
    scale_costs(axes, seconds)
    axes.grid(color="#e6e6e6", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.margins(x=0.2, y=0.16)


def scale_costs(axes: Axes, seconds: Sequence[float]) -> None:
    """Count costs in powers where they span more than a factor of eight."""
    if min(seconds) > 0 and max(seconds) > 8 * min(seconds):
        axes.set_xscale("log")
        axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axes.xaxis.set_minor_formatter(NullFormatter())
    else:
        axes.xaxis.set_major_locator(MaxNLocator(5))


def _draw_legend(figure: Figure, rows: Sequence[Row]) -> None:
    handles = [
        Line2D([], [], color=_colour(i), marker="o", linestyle="", markerfacecolor=_fill(i)) for i in range(len(rows))
    ]
    names = [f"{number}  {row.label}" for number, row in enumerate(rows, start=1)]
    legend = figure.legend(handles, names, loc="outside lower left", ncols=2, frameon=False, fontsize=9)
    for text in legend.get_texts():
        text.set_parse_math(False)


def _draw_names(
    axes: Axes, renderer: RendererAgg, names: Sequence[str], places: Sequence[tuple[float, Spread]]
) -> None:
    marks = [_mark(axes, quality, cost) for cost, quality in places]
    labels = []
    for position, (name, (cost, quality)) in enumerate(zip(names, places, strict=False)):
        label = axes.annotate(
            name,
            (cost, quality.mean),
            xytext=(0, 0),
            textcoords="offset points",
            color=_colour(position),
            zorder=4,
            parse_math=False,
            # Readable across grid lines.
            path_effects=[withStroke(linewidth=3, foreground="white")],
        )
        # The room for the axes must not depend on the labels, whose places depend on the axes.
        label.set_in_layout(False)
        labels.append(label)
    place_labels(labels, marks, axes.get_window_extent(renderer), renderer)


def _mark(axes: Axes, quality: Spread, cost: float) -> Bbox:
    """The pixels of a point and its error bar."""
    sd = quality.sd or 0.0
    ends = axes.transData.transform([(cost, quality.mean - sd), (cost, quality.mean + sd)])
    return Bbox(ends).padded(_MARK)


def _colour(position: int) -> str:
    return _COLOURS[position % len(_COLOURS)]


def _fill(position: int) -> str:
    """The baseline, the first of all rows, is hollow."""
    return _colour(position) if position else "white"
