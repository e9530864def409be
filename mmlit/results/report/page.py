"""From a comparison to the report, one HTML file that needs nothing beside it."""

import base64
import hashlib
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from PIL import Image

from mmlit.results.comparison import Comparison
from mmlit.results.report import tables
from mmlit.results.report.commands import command
from mmlit.results.report.effects import effects
from mmlit.results.report.evaluated import evaluated
from mmlit.results.report.examples import Gallery, gallery
from mmlit.results.report.facts import differing_settings, shared_choices, shortened, sources, strategies
from mmlit.results.report.figures import effect_plot, loss_plots, numbered, selection_plots, trade_off
from mmlit.results.report.learning import learning
from mmlit.results.report.looks import Look, looks
from mmlit.results.report.verdict import verdict
from mmlit.results.rows import Group
from mmlit.results.schema import Record
from mmlit.results.words import READABLE, findings

_FOLDER = Path(__file__).parent


class Thumbnail(NamedTuple):
    """A JPEG as base64, and its sides in pixels."""

    data: str
    width: int
    height: int


def page(comparison: Comparison, directories: Sequence[Path]) -> str:
    """Write the page: what to use and why, the table, plots, examples, settings and commands.

    The same records give the same page. What comes from records is escaped by the template engine.

    Args:
        comparison: with its groups.
        directories: where it was read from; later evaluations are gathered there.
    """
    comparison = shortened(comparison)
    told, own = verdict(comparison), looks(comparison.groups)
    best, records = told.picks[0].row, [record for group in comparison.groups for record in group.records]
    examples = _examples(comparison, best)
    style, script = ((_FOLDER / name).read_text(encoding="utf-8") for name in ("page.css", "page.js"))
    return _template().render(
        comparison=comparison,
        first=comparison.groups[0].records[0],
        verdict=told,
        looks=own,
        main=tables.main_table(comparison),
        metrics=tables.metrics_table(comparison),
        leads=tables.pairs_table(comparison, best),
        findings=findings(comparison),
        numbered=numbered(comparison.rows),
        trade_off=trade_off(comparison.rows, own),
        **_curves(comparison, best, own),
        effects=[(effect, effect_plot(i, effect)) for i, effect in enumerate(effects(comparison))],
        gallery=examples,
        thumbnails=_thumbnails(examples) if examples else {},
        diagnostics=tables.diagnostics_table(comparison),
        evaluations=evaluated(comparison.groups, directories),
        settings=differing_settings(comparison),
        commands=[command(group) for group in comparison.groups],
        sources=sources(comparison),
        shared=shared_choices(comparison.groups),
        strategies=strategies(comparison.groups),
        newest=max(record.finished_at for record in records).date().isoformat(),
        num_runs=len(records),
        style=style,
        script=script,
        script_hash=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
    )


def _template() -> Any:
    engine = Environment(
        loader=FileSystemLoader(_FOLDER),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return engine.get_template("page.html")


def _curves(comparison: Comparison, best: int, own: Sequence[Look]) -> dict[str, Any]:
    """The curves of the baseline and of the rows of highest rsum, as many as can be told apart."""
    order = sorted(range(len(comparison.rows)), key=lambda i: -comparison.rows[i].metrics["rsum"].mean)
    readable = sorted(list(dict.fromkeys([0, best, *order]))[:READABLE])
    found = [(i, learning(comparison.rows[i].label, comparison.groups[i])) for i in readable]
    found = [(i, one) for i, one in found if one.measures]
    curves, shades = [one for _, one in found], [own[i] for i, _ in found]
    return {
        "curve_rows": [i for i, _ in found],
        "selection_plots": selection_plots(curves, shades),
        "loss_plots": loss_plots(curves, shades),
        "partly": _partly(comparison.groups),
    }


def _partly(groups: Sequence[Group]) -> bool:
    """Whether a run looked at a part of its selection split; 1.0, a share, is all of it, 1, a number, one batch."""
    every: list[Record] = [record for group in groups for record in group.records]
    limits = [(record.config.get("trainer") or {}).get("limit_val_batches") for record in every]
    return any(limit is not None and not (isinstance(limit, float) and limit == 1) for limit in limits)


def _examples(comparison: Comparison, best: int) -> Gallery | None:
    """The best row against the baseline, or if it is that itself, against the best of the others."""
    pairs = comparison.pairs.against(best)
    others = [i for i in range(len(comparison.rows)) if i != best and pairs[i] is not None]
    return gallery(comparison, best, others[0]) if others else None


def _thumbnails(examples: Gallery) -> dict[int, Thumbnail]:
    """The pictures that the page shows; each is embedded once."""
    wanted: dict[int, None] = {}
    for example in (each for chapter in examples.chapters for each in chapter.examples):
        wanted[example.image] = None
        if example.way == "t2i":
            wanted |= dict.fromkeys(image for answer in example.answers for image in answer.top)
    known = examples.pictures.thumbnails
    return {image: _thumbnail(known[image]) for image in wanted if image in known}


def _thumbnail(jpeg: bytes) -> Thumbnail:
    with Image.open(io.BytesIO(jpeg)) as picture:
        return Thumbnail(base64.b64encode(jpeg).decode(), *picture.size)
