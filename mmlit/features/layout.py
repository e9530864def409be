"""How a store lies on disk. No torch: `mmlit features` answers at once.

`FOLDER/features/NAME/` holds `pooled` (N,D) and, where tokens are kept, `tokens` (rows,D): every item's tokens end to
end, an item's first row being known from its length. While it is built there are `plan.json` and `chunks/`, a marker
and a lock for each chunk; it is complete once `meta.json` is there.
"""

import json
import os
from pathlib import Path
from typing import Any, NamedTuple
from zlib import crc32

from filelock import FileLock

#: of these files and of what is told in a key; another one is another key
VERSION = 1
META, PLAN, CHUNKS = "meta.json", "plan.json", "chunks"
#: in `chunks/`, how the locks begin that building processes hold from beginning to end
PRESENCE = "process-"
#: what values are kept as, and the bytes of each
BYTES = {"float64": 8, "float32": 4, "float16": 2, "bfloat16": 2}
#: what plan and meta tell, and what else meta tells
_TOLD = {PLAN: {"layout", "facts", "about"}, META: {"layout", "facts", "about", "chunks"}}
_BLOCK = 2**24


class Layout(NamedTuple):
    """N items of width D with `rows` tokens together; `pooled` and `tokens` name types (None: no tokens are kept)."""

    items: int
    rows: int
    width: int
    pooled: str
    tokens: str | None
    chunk: int

    def sizes(self) -> dict[str, int]:
        """Bytes of each file."""
        sizes = {"pooled": self.items * self.width * BYTES[self.pooled]}
        return sizes if self.tokens is None else sizes | {"tokens": self.rows * self.width * BYTES[self.tokens]}

    @property
    def num_chunks(self) -> int:
        """How many parts are encoded one by one."""
        return -(-self.items // self.chunk)

    def items_of(self, chunk: int) -> range:
        """Numbers of the items in a chunk."""
        return range(chunk * self.chunk, min((chunk + 1) * self.chunk, self.items))


def features_folder(cache: Path) -> Path:
    """Where a cache keeps its stores."""
    return cache / "features"


def lock_of(features: Path) -> FileLock:
    """Held for moments by who begins, completes or removes a store."""
    return FileLock(features / ".lock")


def read_json(path: Path) -> dict[str, Any]:
    """A file of a store.

    Raises:
        ValueError: if it is damaged.
    """
    try:
        content: dict[str, Any] = json.loads(path.read_text())
        if not isinstance(content, dict) or not _TOLD.get(path.name, set()) <= content.keys():
            raise ValueError("something is not told")
    except ValueError as error:
        raise ValueError(f"{path} is damaged; {how_to_remove(path.parent)}") from error
    return content


def write_json(path: Path, content: dict[str, Any]) -> None:
    """The whole file or none, on the disk."""
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    with beside.open("w") as file:
        json.dump(content, file)
        file.flush()
        os.fsync(file.fileno())
    beside.replace(path)
    if os.name == "posix":  # brings the rename itself to the disk
        directory = os.open(path.parent, os.O_RDONLY)
        os.fsync(directory)
        os.close(directory)


def check_sizes(folder: Path, layout: Layout) -> None:
    """Refuses files that are not as long as they were written.

    Raises:
        ValueError: naming the file.
    """
    for name, size in layout.sizes().items():
        path = folder / name
        found = path.stat().st_size if path.is_file() else 0
        if found != size:
            raise ValueError(f"{path} has {found:,} bytes in place of {size:,}; {how_to_remove(folder)}")


def how_to_remove(folder: Path) -> str:
    """What a user does with a damaged store."""
    cache = folder.parent.parent
    return f"remove it: mmlit features remove {folder.name} --folder {cache}"


def damaged(folder: Path) -> list[str]:
    """What the checksums of a complete store find, one line for each damaged chunk."""
    meta = read_json(folder / META)
    layout = Layout(**meta["layout"])
    found = []
    for number, chunk in enumerate(meta["chunks"]):
        items = layout.items_of(number)
        for name in damaged_files(folder, chunk):
            offset, size, _ = chunk["files"][name]
            place = f"bytes {offset:,} to {offset + size:,}"
            found.append(f"{name} of items {items.start:,} to {items.stop - 1:,} ({place})")
    return found


def damaged_files(folder: Path, chunk: dict[str, Any]) -> list[str]:
    """Files whose part of a finished chunk is not what its marker says."""
    return [name for name, (offset, size, told) in chunk["files"].items()
            if _checksum(folder / name, offset, size) != told]  # fmt: skip


def _checksum(path: Path, offset: int, size: int) -> int | None:
    """CRC-32 of a part of a file; None if the file ends before."""
    if not path.is_file():
        return None
    value = 0
    with path.open("rb") as file:
        file.seek(offset)
        while size and (block := file.read(min(size, _BLOCK))):
            value, size = crc32(block, value), size - len(block)
    return None if size else value
