"""A folder of shards: planned, written by several processes, taken up again after a kill."""

import json
import shutil
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock, Timeout
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from mmlit.data.captions import Captions
from mmlit.data.folder import require_pictures
from mmlit.data.processes import made
from mmlit.data.shard_writing import Shard, ShardMaker, Shrinking, clear, finished, shards_of, write_json
from mmlit.data.shards import MANIFEST
from mmlit.data.survey import counted

#: pictures of each split that are made to tell how much room all of them need
_PROBES = 32
#: of what the probes tell; a split of few large pictures may lie above their mean
_RESERVE = 1.1
_LOCK = ".lock"


def write_shards(
    parts: dict[str, Captions], *, out: Path, shrinking: Shrinking, per_shard: int, skip: bool, workers: int
) -> None:
    """Writes each split to a folder of its name below `out`; goes on where an earlier time was killed.

    Args:
        parts: splits by name.
        out: the folder; it may hold further splits, written in the same way.
        shrinking: how pictures are made smaller.
        per_shard: images of a shard, ≥ 1.
        skip: whether pictures that cannot be read are left out and told; otherwise they stop the work.
        workers: processes.

    Raises:
        ValueError: if a number is out of range, `out` holds something else, or a picture cannot be read.
        OSError: if the disk has not the room, or another process writes here.
    """
    _check(shrinking, per_shard)
    console = Console(stderr=True, highlight=False, width=None if sys.stderr.isatty() else 100)
    say = partial(console.print, markup=False, soft_wrap=True)
    maker = ShardMaker(parts=parts, shrinking=shrinking, skip=skip)
    for captions in () if skip else parts.values():
        require_pictures(captions)
    with _alone(out):
        settings = {**shrinking._asdict(), "per_shard": per_shard}
        manifest = _manifest(out, settings, parts)
        shards = [
            s for part, captions in parts.items() for s in shards_of(part, captions, out=out, per_shard=per_shard)
        ]
        missing = [shard for shard in shards if finished(shard) is None]
        if missing:
            _require_room(out, maker, missing)
            manifest["parts"] |= {part: _facts(captions, complete=False) for part, captions in parts.items()}
            write_json(out / MANIFEST, manifest)
            _prepare(out, parts, missing)
            if len(missing) < len(shards):
                say(f"{len(shards) - len(missing)} of {len(shards)} shards are there already")
            _make(maker, missing, workers=workers, console=console)
        for part, captions in parts.items():
            own = [done for shard in shards if shard.part == part and (done := finished(shard))]
            left = [told for done in own for told in done.unreadable]
            manifest["parts"][part] = {
                **_facts(captions, complete=True), "samples": sum(done.samples for done in own), "shards": len(own),
                "bytes": sum(done.size for done in own), "unreadable": left,
            }  # fmt: skip
            say(_told(out, part, manifest["parts"][part]))
        write_json(out / MANIFEST, manifest)


def _check(shrinking: Shrinking, per_shard: int) -> None:
    if per_shard < 1:
        raise ValueError(f"--per-shard must be >= 1, got {per_shard}")
    if shrinking.shorter_side is not None and shrinking.shorter_side < 1:
        raise ValueError(f"--shorter-side must be >= 1, got {shrinking.shorter_side}")
    if not 1 <= shrinking.quality <= 100:
        raise ValueError(f"--quality must lie in 1 … 100, got {shrinking.quality}")


@contextmanager
def _alone(out: Path) -> Iterator[None]:
    """This process's folder while it lasts."""
    if out.exists() and not out.is_dir():
        raise ValueError(f"--out {out} is no folder")
    out.mkdir(parents=True, exist_ok=True)
    lock = FileLock(out / _LOCK, timeout=0)
    try:
        with lock:
            clear(out, MANIFEST)  # no other name: what else is here may be somebody's own
            yield
    except Timeout:
        raise OSError(f"another process writes shards to {out}") from None
    finally:
        if not any(path.name != _LOCK for path in out.iterdir()):  # nothing came of it
            shutil.rmtree(out)


def _manifest(out: Path, settings: dict[str, Any], parts: dict[str, Captions]) -> dict[str, Any]:
    """What is known of the folder so far.

    Raises:
        ValueError: if it holds something else than what is asked for.
    """
    path = out / MANIFEST
    if not path.is_file():
        if others := [each.name for each in out.iterdir() if each.name != _LOCK]:
            raise ValueError(f"--out {out} holds {sorted(others)[0]!r} and is no folder of shards; name a new one")
        return {"settings": settings, "parts": {}}
    manifest: dict[str, Any] = json.loads(path.read_text())
    for option, value in settings.items():
        if (there := manifest["settings"].get(option)) != value:
            raise ValueError(f"{out} was begun with {option}={there}, now it is {value}; name another --out")
    for part, captions in parts.items():
        there = manifest["parts"].get(part, {}).get("stamp", captions.stamp)
        if there != captions.stamp:
            raise ValueError(f"{out / part} was begun with other data than {captions.source}; name another --out")
    return manifest


def _facts(captions: Captions, *, complete: bool) -> dict[str, Any]:
    return {
        "source": str(captions.source),
        "stamp": captions.stamp,
        "images": captions.num_images,
        "captions": captions.num_texts,
        "complete": complete,
    }


def _prepare(out: Path, parts: dict[str, Captions], missing: Sequence[Shard]) -> None:
    """Folders, without what a kill left half-written."""
    for part in parts:
        (out / part).mkdir(exist_ok=True)
    for folder in {shard.path.parent for shard in missing}:
        clear(folder)


def _require_room(out: Path, maker: ShardMaker, missing: Sequence[Shard]) -> None:
    """Raises `OSError` if what is missing does not fit, as some samples of it tell."""
    needed = 0.0
    for part, captions in maker.parts.items():
        images = np.array([image for each in missing if each.part == part for image in range(each.start, each.stop)])
        if len(images):
            probes = images[np.linspace(0, len(images) - 1, min(_PROBES, len(images))).astype(int)]
            sizes = [maker.size(captions, image) for image in probes.tolist()]
            needed += _RESERVE * len(images) * float(np.mean(sizes))
    if needed > (free := shutil.disk_usage(out).free):
        raise OSError(f"{out}: about {needed / 1e9:.1f} GB are needed, but only {free / 1e9:.1f} GB are free")


def _make(maker: ShardMaker, missing: Sequence[Shard], *, workers: int, console: Console) -> None:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    results = made(maker, missing, workers=workers)
    with Progress(*columns, console=console, transient=True) as progress:
        bar = progress.add_task("images", total=sum(shard.stop - shard.start for shard in missing))
        for shard, _ in zip(missing, results, strict=True):
            progress.advance(bar, shard.stop - shard.start)


def _told(out: Path, part: str, facts: dict[str, Any]) -> str:
    told = (
        f"{out / part}: {counted(facts['samples'], 'image')} with their captions in "
        f"{counted(facts['shards'], 'shard')}, {facts['bytes'] / 1e6:,.1f} MB"
    )
    left = facts["unreadable"]
    return (
        f"{told}; left out: {counted(len(left), 'picture')} that could not be read, the first {left[0]}"
        if left
        else told
    )
