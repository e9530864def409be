"""`mmlit anchors`: a result beside the published figure, which says first of all whether the evaluator is right."""

import argparse
import sys
import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from rich.console import Console
from rich.table import Table

from mmlit.results.record import FILE_NAME, read_record
from mmlit.results.schema import Record

#: points by which each of the six recalls may lie beside the published one: other decoders and resizers move some
#: queries, another protocol or another preprocessing moves many
TOLERANCE = 0.5
_KS = (1, 5, 10)


class Anchor(NamedTuple):
    """A published figure: R@1, 5, 10 in percent; `name_holds` is part of the name of the weights' directory."""

    name: str
    protocol: str
    zero_shot: bool
    i2t: tuple[float, float, float]
    t2i: tuple[float, float, float]
    source: str
    name_holds: str | None = None

    @property
    def recalls(self) -> dict[str, float]:
        """By the names that records use."""
        both = (("i2t", self.i2t), ("t2i", self.t2i))
        return {f"{way}_r{k}": value for way, values in both for k, value in zip(_KS, values, strict=True)}


class Checked(NamedTuple):
    """A result minus an anchor, by metric, in points."""

    anchor: Anchor
    differences: dict[str, float]

    @property
    def agrees(self) -> bool:
        """Whether the evaluator finds what was published; only where both are of the same weights."""
        return max(abs(value) for value in self.differences.values()) <= TOLERANCE


def read_anchors() -> list[Anchor]:
    """The published figures that the project keeps."""
    with Path(__file__).with_name("anchors.toml").open("rb") as file:
        entries = tomllib.load(file)["anchor"]
    return [Anchor(**{**entry, "i2t": tuple(entry["i2t"]), "t2i": tuple(entry["t2i"])}) for entry in entries]


def check(record: Record, anchors: Sequence[Anchor], *, name: str | None = None) -> list[Checked]:
    """Holds a record against the anchors of its protocol.

    Args:
        record: of any run.
        anchors: published figures.
        name: of the anchor of the same weights; None: the one whose `name_holds` the directory's name ends on.

    Returns:
        The anchor of the same weights if there is one, else every anchor of the protocol, for orientation.

    Raises:
        ValueError: if no anchor has that name or that protocol.
    """
    protocol = record.choices.get("evaluator")
    same = [anchor for anchor in anchors if anchor.protocol == protocol]
    if not same:
        raise ValueError(f"no published figure for evaluator={protocol}; there are some for coco_5k and coco_1k")
    if name is not None:
        same = [anchor for anchor in same if anchor.name == name]
        if not same:
            raise ValueError(f"no published figure {name!r} for evaluator={protocol}; `mmlit anchors` lists them")
    weights = str((record.config.get("image_encoder") or {}).get("name", "")).rstrip("/")
    own = [anchor for anchor in same if anchor.name_holds and anchor.zero_shot and weights.endswith(anchor.name_holds)]
    found = own if own and record.budget.pairs_seen == 0 else same
    return [Checked(anchor, _differences(record, anchor)) for anchor in found]


def _differences(record: Record, anchor: Anchor) -> dict[str, float]:
    return {metric: getattr(record.metrics, metric) - value for metric, value in anchor.recalls.items()}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of `mmlit anchors`."""
    parser.add_argument(
        "run", nargs="?", type=Path, metavar="RUN", help="a folder with result.json (default: list all)"
    )
    parser.add_argument("--anchor", metavar="NAME", help="the published figure of the very same weights")


def run(arguments: argparse.Namespace) -> int:
    """Print the figures, and with a run how far it lies from them.

    Returns:
        0; 1 if the run is of the same weights as an anchor and differs by more than `TOLERANCE` somewhere.
    """
    anchors, console = read_anchors(), Console(highlight=False, width=None if sys.stdout.isatty() else 120)
    if arguments.run is None:
        console.print(_table(anchors))
        return 0
    record = read_record(arguments.run / FILE_NAME)
    found = check(record, anchors, name=arguments.anchor)
    same_weights = arguments.anchor is not None or (len(found) == 1 and found[0].anchor.name_holds is not None)
    for each in found:
        told = ", ".join(f"{metric} {value:+.2f}" for metric, value in each.differences.items())
        console.print(f"{each.anchor.name}: {told}  ({each.anchor.source})", markup=False, soft_wrap=True)
    if not same_weights:
        console.print("Published by others, for orientation; --anchor NAME checks a run of the very same weights.")
        return 0
    verdict = "agrees with" if found[0].agrees else "DISAGREES with"
    console.print(f"The evaluator {verdict} the published figure (tolerance {TOLERANCE} points).")
    return 0 if found[0].agrees else 1


def _table(anchors: Sequence[Anchor]) -> Table:
    table = Table("anchor", "evaluator", "zero-shot", "i2t R@1/5/10", "t2i R@1/5/10", "source")
    for anchor in anchors:
        recalls = ["/".join(f"{value:g}" for value in values) for values in (anchor.i2t, anchor.t2i)]
        table.add_row(anchor.name, anchor.protocol, "yes" if anchor.zero_shot else "no", *recalls, anchor.source)
    return table
