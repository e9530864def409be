"""One split of image–caption pairs, held in Arrow and NumPy."""

import os
from collections.abc import Sequence
from hashlib import sha256
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from mmlit.contracts import Item


class Captions(NamedTuple):
    """N images and their M captions, captions of one image side by side.

    Arrow and NumPy rather than lists of strings: a worker that only reads them touches no reference counts, so its
    memory does not grow (`files`, `texts` are Arrow strings; ids are int64).

    `files` (N,) paths relative to `root`; `image_id` (N,); `texts` (M,); `text_id` (M,); `first` (N + 1,): image n
    has the captions first[n] … first[n + 1] − 1. `source` is the annotation file, `digest` a hash of what was read.

    Where a source knows it: `places` (N,) which file and row name an image, relative to `root`; `spans` (N, 2) offset
    and bytes of each picture in its file, for pictures in archives; `blobs` the undecoded pictures themselves, of which
    image n is number `blob[n]`; `tags` (N,) lists of strings.

    `window` says that pictures in archives are best read in an order that is local: so many of them are shuffled
    together (`mmlit.data.batching`).

    `others` are the splits of the same table that this is none of: how many rows each has, and where the first stands.

    Of the pictures' files, once they were looked for (`mmlit.data.folder.with_pictures`): `missing`, numbers of images
    without one; `stamp`, a hash that also sees when a file was written; `pictures`, a hash of the pictures alone, which
    sees any change of a file, and nothing of captions.
    """

    root: Path
    source: Path
    files: pa.Array
    image_id: np.ndarray
    texts: pa.Array
    text_id: np.ndarray
    first: np.ndarray
    digest: str
    places: pa.Array | None = None
    spans: np.ndarray | None = None
    blobs: pa.Array | pa.ChunkedArray | None = None
    blob: np.ndarray | None = None
    tags: pa.Array | None = None
    window: int | None = None
    others: dict[str, tuple[int, str]] | None = None
    missing: np.ndarray | None = None
    stamp: str = ""
    pictures: str = ""

    @classmethod
    def assemble(
        cls,
        *,
        root: Path,
        source: Path,
        files: Sequence[str],
        image_id: Sequence[int] | np.ndarray,
        owner: Sequence[int] | np.ndarray,
        texts: Sequence[str] | pa.Array,
        text_id: Sequence[int] | np.ndarray,
        digest: str,
        places: Sequence[str] | pa.Array | None = None,
        spans: np.ndarray | None = None,
        blobs: pa.Array | pa.ChunkedArray | None = None,
        blob: np.ndarray | None = None,
        tags: pa.Array | None = None,
    ) -> "Captions":
        """From captions in any order: caption m, `texts[m]`, belongs to image number `owner[m]`, 0 … N − 1."""
        owner = np.asarray(owner, np.int64)
        order = np.argsort(owner, kind="stable")
        return cls(
            root=root,
            source=source,
            files=pa.array(files, pa.string()),
            image_id=np.asarray(image_id, np.int64),
            texts=_strings(texts).take(pa.array(order)),
            text_id=np.asarray(text_id, np.int64)[order],
            first=np.concatenate([[0], np.cumsum(np.bincount(owner, minlength=len(files)))]),
            digest=digest,
            places=None if places is None else _strings(places),
            spans=spans,
            blobs=blobs,
            blob=blob,
            tags=tags,
        )

    @property
    def num_images(self) -> int:
        """N."""
        return len(self.image_id)

    @property
    def num_texts(self) -> int:
        """M."""
        return len(self.text_id)

    def texts_of(self, image: int) -> range:
        """Indices of the captions of image number `image`."""
        return range(int(self.first[image]), int(self.first[image + 1]))

    def texts_of_all(self, images: np.ndarray) -> np.ndarray:
        """Indices of the captions of the images number `images`, in their order."""
        lengths = np.diff(self.first)[images]
        begins = np.cumsum(lengths) - lengths
        return np.arange(lengths.sum()) + np.repeat(self.first[images] - begins, lengths)

    def item(self, image: int, texts: range | tuple[int, ...]) -> Item:
        """Image number `image` with the captions number `texts`; reads the file.

        Raises:
            OSError: if the picture is gone or cannot be read.
        """
        return Item(
            image=self.picture(image),
            texts=tuple(self.texts[text].as_py() for text in texts),
            image_id=int(self.image_id[image]),
            text_ids=tuple(int(self.text_id[text]) for text in texts),
        )

    def picture(self, image: int) -> bytes:
        """The undecoded picture of image number `image`.

        Raises:
            OSError: if its file is gone, or shorter than it was.
        """
        if self.blobs is not None and self.blob is not None:
            return bytes(self.blobs[int(self.blob[image])].as_buffer())
        if self.spans is None:
            return self.path(image).read_bytes()
        offset, size = (int(number) for number in self.spans[image])
        with self.path(image).open("rb") as archive:
            file = os.pread(archive.fileno(), size, offset)
            if len(file) < size:
                end = os.fstat(archive.fileno()).st_size
                raise OSError(f"{self.path(image)} ends at byte {end}, its picture at {offset + size}")
        return file

    def path(self, image: int) -> Path:
        """Where the picture of image number `image` lies: its file, or the archive that holds it."""
        return self.root / self.files[image].as_py()

    def name(self, image: int) -> str:
        """How messages name the picture of image number `image`: its file, and the row that names it where known."""
        place = "" if self.places is None else f" ({self.root / self.places[image].as_py()})"
        if self.spans is not None and place:  # it names archive and picture
            return place[2:-1]
        return f"{self.path(image)}{place}"

    def subset(self, images: np.ndarray) -> "Captions":
        """The images number `images` with their captions, in that order; the digest says which."""
        texts, lengths = self.texts_of_all(images), np.diff(self.first)[images]
        return self._replace(
            files=self.files.take(pa.array(images)),
            image_id=self.image_id[images],
            texts=self.texts.take(pa.array(texts)),
            text_id=self.text_id[texts],
            first=np.concatenate([[0], np.cumsum(lengths)]),
            digest=_of_some(self.digest, images),
            places=None if self.places is None else self.places.take(pa.array(images)),
            spans=None if self.spans is None else self.spans[images],
            blob=None if self.blob is None else self.blob[images],  # pictures are not copied
            tags=None if self.tags is None else self.tags.take(pa.array(images)),
            missing=None if self.missing is None else np.flatnonzero(np.isin(images, self.missing)),
            stamp=_of_some(self.stamp, images) if self.stamp else "",
            pictures=_of_some(self.pictures, images) if self.pictures else "",
        )


def _strings(values: Sequence[str] | pa.Array) -> pa.Array:
    return values if isinstance(values, pa.Array) else pa.array(values, pa.large_string())


def _of_some(digest: str, images: np.ndarray) -> str:
    return sha256(digest.encode() + np.ascontiguousarray(images, np.int64).tobytes()).hexdigest()[:16]


def in_common(one: Captions, other: Captions) -> dict[str, np.ndarray]:
    """What two splits have in common that they must not: ids and files of images."""
    shared = {"id": np.intersect1d(one.image_id, other.image_id)}
    if one.blobs is None and one.spans is None:  # an archive holds pictures of several splits
        shared["file"] = np.array(one.files.filter(pc.is_in(one.files, value_set=other.files)).to_pylist())
    return shared
