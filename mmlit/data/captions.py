"""One split of image–caption pairs, held in Arrow and NumPy."""

from collections.abc import Sequence
from hashlib import sha256
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa

from mmlit.contracts import Item


class Captions(NamedTuple):
    """N images and their M captions, captions of one image side by side.

    Arrow and NumPy rather than lists of strings: a worker that only reads them touches no reference counts, so its
    memory does not grow (`files`, `texts` are Arrow strings; ids are int64).

    `files` (N,) paths relative to `root`; `image_id` (N,); `texts` (M,); `text_id` (M,); `first` (N + 1,): image n
    has the captions first[n] … first[n + 1] − 1. `source` is the annotation file, `digest` a hash of what was read.
    """

    root: Path
    source: Path
    files: pa.Array
    image_id: np.ndarray
    texts: pa.Array
    text_id: np.ndarray
    first: np.ndarray
    digest: str

    @classmethod
    def assemble(
        cls,
        *,
        root: Path,
        source: Path,
        files: Sequence[str],
        image_id: Sequence[int] | np.ndarray,
        owner: Sequence[int] | np.ndarray,
        texts: Sequence[str],
        text_id: Sequence[int] | np.ndarray,
        digest: str,
    ) -> "Captions":
        """From captions in any order: caption m, `texts[m]`, belongs to image number `owner[m]`, 0 … N − 1."""
        owner = np.asarray(owner, np.int64)
        order = np.argsort(owner, kind="stable")
        return cls(
            root=root,
            source=source,
            files=pa.array(files, pa.string()),
            image_id=np.asarray(image_id, np.int64),
            texts=pa.array(texts, pa.large_string()).take(pa.array(order)),
            text_id=np.asarray(text_id, np.int64)[order],
            first=np.concatenate([[0], np.cumsum(np.bincount(owner, minlength=len(files)))]),
            digest=digest,
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

    def item(self, image: int, texts: range | tuple[int, ...]) -> Item:
        """Image number `image` with the captions number `texts`; reads the file.

        Raises:
            FileNotFoundError: if the picture is gone.
        """
        return Item(
            image=self.path(image).read_bytes(),
            texts=tuple(self.texts[text].as_py() for text in texts),
            image_id=int(self.image_id[image]),
            text_ids=tuple(int(self.text_id[text]) for text in texts),
        )

    def path(self, image: int) -> Path:
        """Where the picture of image number `image` lies."""
        return self.root / self.files[image].as_py()

    def subset(self, images: np.ndarray) -> "Captions":
        """The images number `images` with their captions, in that order; the digest says which."""
        texts = np.concatenate([np.arange(self.first[i], self.first[i + 1]) for i in images])
        lengths = (self.first[1:] - self.first[:-1])[images]
        return self._replace(
            files=self.files.take(pa.array(images)),
            image_id=self.image_id[images],
            texts=self.texts.take(pa.array(texts)),
            text_id=self.text_id[texts],
            first=np.concatenate([[0], np.cumsum(lengths)]),
            digest=sha256(self.digest.encode() + np.ascontiguousarray(images, np.int64).tobytes()).hexdigest()[:16],
        )
