"""Sees to it that frozen encoders encode once: for every run that would get the same, and never for another."""

import logging
import shutil
import sys
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from rich.progress import Progress

from mmlit.contracts import ImageEncoder, TextEncoder
from mmlit.features.build import Build
from mmlit.features.encoding import Task, UnfitError, encode, tried
from mmlit.features.key import Manner, encoder_facts, image_facts, manner_facts, name_of, text_facts
from mmlit.features.layout import META, Layout, features_folder, read_json
from mmlit.features.removal import remove
from mmlit.features.store import FeatureStore

log = logging.getLogger(__name__)

Tower = Literal["image_encoder", "text_encoder"]
#: items in a chunk, the least that is lost when a build is killed; there are never many more chunks than this
_IMAGES, _TEXTS, _CHUNKS = 128, 1024, 4096
#: items encoded at a time: on a CPU the activations of so few pictures stay in the cache
_AT_A_TIME = {"images": {"cpu": 16, "cuda": 128}, "captions": {"cpu": 64, "cuda": 512}}
#: items tried to learn what an encoder gives
_TRIED = 2


class Side(NamedTuple):
    """The images or the captions of a split, to be encoded by one tower."""

    split: str
    reader: Any
    tower: Tower
    encoder: ImageEncoder | TextEncoder
    facts: dict[str, Any]

    @property
    def of_images(self) -> bool:
        """Whether these are the split's images."""
        return self.tower == "image_encoder"

    @property
    def what(self) -> str:
        """How messages name it."""
        return f"{self.facts['items']:,} {self.facts['side']} of {self.split}"


