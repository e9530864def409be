"""`mmlit anchors`: a result beside the published figure, which says first of all whether the evaluator is right."""

import argparse
import sys
import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from rich.console import Console
from rich.table import Table

from mmlit.results.entries import entries_of, told_counts
from mmlit.results.record import FILE_NAME, read_record
from mmlit.results.schema import Evaluation, Record

#: points by which each of the six recalls may lie beside the published one: other decoders and resizers move some
#: queries, another protocol or another preprocessing moves many
TOLERANCE = 0.5
_KS = (1, 5, 10)
#: images and texts that both protocols of COCO rank, and in how many folds
_GALLERY, _FOLDS = (5000, 25000), {"coco_5k": 1, "coco_1k": 5}


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
    """Holds a record against the anchors of its protocols: its own, and those it was evaluated by later.

    Args:
        record: of any run.
        anchors: published figures.
        name: of the anchor of the same weights; None: the one whose `name_holds` the directory's name ends on.

    Returns:
        The anchor of the same weights if there is one, else every anchor of the protocols, for orientation.

    Raises:
        ValueError: if no anchor has that name or one of the protocols, or only other galleries than theirs were ranked.
    """
    protocols = dict.fromkeys(anchor.protocol for anchor in anchors if name in (None, anchor.name))
    if not protocols:
        raise ValueError(f"no published figure {name!r}; `mmlit anchors` lists them")
    entries = entries_of(record)
    asked = [entry for entry in entries if entry.evaluator in protocols]
    if not asked:
        by = ", ".join(dict.fromkeys(entry.evaluator for entry in entries))
        raise ValueError(f"no published figure for evaluator={by}; there are some for {' and '.join(protocols)}")
    ranked = {entry.evaluator: entry for entry in asked if not _other_gallery(entry)}  # the newest of each
    if not ranked:
        raise ValueError(_other_gallery(asked[-1]))
    same = [anchor for anchor in anchors if anchor.protocol in ranked and name in (None, anchor.name)]
    weights = str((record.config.get("image_encoder") or {}).get("name", "")).rstrip("/")
    own = [anchor for anchor in same if anchor.name_holds and anchor.zero_shot and weights.endswith(anchor.name_holds)]
    found = own if own and record.budget.pairs_seen == 0 else same
    return [Checked(anchor, _differences(ranked[anchor.protocol], anchor)) for anchor in found]


def _other_gallery(entry: Evaluation) -> str:
    """What was ranked, if it is not what the figures are about."""
    images, texts, folds = entry.counts.get("images"), entry.counts.get("texts"), entry.protocol.get("folds", 1)
    if (entry.split, images, texts, folds) == ("test", *_GALLERY, _FOLDS[entry.evaluator]):
        return ""
    in_folds = f" in {folds} folds" if folds != 1 else ""
    return (
        f"the published figures are of split test with {_GALLERY[0]:,} images and {_GALLERY[1]:,} texts, here "
        f"{entry.evaluator} ranked {told_counts(entry.counts)} of split {entry.split}{in_folds}; "
        f"`mmlit evaluate RUN --data coco_karpathy --evaluator {entry.evaluator}`"
    )


def _differences(entry: Evaluation, anchor: Anchor) -> dict[str, float]:
    return {metric: entry.metrics[metric] - value for metric, value in anchor.recalls.items()}


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
    record = _record(arguments.run)
    found = check(record, anchors, name=arguments.anchor)
    same_weights = arguments.anchor is not None or (len(found) == 1 and found[0].anchor.name_holds is not None)
    for each in found:
        told = ", ".join(f"{metric} {value:+.2f}" for metric, value in each.differences.items())
        console.print(
            f"{each.anchor.name}, {each.anchor.protocol}: {told}  ({each.anchor.source})", markup=False, soft_wrap=True
        )
    if not same_weights:
        console.print("Published by others, for orientation; --anchor NAME checks a run of the very same weights.")
        return 0
    agrees = all(each.agrees for each in found)
    verdict = "agrees with" if agrees else "DISAGREES with"
    console.print(f"The evaluator {verdict} the published figure (tolerance {TOLERANCE} points).")
    return 0 if agrees else 1


def _record(directory: Path) -> Record:
    if (directory / "items.npz").is_file():
        raise ValueError(f"{directory} holds a probe's answers: published figures are of retrieval, name the run")
    if not (directory / FILE_NAME).is_file():
        raise FileNotFoundError(f"{directory} is no folder of a finished run: there is no {FILE_NAME} in it")
    return read_record(directory / FILE_NAME)


def _table(anchors: Sequence[Anchor]) -> Table:
    table = Table("anchor", "evaluator", "zero-shot", "i2t R@1/5/10", "t2i R@1/5/10", "source")
    for anchor in anchors:
        recalls = ["/".join(f"{value:g}" for value in values) for values in (anchor.i2t, anchor.t2i)]
        table.add_row(anchor.name, anchor.protocol, "yes" if anchor.zero_shot else "no", *recalls, anchor.source)
    return table
