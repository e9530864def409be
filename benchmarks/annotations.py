"""Captions of COCO-train size: how long they take to open, and what a reading process's memory grows by.

`python benchmarks/annotations.py` repeats a caption file in COCO's layout (`--captions FILE`; else made-up captions of
like length) to 118,287 images and 591,753 captions, with an empty picture for each image, and opens it through the data
module: once with nothing kept, then again in new processes (median of `--rounds`). A forked worker then reads all
captions and their token ids once; its private memory is what no other process shares (/proc/self/smaps_rollup). The
peer is the same worker over Python lists, as data sets of many projects hold captions.
"""

import argparse
import json
import multiprocessing
import os
import random
import statistics
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa

from mmlit.contracts import ImageSpec
from mmlit.data.batching import OneCaption
from mmlit.data.coco import CocoCaptions
from mmlit.data.datamodule import PairsDataModule
from mmlit.data.reading import Reading
from mmlit.text_encoders.tiny import TinyTextEncoder

IMAGES, CAPTIONS, BATCH = 118_287, 591_753, 256


def write(
    root: Path, given: Path | None, *, num_images: int = IMAGES, num_captions: int = CAPTIONS, picture: bytes = b""
) -> None:
    """The annotations and a file for each picture."""
    if given is None:
        draw = random.Random(0)
        words = ["".join(draw.choices("aeioulnrst", k=draw.randint(2, 9))) for _ in range(8000)]
        texts = [" ".join(draw.choices(words, k=draw.randint(8, 14))) for _ in range(25_014)]
    else:
        texts = [row["caption"] for row in json.loads(given.read_text())["annotations"]]
    images = [{"id": id_, "file_name": f"{id_:012d}.jpg", "height": 480, "width": 640} for id_ in range(num_images)]
    owner = [m % num_images for m in range(num_captions)]  # as in the real file, an image's do not stand together
    rows = [{"image_id": n, "id": m, "caption": texts[m % len(texts)]} for m, n in enumerate(owner)]
    (root / "annotations").mkdir()
    (root / "annotations" / "captions_train2017.json").write_text(json.dumps({"images": images, "annotations": rows}))
    (root / "train2017").mkdir()
    for image in images:
        (root / "train2017" / image["file_name"]).write_bytes(picture)


def opened(root: Path) -> tuple[float, PairsDataModule]:
    """Seconds of the data module's set-up, and the module."""
    source = partial(
        CocoCaptions, annotations="annotations/captions_{split}2017.json", images="{split}2017", prepare=None
    )
    data = PairsDataModule(
        root=str(root), source=source, train="train", val=1, test="train", batch_size=64, num_workers=0,
        drop_last=True, seed=0, split=None, image=ImageSpec(dim=1, size=8, resize="squash", interpolation="bilinear"),
        text=TinyTextEncoder(vocabulary_size=30_000, max_length=64, dim=32, num_layers=1, freeze=True),
        batching=OneCaption(group_by_length=False), cache=root / "cache",
        reading=Reading(decode="fast", on_error="raise", max_bad_share=0.0),
    )  # fmt: skip
    start = time.perf_counter()
    data.setup("fit")
    return time.perf_counter() - start, data


def private() -> float:
    """MiB of this process that no other shares."""
    lines = Path("/proc/self/smaps_rollup").read_text().splitlines()
    return sum(int(line.split()[1]) for line in lines if line.startswith("Private_")) / 1024


def growth(read: Callable[[int], Any], count: int) -> float:
    """MiB that a forked worker's private memory grows by in one pass over `count` captions; half of them before."""

    def work(answer: Any) -> None:
        read(0)
        before = private()
        for text in range(0, count, BATCH):
            read(text)
        answer.send(private() - before)

    mine, theirs = multiprocessing.get_context("fork").Pipe()
    worker = multiprocessing.get_context("fork").Process(target=work, args=(theirs,))
    worker.start()
    found = mine.recv()
    worker.join()
    return float(found)


def case(root: Path, answer: Any) -> None:
    """In a process of its own: seconds to open, MiB of a worker over mapped files and of one over lists.

    Modules that are imported when they are first needed (pyarrow asks for pandas where there is one) are not counted.
    """
    pa.array([""])
    seconds, data = opened(root)
    answer.send((seconds, *memory(data)))


def memory(data: PairsDataModule) -> tuple[float, float]:
    """MiB that a worker grows by over mapped files, and over lists."""
    captions, tokens = data.readers["train"].captions, data.readers["train"].tokens

    def mapped(start: int) -> None:
        texts = range(start, min(start + BATCH, captions.num_texts))
        tokens.take(texts)
        for text in texts:
            captions.texts[text].as_py()
        captions.text_id[list(texts)]

    lists = captions.texts.to_pylist()

    def listed(start: int) -> None:
        for text in lists[start : start + BATCH]:
            len(text)

    return growth(mapped, captions.num_texts), growth(listed, captions.num_texts)


def apart(root: Path) -> tuple[float, float, float]:
    """`case` in a new process."""
    mine, theirs = multiprocessing.get_context("spawn").Pipe()
    process = multiprocessing.get_context("spawn").Process(target=case, args=(root, theirs))
    process.start()
    theirs.close()
    found = mine.recv()
    process.join()
    return found  # type: ignore[no-any-return]


def main() -> None:
    """Prints a table, and last one line of JSON."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--captions", type=Path, metavar="FILE", help="a caption file in COCO's layout to repeat")
    parser.add_argument("--rounds", type=int, default=5, metavar="N", help="times to open it (default: %(default)s)")
    arguments = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = "1"
    with tempfile.TemporaryDirectory() as folder:
        write(Path(folder), arguments.captions)
        first = apart(Path(folder))[0]
        again = [apart(Path(folder)) for _ in range(arguments.rounds)]
    seconds, mapped, listed = (statistics.median(column) for column in zip(*again, strict=True))
    print(f"{IMAGES:,} images, {CAPTIONS:,} captions: opened in {first:.2f} s the first time, in {seconds:.2f} s later")
    print(f"private memory of a worker after one pass: {mapped:+.1f} MiB (Python lists: {listed:+.1f} MiB)")
    results = [
        {"name": "seconds to open, later", "value": round(seconds, 2), "goal": "<= 1", "met": seconds <= 1},
        {"name": "MiB a worker grows by", "value": round(mapped, 1), "goal": "<= 5", "met": mapped <= 5},
        {"name": "MiB, Python lists", "value": round(listed, 1), "goal": None, "met": None},
        {"name": "seconds to open, first", "value": round(first, 2), "goal": None, "met": None},
    ]
    print(json.dumps({"benchmark": "annotations", "results": results}))


if __name__ == "__main__":
    main()
