"""Reads image–caption pairs from webdataset shards, as img2dataset or `mmlit data shards` writes them."""

import json
import logging
from collections import Counter
from collections.abc import Sequence
from functools import partial
from hashlib import sha256
from pathlib import Path
from typing import Literal

import numpy as np
import pyarrow as pa
from rich.progress import track

from mmlit.data.captions import Captions
from mmlit.data.folder import require_folder, split_names, twice
from mmlit.data.processes import available_cores, made
from mmlit.data.shard_index import CUT, ShardIndex, index
from mmlit.data.shard_library import expand_urls
from mmlit.data.survey import BadRow, Survey, counted

log = logging.getLogger(__name__)
#: what `mmlit data shards` says of a folder that it writes
MANIFEST = "shards.json"
_ARCHIVES = (".tar", ".tgz", ".tar.gz", ".tar.bz2", ".tar.xz", ".tar.zst")


class Shards:
    """Tar files with KEY.jpg (or .png, .webp …), KEY.txt and KEY.json, read where they lie.

    Headers and captions are read once, pictures when they are asked for. Ids are those that KEY.json names, as
    `image_id` and `text_ids`, else a hash of the shard's path below `root` and the key.

    Args:
        root: the data set's folder.
        shards: where a split's shards lie below `root`: `{split}` is its name, braces and `*` are expanded. A split's
            name that ends like a tar stands for itself.
        captions: what KEY.json calls a caption, or a list of several; KEY.txt has it where that is not there. None:
            KEY.txt always.
        incomplete: `raise` at a sample without picture or caption, and at a shard whose end is missing; `skip` takes
            what is whole and tells how much is not.
        window: images of as many whole shards as have so many are shuffled together; an epoch takes the shards in
            random order. Reading stays local; with a window of the whole set, order is that of any other data.

    Raises:
        FileNotFoundError: if `root` is no folder.
        ValueError: if `window` is not ≥ 1.

    Source: https://github.com/webdataset/webdataset and https://github.com/rom1504/img2dataset (layout).
    """

    def __init__(
        self, *, root: str | Path, shards: str, captions: str | None, incomplete: Literal["raise", "skip"], window: int
    ) -> None:
        if "://" in str(root) or str(root).startswith("pipe:"):
            raise ValueError(f"data.root={root}: shards are read from files; fetch them first")
        if window < 1:
            raise ValueError(f"data.source.window must be >= 1, got {window}")
        self.root = require_folder(root, "; docs/data.md says what belongs there")
        self.shards, self.captions, self.incomplete, self.window = shards, captions, incomplete, window

    def inputs(self, split: str) -> list[Path]:
        """The shards, which are known by size and time: their content is too much to read it for each run.

        Raises:
            FileNotFoundError: if there is none, or one that is named is not there.
            ValueError: if `mmlit data shards` has not finished them, or some of its shards are gone.
        """
        return [path for name in split_names(split) for path in self._paths(name)]

    def read(self, split: str) -> Captions:
        """One split, or several joined by `+`, checked but for the content of its pictures.

        Raises:
            FileNotFoundError: as `inputs`.
            ValueError: as `inputs`; if a shard is compressed or damaged, a key comes twice in one, a sample is
                incomplete (unless such are to be skipped), an id comes twice, or nothing is left.
        """
        found = self._indexed(split)
        self._tell(found, split)
        return self._assembled(found, split)

    def survey(self, split: str) -> Survey:
        """What is whole of a split, and every sample and shard that is not."""
        found = self._indexed(split)
        bad = []
        for shard in found:
            for kind, faults in shard.faults.items():
                for place, _, what in (fault.partition(": ") for fault in faults):
                    told = f"is {CUT}: {what}" if kind == CUT else f"is a sample {kind}"
                    bad.append(BadRow(place if kind == CUT else f"{place}: {what}", told))
        none = bad and not any(len(shard.image_id) for shard in found)
        return Survey(None if none else self._assembled(found, split), None, bad)

    def _indexed(self, split: str) -> list[ShardIndex]:
        names = [path.relative_to(self.root).as_posix() for path in self.inputs(split)]
        read = made(partial(index, self.root, captions=self.captions), names, workers=available_cores())
        bar = f"{split}: headers of {len(names)} shards"
        return [*track(read, bar, len(names), transient=True, disable=len(names) == 1)]

    def _assembled(self, found: Sequence[ShardIndex], split: str) -> Captions:
        source = self.root / "+".join(self._pattern(name) for name in split_names(split))
        return _assembled(found, root=self.root, source=source, window=self.window)

    def _pattern(self, name: str) -> str:
        return name if name.endswith(_ARCHIVES) else self.shards.replace("{split}", name)

    def _paths(self, name: str) -> list[Path]:
        paths = []
        for each in expand_urls(self._pattern(name)):
            if "://" in each or each.startswith("pipe:"):
                raise ValueError(f"{each}: shards are read from files; fetch them first")
            found = sorted(self.root.glob(each)) if any(sign in each for sign in "*?[") else [self.root / each]
            if absent := [path for path in found or [self.root / each] if not path.is_file()]:
                raise FileNotFoundError(f"split {name!r}: no shard {absent[0]}{self._others()}")
            self._require_finished(found)
            paths += found
        if pair := twice(paths):
            raise ValueError(f"split {name!r}: {paths[pair[0]]} comes twice")
        return paths

    def _require_finished(self, found: Sequence[Path]) -> None:
        """Of a folder that `mmlit data shards` writes, all shards that it will have."""
        if (manifest := self.root / MANIFEST).is_file():
            facts = json.loads(manifest.read_text())["parts"].get(found[0].parent.name, {})
            if not facts.get("complete", True):
                raise ValueError(f"{found[0].parent} is not finished; the same `mmlit data shards` goes on")
            if len(found) > 1 and len(found) < facts.get("shards", 0):
                raise ValueError(f"{found[0].parent} has {len(found)} of its {facts['shards']} shards")

    def _others(self) -> str:
        """Where else shards lie."""
        if count := len([*self.root.glob("*.tar")]):
            return f"; {count} lie in {self.root} itself: 'data.train=*.tar' data.val=0.05 data.test=0.1"
        counts = Counter(path.parent.name for path in sorted(self.root.glob("*/*.tar")))
        return f" (found: {', '.join(f'{name}/*.tar ({count})' for name, count in counts.items())})" if counts else ""

    def _tell(self, found: Sequence[ShardIndex], split: str) -> None:
        """Refuses what is not whole, or says how much is left out."""
        kinds = Counter[str]()
        first: dict[str, str] = {}
        for shard in found:
            for kind, faults in shard.faults.items():
                kinds[kind] += len(faults)
                first.setdefault(kind, faults[0])
        if not kinds:
            return
        told = "; ".join(
            f"{counted(count, 'shard' if kind == CUT else 'sample')} {kind}, the first {self.root / first[kind]}"
            for kind, count in kinds.items()
        )
        whole = sum(len(shard.image_id) for shard in found)
        if self.incomplete == "raise":
            raise ValueError(
                f"split {split!r}: {told}; mend that (mmlit data check lists all), or take the "
                f"{counted(whole, 'whole sample')}: data.source.incomplete=skip"
            )
        log.warning(
            "split %r: %s; used: %s (mmlit data check lists the others)", split, told, counted(whole, "whole sample")
        )


