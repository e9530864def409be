"""`mmlit data shards`: any data set, named as for `train.py` → webdataset shards."""

import argparse
import re
import shlex
import sys
from pathlib import Path

ABOUT = (
    "Write a data set as webdataset shards: DIR/{train,val,test}/00000.tar ... hold what training, selection and "
    "report use of it. Finished shards are kept: interrupted, the same command goes on."
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of `mmlit data shards`."""
    parser.add_argument("subjects", nargs="+", metavar="KEY=VALUE", help="data=... data.root=..., as for train.py")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder to fill")
    parser.add_argument("--split", metavar="SPLIT", help="only this split of the data, as DIR/SPLIT")
    parser.add_argument(
        "--shorter-side", type=int, metavar="PX", help="shrink larger pictures (default: files are copied as they are)"
    )
    parser.add_argument(
        "--quality", type=int, default=95, metavar="Q", help="of JPEGs that are shrunk (default: %(default)s)"
    )
    parser.add_argument(
        "--per-shard", type=int, default=1000, metavar="N", help="images of a shard (default: %(default)s)"
    )


def run(arguments: argparse.Namespace) -> int:
    """Write what is missing, and tell how to train on it."""
    from mmlit.data.processes import available_cores
    from mmlit.data.shard_folder import write_shards
    from mmlit.data.shard_writing import Shrinking
    from mmlit.run.words import opened

    config, data = opened(arguments.subjects)
    parts = data.captions(arguments.split)
    if arguments.split is not None:
        parts = {re.sub(r"[^\w-]+", "-", name).strip("-"): captions for name, captions in parts.items()}
    write_shards(
        parts,
        out=arguments.out,
        shrinking=Shrinking(arguments.shorter_side, arguments.quality),
        per_shard=arguments.per_shard,
        skip=config.reading.on_error == "skip",
        workers=available_cores(),
    )
    named = "" if arguments.split is None else f" data.train={next(iter(parts))} ..."
    sys.stdout.write(f"Next: python train.py data=webdataset {shlex.quote(f'data.root={arguments.out}')}{named}\n")
    return 0
