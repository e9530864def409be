"""Captions that were read once, kept in files that are mapped into memory."""

import json
import mmap
import os
import shutil
from collections.abc import Callable, Sequence
from contextlib import suppress
from hashlib import file_digest, sha256
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from mmlit.data.captions import Captions

#: of the files below; another one is another key
_VERSION = 3
#: endings of files that are known by size and time: reading all of them takes as long as an epoch
_ARCHIVES = (".tar",)


def kept(read: Callable[[], Captions], *, folder: Path, inputs: Sequence[Path], settings: str) -> Captions:
    """What `read` gives, from `folder` if the same content was read before with the same `settings`.

    What determines the result is the key: the content of `inputs` (of an archive its size and when it was written),
    where they lie, and `settings`.
    """
    digest = sha256(f"{_VERSION}|{settings}".encode())
    for path in inputs:
        digest.update(f"|{path}|{_content(path)}".encode())
    place = folder / "captions" / digest.hexdigest()[:24]
    return _open(made_once(place, lambda beside: _write(read(), beside)))


def _content(path: Path) -> str:
    if path.name.endswith(_ARCHIVES):
        stat = path.stat()
        return f"{stat.st_size}|{stat.st_mtime_ns}"
    with path.open("rb") as file:
        return file_digest(file, "sha256").hexdigest()


def made_once(place: Path, write: Callable[[Path], None]) -> Path:
    """`place`, a folder that `write` fills if there is none.

    It is filled beside and renamed: a kill leaves nothing half-written, and of two processes either one's is kept.
    """
    if not place.is_dir():
        beside = place.with_name(f".{place.name}.{os.getpid()}")
        shutil.rmtree(beside, ignore_errors=True)  # of a process of that number that was killed
        beside.mkdir(parents=True)
        try:
            write(beside)
            with suppress(OSError):  # another process was quicker: its files are the same
                beside.rename(place)
        finally:
            shutil.rmtree(beside, ignore_errors=True)
    return place


def _write(captions: Captions, folder: Path) -> None:
    columns: dict[str, Any] = {
        "files": captions.files,
        "image_id": captions.image_id,
        "first": captions.first[:-1],
        "places": captions.places,
        "offset": None if captions.spans is None else captions.spans[:, 0],
        "size": None if captions.spans is None else captions.spans[:, 1],
        "tags": captions.tags,
    }
    images = {name: pa.array(column) for name, column in columns.items() if column is not None}
    for name, table in (
        ("images", pa.table(images)),
        ("texts", pa.table({"texts": captions.texts, "text_id": captions.text_id})),
    ):
        with pa.OSFile(str(folder / f"{name}.arrow"), "wb") as sink, pa.ipc.new_file(sink, table.schema) as writer:
            writer.write_table(table.combine_chunks())
    facts = {
        "root": str(captions.root),
        "source": str(captions.source),
        "digest": captions.digest,
        "window": captions.window,
        "others": captions.others,
    }
    (folder / "captions.json").write_text(json.dumps(facts))


def _open(folder: Path) -> Captions:
    facts = json.loads((folder / "captions.json").read_text())
    images, texts = (_columns(folder / f"{name}.arrow") for name in ("images", "texts"))
    spans = None
    if "offset" in images:
        spans = np.stack([np.from_dlpack(images["offset"]), np.from_dlpack(images["size"])], axis=1)
    return Captions(
        root=Path(facts["root"]),
        source=Path(facts["source"]),
        files=images["files"],
        image_id=np.from_dlpack(images["image_id"]),
        texts=texts["texts"],
        text_id=np.from_dlpack(texts["text_id"]),
        first=np.append(np.from_dlpack(images["first"]), len(texts["texts"])),
        digest=facts["digest"],
        places=images.get("places"),
        spans=spans,
        tags=images.get("tags"),
        window=facts["window"],
        others=facts["others"],
    )


def _columns(path: Path) -> dict[str, pa.Array]:
    """Columns of a file with one batch, without a copy."""
    mapped = pa.memory_map(str(path))
    touch(np.frombuffer(mapped.read_buffer(), np.uint8))
    mapped.seek(0)
    batch = pa.ipc.open_file(mapped).get_batch(0)
    return dict(zip(batch.schema.names, batch.columns, strict=True))


def touch(mapped: np.ndarray) -> None:
    """Reads a byte of every page of a mapped file: pages that this process has, reading processes share with it."""
    mapped.view(np.uint8)[:: mmap.PAGESIZE].sum()