def _assembled(found: Sequence[ShardIndex], *, root: Path, source: Path, window: int) -> Captions:
    sizes = [len(shard.image_id) for shard in found]
    if not sum(sizes):
        raise ValueError(f"{source}: no samples in {counted(len(found), 'shard')}")
    names = pa.array([shard.name for shard in found], pa.string())
    image_id, text_id, counts, spans = (
        np.concatenate([getattr(shard, column) for shard in found])
        for column in ("image_id", "text_id", "counts", "spans")
    )
    places, texts = (pa.concat_arrays([getattr(shard, column) for shard in found]) for column in ("places", "texts"))
    _require_once("image_id", image_id, places)
    _require_once("text_id", text_id, places.take(pa.array(np.repeat(np.arange(len(counts)), counts))))
    return Captions(
        root=root,
        source=source,
        files=names.take(pa.array(np.repeat(np.arange(len(found)), sizes))),
        image_id=image_id,
        texts=texts,
        text_id=text_id,
        first=np.concatenate([[0], np.cumsum(counts)]),
        digest=sha256("|".join(shard.digest for shard in found).encode()).hexdigest()[:16],
        places=places,
        spans=spans,
        window=window,
    )


def _require_once(what: str, ids: np.ndarray, places: pa.Array) -> None:
    order = np.argsort(ids, kind="stable")
    if len(same := np.flatnonzero(ids[order][1:] == ids[order][:-1])):
        one, two = order[same[0]], order[same[0] + 1]
        raise ValueError(f"{places[one]} and {places[two]} have the same {what} {ids[order[same[0]]]}")
