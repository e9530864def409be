"""Writes the embedded data set: pictures and annotations for all three splits, all of it or nothing."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from mmlit.data.processes import available_cores
from mmlit.data.scenes import layout
from mmlit.data.scenes.folder import all_or_nothing
from mmlit.data.scenes.samples import MAX_IMAGES, Chunk, Sample
from mmlit.data.scenes.workers import made_chunks
from mmlit.data.scenes.world import SPLITS

# To be increased whenever the same arguments begin to give other bytes.
FORMAT = 2
MANIFEST = "scenes.json"
SIZES = (24, 1024)
CHUNK = 50


def write_scenes(
    *, root: Path, train: int, val: int, test: int, size: int, seed: int, workers: int | None = None
) -> None:
    """Render the embedded data set into `root`, or say that it is already there.

    Picture number i of a split depends on (seed, split, i) alone: not on the other splits' sizes, not on
    the number of processes, and its scene not on `size`. Worker processes are spawned: a script that calls
    this needs the usual `if __name__ == "__main__"` guard.

    Args:
        root: A new or empty folder; its parents are made.
        train: Number of training pictures, 1 to 10,000,000.
        val: Number of validation pictures, in the same range.
        test: Number of test pictures, in the same range.
        size: Height and width of the pictures, 24 to 1024 pixels.
        seed: At least 0.
        workers: Number of processes, at least 1; 1 renders in this process, None takes one per core.

    Raises:
        ValueError: An argument is out of range.
        FileExistsError: `root` is a file, holds anything but the set asked for, or is being written.
    """
    counts = {"train": train, "val": val, "test": test}
    _check(counts=counts, size=size, seed=seed, workers=workers)
    manifest = {"format": FORMAT, **counts, "size": size, "seed": seed}
    console = Console(stderr=True)
    if _is_there(root=root, manifest=manifest):
        console.print(f"{root} already holds these scenes; nothing to do", soft_wrap=True, highlight=False)
        return
    with all_or_nothing(root) as folder:
        chunks = list(_chunks(folder=folder, counts=counts, size=size, seed=seed))
        samples = _make_all(chunks=chunks, workers=workers or available_cores(), console=console)
        for split in SPLITS:
            _annotate(folder=folder, split=split, samples=samples[split], size=size)
        _dump(path=folder / MANIFEST, content=manifest)
    console.print(f"wrote {sum(counts.values()):,} scenes to {root}", soft_wrap=True, highlight=False)


def _check(*, counts: dict[str, int], size: int, seed: int, workers: int | None) -> None:
    for name, count in counts.items():
        if not 1 <= count <= MAX_IMAGES:
            raise ValueError(f"{name} must be between 1 and {MAX_IMAGES:,} pictures, got {count}")
    if not SIZES[0] <= size <= SIZES[1]:
        raise ValueError(f"size must be between {SIZES[0]} and {SIZES[1]} pixels, got {size}")
    if seed < 0:
        raise ValueError(f"seed must be at least 0, got {seed}")
    if workers is not None and workers < 1:
        raise ValueError(f"workers must be at least 1, got {workers}")


def _is_there(*, root: Path, manifest: dict[str, int]) -> bool:
    """Say whether `root` holds the set asked for; refuse whatever else it may hold."""
    if not root.exists() or (root.is_dir() and not any(root.iterdir())):
        return False
    if not (root / MANIFEST).is_file():
        raise FileExistsError(f"{root} exists and is not a set of scenes; choose another root")
    try:
        found = json.loads((root / MANIFEST).read_text(encoding="utf-8"))
    except ValueError as error:
        raise FileExistsError(f"{root / MANIFEST} cannot be read ({error}); choose another root") from error
    if found != manifest:
        raise FileExistsError(
            f"{root} holds other scenes ({found}) than asked for ({manifest}); remove it or choose another root"
        )
    return True


def _chunks(*, folder: Path, counts: dict[str, int], size: int, seed: int) -> Iterator[Chunk]:
    for split, count in counts.items():
        pictures = folder / f"{split}2017"
        pictures.mkdir(parents=True)
        for first in range(0, count, CHUNK):
            yield Chunk(pictures, split, first, min(first + CHUNK, count), size, seed)


def _make_all(*, chunks: list[Chunk], workers: int, console: Console) -> dict[str, list[Sample]]:
    """Make all chunks, in this process or in `workers` others, and return the samples of each split in
    order."""
    samples: dict[str, list[Sample]] = {split: [] for split in SPLITS}
    columns = (TextColumn("rendering scenes"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console) as progress:
        task = progress.add_task("", total=sum(chunk.last - chunk.first for chunk in chunks))
        for chunk, made in zip(chunks, made_chunks(chunks=chunks, workers=workers), strict=True):
            samples[chunk.split] += made
            progress.advance(task, len(made))
    return samples


def _annotate(*, folder: Path, split: str, samples: list[Sample], size: int) -> None:
    """Write the annotation files of a split; train has neither true pairs nor hard negatives."""
    annotations = folder / "annotations"
    contents = {
        annotations / f"captions_{split}2017.json": layout.captions_layout(samples=samples, size=size),
        annotations / f"instances_{split}2017.json": layout.instances_layout(samples=samples, size=size),
        annotations / f"scene_graphs_{split}2017.json": layout.graphs_layout(samples=samples),
    }
    if split != "train":
        contents[annotations / f"true_pairs_{split}2017.json"] = layout.true_pairs(samples=samples)
        for kind, items in layout.negatives_layout(samples=samples).items():
            contents[folder / "sugarcrepe" / split / f"{kind}.json"] = items
    for path, content in contents.items():
        _dump(path=path, content=content)


def _dump(*, path: Path, content: dict[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content), encoding="utf-8")
