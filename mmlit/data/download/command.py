"""`mmlit data coco`: the official archives of COCO and Karpathy's split file, ready to train on."""

import argparse
import shlex
import sys
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

from mmlit.data.download.archives import COCO, SOURCE, Archive

ABOUT = (
    "Fetch COCO's official pictures and captions and, for 2014, Karpathy's split file: in parallel, checked against "
    "published sizes and SHA-256, unpacked. Interrupted, the same command goes on."
)
_DATA = {"2014": "coco_karpathy", "2017": "coco2017"}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of `mmlit data coco`."""
    parser.add_argument("--root", type=Path, required=True, metavar="DIR", help="folder to fill")
    parser.add_argument(
        "--year",
        choices=sorted(COCO),
        default="2014",
        help="2014 goes with Karpathy's splits, 2017 has splits of its own (default: %(default)s)",
    )
    parser.add_argument("--keep-archives", action="store_true", help="leave the zip files in DIR, too")
    parser.add_argument("--dry-run", action="store_true", help="only tell what would be fetched and the disk it needs")


def run(arguments: argparse.Namespace, table: Mapping[str, Sequence[Archive]] = COCO) -> int:
    """Fetch what is missing of the archives that `table` has for a year, and tell how to go on."""
    from rich.console import Console

    from mmlit.data.download.download import download, told
    from mmlit.data.download.fetch import Patience
    from mmlit.data.download.plan import free_bytes, plan, require_room

    # Rich takes a file or a pipe for 80 columns wide.
    console = Console(highlight=False, width=None if sys.stdout.isatty() else 100)
    say = partial(console.print, markup=False, soft_wrap=True)
    root, archives = arguments.root, table[arguments.year]
    steps = plan(archives, root)
    missing = [step for step in steps if step.files is None]
    if missing or arguments.dry_run:
        say(f"COCO {arguments.year} in {root}; sizes and SHA-256 as published in {SOURCE}")
        say(told(steps, free_bytes(root)))
    if arguments.dry_run:
        require_room(steps, root)
        return 0
    done = download(archives, root=root, keep_archives=arguments.keep_archives, console=console, patience=Patience())
    say(f"COCO {arguments.year} is complete in {root}" if done else f"{root}: everything is there already")
    say(f"Next: python train.py experiment=smoke data={_DATA[arguments.year]} {shlex.quote(f'data.root={root}')}")
    return 0