class FeatureStores:
    """Replaces frozen encoders by stores of their outputs, side by side with the data's readers.

    A store is found by all that determines it (`mmlit.features.key`), built if there is none, and kept for other runs.

    Args:
        folder: where stores are kept, in `features/` below it; None keeps none.
        half: whether values are kept in fp16, which halves the room and changes results; otherwise as they are.
    """

    def __init__(self, *, folder: str | None, half: bool) -> None:
        self.folder, self.half = None if folder is None else features_folder(Path(folder)), half

    def fill(
        self,
        readers: Mapping[str, Any],
        towers: Mapping[Tower, ImageEncoder | TextEncoder],
        *,
        tokens: bool,
        manner: Manner,
    ) -> bool:
        """Gives the readers (`mmlit.data.reader.BatchReader`) of each split the stores that can be exact.

        Args:
            readers: by split.
            towers: the two encoders, in the state in which the run uses them.
            tokens: whether the alignment reads tokens.
            manner: how the run would encode.

        Returns:
            Whether there is a store of either side.

        Raises:
            ValueError: if the disk has not the room, a picture cannot be read, or a store is damaged.
        """
        if hindrances := self._hindrances(readers, towers, manner):
            told = "no store" if len(hindrances) == len(towers) else "no store of its outputs"
            log.info("features: %s: %s", ", ".join(dict.fromkeys(hindrances.values())), told)
        if self.folder is None or len(hindrances) == len(towers):
            return False
        kept = {name: encoder for name, encoder in towers.items() if name not in hindrances}
        with torch.random.fork_rng([manner.device] if manner.device.type == "cuda" else []):
            sides = list(self._sides(readers, kept, manner))
            absent = [side for side in sides if not self._opened(side, tokens)]
            self._make(absent, self.folder, tokens, manner)
        if absent != sides:
            found = ", ".join(f"{side.facts['side']} of {side.split}" for side in sides if side not in absent)
            log.info("features: %s are in %s", found, self.folder)
        return any(reader.image_store or reader.text_store for reader in readers.values())

    def _hindrances(self, readers: Mapping[str, Any], towers: Mapping[Tower, Any], manner: Manner) -> dict[Tower, str]:
        """Why towers' outputs cannot be kept, by tower."""
        trained = {name: f"{name} is trained" for name, encoder in towers.items() if not encoder.frozen}
        changed = {name for reader in readers.values() if reader.augmenter for name in reader.augmenter.towers}
        trained = {**{name: f"{name} sees other things in each epoch" for name in towers if name in changed}, **trained}
        if len(trained) == len(towers):
            return trained
        if self.folder is None:
            return dict.fromkeys(towers, "paths.cache=null keeps nothing")
        if manner.precision.endswith("-mixed") and "text_encoder" not in trained:
            told = f"under trainer.precision={manner.precision} a caption's features change with its batch's padding"
            return {**trained, "text_encoder": told}
        return trained

    def _sides(
        self, readers: Mapping[str, Any], towers: Mapping[Tower, ImageEncoder | TextEncoder], manner: Manner
    ) -> Iterator[Side]:
        """What is to be found or made, each known by its facts."""
        known = {tower: encoder_facts(encoder) for tower, encoder in towers.items()}
        rules = manner_facts(manner, half=self.half)
        for split, reader in readers.items():
            for tower, encoder in towers.items():
                own = image_facts(reader) if tower == "image_encoder" else text_facts(reader)
                if (reader.image_store if tower == "image_encoder" else reader.text_store) is None:
                    yield Side(split, reader, tower, encoder, {**own, **known[tower], **rules})

    def _opened(self, side: Side, tokens: bool) -> bool:
        """Whether a complete store holds what is asked for, which the reader then has; one with tokens serves all."""
        for with_tokens in (True,) if tokens else (True, False):
            folder = self._place(side, with_tokens)
            if (folder / META).is_file():
                _open(side, folder, tokens)
                return True
        return False

    def _make(self, sides: list[Side], folder: Path, tokens: bool, manner: Manner) -> None:
        """Builds stores, after it was told how large they become."""
        layouts: dict[Tower, tuple[str, str, int]] = {}
        builds: list[tuple[Side, Build, Task]] = []
        for side in sides:
            task = _task(side, manner)
            if side.tower not in layouts:
                layouts[side.tower] = self._tried(task, manner)
            pooled, kept, per_image = layouts[side.tower]
            if side.of_images:
                task = task._replace(first=np.arange(side.facts["items"] + 1, dtype=np.int64) * per_image)
            builds.append((side, self._build(side, task, pooled, kept if tokens else None), task))
        _tell(builds, folder)
        for side, build, task in builds:
            if not build.complete:  # two splits may have the same captions
                self._encode(side, build, task, manner)
            if build.complete:
                _open(side, build.folder, tokens)

    def _tried(self, task: Task, manner: Manner) -> tuple[str, str, int]:
        """Types of pooled vectors and tokens, and the tokens of an item."""
        encoded = tried(task, manner, range(min(_TRIED, len(task.first) - 1)))
        kinds = ("float16" if self.half else str(part.dtype).removeprefix("torch.") for part in encoded[1::-1])
        pooled, kept = kinds
        return pooled, kept, encoded.mask.shape[1]

    def _build(self, side: Side, task: Task, pooled: str, kept: str | None) -> Build:
        count = side.facts["items"]
        layout = Layout(
            items=count,
            rows=int(task.first[-1]),
            width=side.encoder.spec.dim,
            pooled=pooled,
            tokens=kept,
            chunk=max(_IMAGES if side.of_images else _TEXTS, -(-count // _CHUNKS)),
        )
        name = getattr(side.encoder, "name", "")
        told = f"{type(side.encoder).__name__}{f' {name}' if isinstance(name, str) and name else ''}"
        about = {"encoder": told, "data": str(side.reader.captions.source), "split": side.split}
        return Build(self._place(side, kept is not None), layout=layout, facts=side.facts, about=about)

    def _encode(self, side: Side, build: Build, task: Task, manner: Manner) -> None:
        with Progress(transient=True, disable=not sys.stdout.isatty()) as progress:
            bar = progress.add_task(side.what, total=build.layout.items)
            try:
                encode(build, task, manner, tell=lambda count: progress.update(bar, completed=count))
            except UnfitError as error:
                log.warning("features: %s: %s; it encodes in every epoch", side.tower, error)
                remove(build.folder)

    def _place(self, side: Side, tokens: bool) -> Path:
        return Path(str(self.folder)) / name_of(side.facts, tokens=tokens)


def _open(side: Side, folder: Path, tokens: bool) -> None:
    """Gives a store to its reader, who then knows which pictures could not be read."""
    meta = read_json(folder / META)
    if not side.of_images:
        side.reader.text_store = FeatureStore(folder, first=side.reader.tokens.first if tokens else None)
        return
    layout = Layout(**meta["layout"])
    first = np.arange(layout.items + 1, dtype=np.int64) * (layout.rows // layout.items)
    side.reader.broken.recall([number for chunk in meta["chunks"] for number in chunk["broken"]])
    side.reader.image_store = FeatureStore(folder, first=first if tokens else None)


def _task(side: Side, manner: Manner) -> Task:
    reader = side.reader
    read: Callable[..., Any] = partial(_pixels, reader) if side.of_images else reader.tokens.take
    batch = _AT_A_TIME[side.facts["side"]]
    return Task(
        encoder=side.encoder,
        read=read,
        first=np.arange(side.facts["items"] + 1) if side.of_images else np.asarray(reader.tokens.first),
        batch=batch.get(manner.device.type, batch["cpu"]),
        sort=not side.of_images,
        broken=partial(_broken, reader) if side.of_images else _none,
    )


def _tell(builds: list[tuple[Side, Build, Task]], folder: Path) -> None:
    """Says what is encoded and how much room it takes.

    Raises:
        ValueError: if the disk has not that room.
    """
    if not builds:
        return
    folder.mkdir(parents=True, exist_ok=True)
    size, free = sum(sum(build.layout.sizes().values()) for _, build, _ in builds), shutil.disk_usage(folder).free
    lacking = sum(build.lacks() for _, build, _ in builds)
    told = f"{', '.join(side.what for side, _, _ in builds)}: {_gib(size)} in {folder}"
    if lacking > free:
        raise ValueError(
            f"features: {told}, of which {_gib(lacking)} are still to be written, but {_gib(free)} are free; name a "
            "folder on another disk with paths.cache=..., or encode in every epoch with features=none"
        )
    log.info("features: encodes %s (%s free)", told, _gib(free))


def _gib(size: float) -> str:
    return f"{size / 2**30:.1f} GiB" if size >= 2**29 else f"{size / 2**20:.1f} MiB"


def _pixels(reader: Any, items: list[int]) -> tuple[torch.Tensor]:
    return (reader.pixels(items),)


def _broken(reader: Any, items: range) -> list[int]:
    return [number for number in items if number in reader.broken]


def _none(items: range) -> list[int]:
    return []
