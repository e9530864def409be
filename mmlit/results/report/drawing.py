"""Static SVG whose colours follow the page: drawn by matplotlib with stand-ins, which become CSS variables."""

import html
import io
import re
from collections.abc import Callable
from typing import Any

from matplotlib import style
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

INK, MUTED, RULE, PAPER = "#0a0a01", "#0a0a02", "#0a0a03", "#0a0a04"
_VARIABLES = {INK: "--ink", MUTED: "--muted", RULE: "--rule", PAPER: "--paper"}
_SERIES = "#0b0b{:02x}"
_STYLE = {
    "axes.axisbelow": True,
    "axes.edgecolor": MUTED,
    "axes.facecolor": "none",
    "axes.grid": True,
    "axes.labelcolor": INK,
    "axes.labelsize": 9.5,
    "axes.linewidth": 0.8,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlecolor": INK,
    "axes.titlelocation": "left",
    "axes.titlesize": 10,
    "figure.facecolor": "none",
    "font.family": "DejaVu Sans",
    "font.size": 9.5,
    "grid.color": RULE,
    "grid.linewidth": 0.8,
    "svg.fonttype": "none",  # texts stay texts: searchable, and in the reader's own font
    "svg.hashsalt": "mmlit",
    "text.color": INK,
    "xtick.color": MUTED,
    "xtick.labelsize": 8.5,
    "ytick.color": MUTED,
    "ytick.labelsize": 8.5,
}


def colour(number: int) -> str:
    """The stand-in for the page's colour of that number."""
    return _SERIES.format(number)


def drawn(
    name: str,
    about: str,
    size: tuple[float, float],
    draw: Callable[[Axes], object],
    label: Callable[[Axes, Any], object] | None = None,
) -> str:
    """Draw one panel as an `<svg>` for the page.

    Args:
        name: a word that no other figure of the page has: ids of one page must differ.
        about: what a reader who cannot see it is told.
        size: inches.
        draw: gets the axes.
        label: gets the axes once they have their place, and a renderer that measures texts.
    """
    with style.context(["default", _STYLE]):
        figure = Figure(figsize=size, dpi=72, layout="constrained")
        canvas = FigureCanvasAgg(figure)
        axes = figure.subplots()
        draw(axes)
        figure.draw_without_rendering()
        figure.set_layout_engine("none")  # the places are found: to find them again takes most of the time
        if label is not None:
            label(axes, canvas.get_renderer())
        file = io.StringIO()
        figure.savefig(file, format="svg", metadata={"Date": None})
    return _for_page(file.getvalue(), name, about)


def _for_page(svg: str, name: str, about: str) -> str:
    body = svg[svg.index("<svg") :]
    box = re.search(r'viewBox="([^"]+)"', body)
    inside = body[body.index(">") + 1 :]
    for pattern in (r"<metadata>.*?</metadata>", r"<defs>\s*<style.*?</defs>"):
        inside = re.sub(pattern, "", inside, count=1, flags=re.DOTALL)
    inside = re.sub(r'(\sid="|href="#|url\(#)', rf"\g<1>{name}-", inside)
    inside = re.sub(r"font: ((?:bold )?[\d.]+px) [^;\"]+", r"font: \1 system-ui, sans-serif", inside)
    inside = re.sub(r"#0a0a0[1-4]\b", lambda found: f"var({_VARIABLES[found[0]]})", inside)
    inside = re.sub(r"#0b0b(\w\w)\b", lambda found: f"var(--c{int(found[1], 16)})", inside)
    label = html.escape(about, quote=True)
    return f'<svg class="plot" viewBox="{box[1] if box else ""}" role="img" aria-label="{label}">{inside}'
