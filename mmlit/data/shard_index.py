"""What lies where in a shard: tar headers and captions are read, pictures are not."""

import json
import os
import tarfile
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np
import pyarrow as pa

from mmlit.data.folder import stable_id
from mmlit.data.shard_library import group_by_keys
from mmlit.data.survey import counted

#: endings of what is a sample's picture
PICTURES = frozenset({"jpg", "jpeg", "png", "webp", "gif", "bmp", "tif", "tiff"})
_ENDINGS = PICTURES | {"txt", "json"}
_GZIP = b"\x1f\x8b"
#: kind of fault of a shard whose end is missing
CUT = "cut off"


class ShardIndex(NamedTuple):
    """S samples of one shard with their R captions, in its order.

    `name` is the shard below its root; `places` (S,) how messages name a sample; `spans` (S, 2) offset and bytes of its
    picture; `image_id` (S,); `counts` (S,) captions of each; `texts`, `text_id` (R,). `faults` names, by kind, every
    sample that has no place in it; `digest` is a hash of all that was read.
    """

    name: str
    places: pa.Array
    spans: np.ndarray
    image_id: np.ndarray
    counts: np.ndarray
    texts: pa.Array
    text_id: np.ndarray
    faults: dict[str, list[str]]
    digest: str


def index(root: Path, name: str, *, captions: str | None) -> ShardIndex:
    """The shard `name` below `root`, grouped into samples by webdataset's rule: what stands before a file's first dot.

    Args:
        root: the data set's folder.
        name: of the shard, relative to it.
        captions: what KEY.json calls a sample's caption, or list of captions; KEY.txt has it where there is none.

    Raises:
        ValueError: if it is compressed, or a key comes twice.
    """
    with (root / name).open("rb") as file:
        shard = _Shard(root / name, file)
        samples, faults = [], dict[str, list[str]]()
        for sample in _grouped(shard):
            try:
                samples.append(_sample(shard, sample, captions))
            except _FaultyError as fault:
                faults.setdefault(fault.kind, []).append(f"{name}: {sample['__key__']}")
    if shard.cut:
        whole = counted(len(samples), "whole sample")
        faults[CUT] = [f"{name}: {whole}, then nothing from byte {shard.size:,} on"]
    return _columns(name, samples, faults)


def _grouped(shard: "_Shard") -> Iterator[dict[str, Any]]:
    """Samples: endings with the spans of their files.

    Raises:
        ValueError: if a key comes twice.
    """
    seen = set()
    try:
        for sample in group_by_keys(iter(shard), suffixes=_ENDINGS):
            if sample["__key__"] in seen:
                raise ValueError(f"{sample['__key__']}: comes twice, or its files do not stand side by side")
            seen.add(sample["__key__"])
            yield sample
    except ValueError as error:  # group_by_keys adds to it what it knows of a stream
        raise ValueError(f"{shard.path}: {error.args[0].partition(' in tar file')[0]}") from None


class _FaultyError(Exception):
    """A sample that cannot be used, of some kind."""

    def __init__(self, kind: str) -> None:
        super().__init__(kind)
        self.kind = kind


class _Span(NamedTuple):
    """Where a file lies in a shard."""

    offset: int
    size: int


class _Sample(NamedTuple):
    """`picture` is its name in the shard; ids are None where the shard names none."""

    key: str
    picture: str
    span: _Span
    texts: list[str]
    image_id: int | None
    text_ids: list[int] | None


