"""`mmlit features list|verify|remove`."""

import argparse
import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from mmlit.features.layout import CHUNKS, META, PLAN, Layout, check_sizes, damaged, features_folder, read_json
from mmlit.features.removal import is_built, remove

DEFAULT = Path("outputs/cache")


class Found(NamedTuple):
    """A store in a folder; `content` is what it says of itself, nothing where `fault` says what is wrong with it."""

    folder: Path
    content: dict[str, Any]
    fault: str

    @property
    def complete(self) -> bool:
        """Whether runs may read it."""
        return (self.folder / META).is_file()


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the commands of `mmlit features` and their arguments."""
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")
    for name, act, about in (
        ("list", _list, "one line for each store: what, size, age, encoder, data"),
        ("verify", _verify, "read stores and compare them with their checksums"),
        ("remove", _remove, "remove stores by name, unless a run builds them"),
    ):
        command = commands.add_parser(name, help=about, description=f"{about[0].upper()}{about[1:]}.")
        if name != "list":
            many = {"verify": "*", "remove": "+"}[name]
            command.add_argument("names", nargs=many, metavar="NAME", help="as the list has it")
        command.add_argument(
            "--folder", type=Path, default=DEFAULT, metavar="DIR", help="paths.cache of the runs (default: %(default)s)"
        )
        if name == "list":
            command.add_argument("--json", action="store_true", help="for other programs")
        command.set_defaults(act=act)


def run(arguments: argparse.Namespace) -> int:
    """Run one of the commands; returns the exit code.

    Raises:
        FileNotFoundError: there is no such folder or store.
    """
    return int(arguments.act(arguments))


def _list(arguments: argparse.Namespace) -> int:
    rows = [_row(found) for found in _stores(arguments.folder)]
    if arguments.json:
        sys.stdout.write(json.dumps(rows, indent=2) + "\n")
        return 0
    if not rows:
        sys.stdout.write(f"{features_folder(arguments.folder)} holds no store.\n")
        return 0
    grid = Table(box=box.SIMPLE_HEAD, show_edge=False, padding=(0, 2, 0, 0))
    for heading in ("name", "what", "size", "age", "encoder", "precision", "data", "state"):
        grid.add_column(heading, overflow="fold", justify="right" if heading in ("size", "age") else "left")
    for row in rows:
        cells = {**row, "size": f"{row['bytes'] / 2**20:,.1f} MiB", "age": _age(row["seconds"])}
        grid.add_row(*(Text(_printable(str(cells[str(column.header)]))) for column in grid.columns))
    # Rich takes a file or a pipe for 80 columns wide, where a store's line should stay one line.
    Console(highlight=False, width=None if sys.stdout.isatty() else 1000).print(grid)
    sys.stdout.write(f"{len(rows)} stores, {sum(row['bytes'] for row in rows) / 2**20:,.1f} MiB\n")
    return 0


def _verify(arguments: argparse.Namespace) -> int:
    bad = 0
    for found in _named(arguments):
        faults = _faults(found)
        bad += bool(faults)
        told = "".join(f"\n  {fault}" for fault in faults)
        state = "damaged" if faults else "sound" if found.complete else "not complete yet"
        sys.stdout.write(f"{found.folder.name}: {state}{told}\n")
    if bad:
        sys.stderr.write(f"mmlit: {bad} damaged; `mmlit features remove NAME` lets the next run build it anew\n")
    return 2 if bad else 0


def _remove(arguments: argparse.Namespace) -> int:
    for found in _named(arguments):
        size = _bytes(found.folder)
        remove(found.folder)
        sys.stdout.write(f"Removed {found.folder.name}, {size / 2**20:,.1f} MiB.\n")
    return 0


def _faults(found: Found) -> list[str]:
    if found.fault or not found.complete:
        return [found.fault] if found.fault else []
    try:
        check_sizes(found.folder, Layout(**found.content["layout"]))
    except ValueError as error:
        return [str(error)]
    return damaged(found.folder)


def _stores(cache: Path) -> list[Found]:
    """All stores of a cache, begun ones included."""
    if not cache.is_dir():
        raise FileNotFoundError(f"{cache} is not a directory: name the runs' paths.cache with --folder")
    folders = sorted(path for path in features_folder(cache).glob("*") if path.is_dir())
    return [_found(folder) for folder in folders]


def _found(folder: Path) -> Found:
    path = folder / META if (folder / META).is_file() else folder / PLAN
    if not path.is_file():
        return Found(folder, {}, "")  # begun a moment ago, or killed then
    try:
        return Found(folder, read_json(path), "")
    except ValueError as error:
        return Found(folder, {}, str(error))


def _named(arguments: argparse.Namespace) -> Sequence[Found]:
    known = {found.folder.name: found for found in _stores(arguments.folder)}
    if unknown := [name for name in arguments.names if name not in known]:
        raise FileNotFoundError(f"{features_folder(arguments.folder)} holds no {unknown[0]}; see mmlit features list")
    return [known[name] for name in arguments.names] or list(known.values())


def _row(found: Found) -> dict[str, Any]:
    facts, about = found.content.get("facts", {}), found.content.get("about", {})
    path = found.folder / META if found.complete else found.folder
    return {
        "name": found.folder.name,
        "what": f"{facts['items']:,} {facts['side']} of {about['split']}" if facts else "",
        "bytes": _bytes(found.folder),
        "seconds": round(time.time() - path.stat().st_mtime),
        "encoder": about.get("encoder", ""),
        "precision": _precision(facts),
        "data": about.get("data", ""),
        "state": _state(found),
    }


def _precision(facts: dict[str, Any]) -> str:
    if not facts:
        return ""
    decode = f", {facts['decode'].partition(' ')[0]}" if "decode" in facts else ""
    return f"{facts['precision']} on {facts['device']}{decode}{', kept in fp16' if facts['half'] else ''}"


def _state(found: Found) -> str:
    if found.fault:
        return "damaged"
    if found.complete:
        return "complete"
    if not found.content:
        return "begun"
    total = Layout(**found.content["layout"]).num_chunks
    done = sum(1 for _ in (found.folder / CHUNKS).glob("*.json"))
    return f"{'being built' if is_built(found.folder) else 'unfinished'}, {done} of {total} chunks"


def _bytes(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def _age(seconds: int) -> str:
    for unit, length in (("d", 86_400), ("h", 3_600), ("min", 60)):
        if seconds >= length:
            return f"{seconds // length} {unit}"
    return f"{max(0, seconds)} s"


def _printable(text: str) -> str:
    return "".join(letter if letter.isprintable() else "?" for letter in text)
