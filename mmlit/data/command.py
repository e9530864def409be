"""`mmlit data …`: what makes, fetches and checks data sets."""

import argparse
from pathlib import Path
from typing import Any

from mmlit.data.download import command as coco


def add_commands(kinds: "argparse._SubParsersAction[Any]") -> None:
    """Declare the commands below `mmlit data`, each with what runs it."""
    _add_scenes(kinds.add_parser("scenes", help="render the embedded data set", description=_SCENES))
    fetch = kinds.add_parser("coco", help="fetch COCO and Karpathy's splits", description=coco.ABOUT)
    coco.add_arguments(fetch)
    fetch.set_defaults(command=coco.run)


_SCENES = (
    "Render compositional scenes with true and false captions, in the layout of COCO 2017. Deterministic for a seed."
)


def _add_scenes(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--root", type=Path, required=True, metavar="DIR", help="folder to make")
    parser.add_argument("--train", type=int, default=8192, metavar="N", help="training images (default: %(default)s)")
    parser.add_argument("--val", type=int, default=250, metavar="N", help="validation images (default: %(default)s)")
    parser.add_argument("--test", type=int, default=1200, metavar="N", help="test images (default: %(default)s)")
    parser.add_argument(
        "--size", type=int, default=32, metavar="PX", help="side of a picture in px (default: %(default)s)"
    )
    parser.add_argument("--seed", type=int, default=0, metavar="S", help="of everything random (default: %(default)s)")
    parser.set_defaults(command=_scenes)


def _scenes(arguments: argparse.Namespace) -> int:
    from mmlit.data.scenes.write import write_scenes

    names = ("root", "train", "val", "test", "size", "seed")
    write_scenes(**{name: getattr(arguments, name) for name in names})
    return 0