class _Shard:
    """The files in a tar, as `group_by_keys` asks for them; `cut` once it has turned out that its end is missing."""

    def __init__(self, path: Path, file: BinaryIO) -> None:
        self.path, self.size, self.cut, self._file = path, path.stat().st_size, False, file
        if self._file.read(2) == _GZIP or path.name.endswith((".gz", ".tgz", ".bz2", ".xz", ".zst")):
            raise ValueError(
                f"{path} is compressed: pictures are read where they lie in a tar; unpack it (pictures hardly shrink)"
            )
        self._file.seek(0)

    def __iter__(self) -> Iterator[dict[str, Any]]:
        """Every regular file that is whole."""
        try:
            archive = tarfile.open(fileobj=self._file, mode="r:")  # noqa: SIM115  (self holds the file)
            for member in _members(archive):
                if member.offset_data + member.size > self.size:
                    self.cut = True
                    yield {"fname": member.name, "data": None, "__url__": self.path.name}
                    return
                if member.isreg():
                    span = _Span(member.offset_data, member.size)
                    yield {"fname": member.name, "data": span, "__url__": self.path.name}
            # tarfile takes the end of the file, or rubbish, for the end of the archive
            self.cut = os.pread(self._file.fileno(), tarfile.BLOCKSIZE, archive.offset) != bytes(tarfile.BLOCKSIZE)
        except tarfile.ReadError:
            self.cut = True

    def content(self, span: _Span) -> bytes:
        return os.pread(self._file.fileno(), span.size, span.offset)


def _members(archive: tarfile.TarFile) -> Iterator[tarfile.TarInfo]:
    while (member := archive.next()) is not None:
        archive.members.clear()  # type: ignore[attr-defined]  # else it keeps all
        yield member


def _sample(shard: _Shard, sample: dict[str, Any], captions: str | None) -> _Sample:
    """Raises `_FaultyError` if there is nothing to learn from."""
    files = {ending: span for ending, span in sample.items() if ending in _ENDINGS}
    if None in files.values():
        raise _FaultyError(CUT)
    facts = _facts(shard, files)
    if str(facts.get("status")).startswith("failed"):  # as img2dataset says
        raise _FaultyError("not downloaded")
    pictures = [ending for ending in files if ending in PICTURES]
    if not pictures or not files[pictures[0]].size:
        raise _FaultyError("without a picture")
    if len(pictures) > 1:
        raise _FaultyError("with several pictures")
    found = facts.get(captions) if captions else None
    if found is None and "txt" in files:
        found = _text(shard.content(files["txt"])).strip()
    texts = [found] if isinstance(found, str) else found if isinstance(found, list) else []
    if not texts or not all(isinstance(text, str) and text.strip() for text in texts):
        raise _FaultyError("without a caption")
    image_id, text_ids = facts.get("image_id"), facts.get("text_ids")
    own = type(image_id) is int and isinstance(text_ids, list) and len(text_ids) == len(texts)
    return _Sample(
        key=sample["__key__"],
        picture=f"{sample['__key__']}.{pictures[0]}",
        span=files[pictures[0]],
        texts=texts,
        image_id=image_id if own else None,
        text_ids=text_ids if own else None,
    )


def _facts(shard: _Shard, files: dict[str, _Span]) -> dict[str, Any]:
    """KEY.json."""
    if "json" not in files:
        return {}
    try:
        facts = json.loads(shard.content(files["json"]))
    except ValueError:
        raise _FaultyError("with broken JSON") from None
    if not isinstance(facts, dict):
        raise _FaultyError("with broken JSON")
    return facts


def _text(raw: bytes) -> str:
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise _FaultyError("with a caption that is not UTF-8") from None


def _columns(name: str, samples: list[_Sample], faults: dict[str, list[str]]) -> ShardIndex:
    stem = name.removesuffix(".tar")
    image_id = [stable_id(f"{stem}/{each.key}") if each.image_id is None else each.image_id for each in samples]
    text_id = [
        stable_id(f"{stem}/{each.key}#{number}") if each.text_ids is None else each.text_ids[number]
        for each in samples
        for number in range(len(each.texts))
    ]
    digest = sha256(name.encode())
    for each in samples:
        digest.update(repr(each).encode())
    return ShardIndex(
        name=name,
        places=pa.array([f"{name}: {each.picture}" for each in samples], pa.large_string()),
        spans=np.array([each.span for each in samples], np.int64).reshape(-1, 2),
        image_id=np.array(image_id, np.int64),
        counts=np.array([len(each.texts) for each in samples], np.int64),
        texts=pa.array([text for each in samples for text in each.texts], pa.large_string()),
        text_id=np.array(text_id, np.int64),
        faults=faults,
        digest=digest.hexdigest(),
    )
