"""Reads a folder of pictures, each with a text file of the same name beside it."""

import os
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path

import numpy as np
import pyarrow as pa

from mmlit.data.captions import Captions
from mmlit.data.columns import text_ids
from mmlit.data.folder import require_folder, split_names, stable_id
from mmlit.data.survey import BadRow, Survey, sound
from mmlit.data.tables import ALL

#: endings of pictures, in any case
PICTURES = frozenset({".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff", ".avif"})


class FolderPairs:
    """`NAME.jpg` with `NAME.txt`, a caption on each line, in a folder and all below it.

    The split `all` is the whole folder, every other one the folder of that name below it. Names that begin with a dot
    are not looked at. An image's id is a hash of its path, a text's one of that path and the caption's place.

    Args:
        root: the data set's folder.

    Raises:
        FileNotFoundError: if `root` is no folder.
    """

    def __init__(self, *, root: str | Path) -> None:
        self.root = require_folder(root, "; docs/data.md says how pairs of your own are read")

    def inputs(self, split: str) -> list[Path]:
        """None: to open that many text files costs as much as to read them."""
        return []

    def read(self, split: str) -> Captions:
        """One split, or several joined by `+`, in the order of paths.

        Raises:
            FileNotFoundError: if there is no such folder.
            ValueError: if a picture has no text, a text no picture, two pictures share a text, or a text is empty or
                not UTF-8; the message names the file.
        """
        return sound(self.survey(split), root=self.root, source=self._folder(split_names(split)[0]))

    def survey(self, split: str) -> Survey:
        """The usable pairs of a split, and every file that is none."""
        bad: list[BadRow] = []
        files: list[str] = []
        places, texts, owner, lines = [], [], [], []
        for name in split_names(split):
            for file, found in self._pairs(self._folder(name), bad):
                text_file = str(Path(file).with_suffix(".txt"))
                for line, caption in found:
                    owner.append(len(files))
                    texts.append(caption)
                    lines.append(f"{text_file}: line {line}")
                places.append(f"{text_file}: line {found[0][0]}")
                files.append(file)
        if not files:
            return Survey(None, None, bad)
        captions = Captions.assemble(
            root=self.root,
            source=self._folder(split_names(split)[0]),
            files=files,
            image_id=[stable_id(file) for file in files],
            owner=owner,
            texts=texts,
            text_id=text_ids(files, np.array(owner)),
            digest=sha256("\n".join([*files, *map(str, owner), *texts]).encode()).hexdigest()[:16],
            places=places,
        )
        return Survey(captions, pa.array(lines, pa.large_string()), bad)

    def _folder(self, split: str) -> Path:
        if split == ALL:
            return self.root
        if not (self.root / split).is_dir():
            there = sorted(path.name for path in self.root.iterdir() if path.is_dir())
            raise FileNotFoundError(
                f"split {split!r}: {self.root / split} is no folder (folders found: {', '.join(there) or 'none'})"
            )
        return self.root / split

    def _pairs(self, folder: Path, bad: list[BadRow]) -> Iterator[tuple[str, list[tuple[int, str]]]]:
        """Each picture, below the root, with its captions and their lines."""
        for path, folders, names in os.walk(folder, followlinks=True):
            folders[:] = sorted(name for name in folders if not name.startswith("."))
            where = Path(path).relative_to(self.root)
            pictures: dict[str, str] = {}
            stems = {name[:-4] for name in names if name.endswith(".txt") and not name.startswith(".")}
            for name in sorted(names):
                stem, ending = os.path.splitext(name)  # noqa: PTH122 - of many thousand names
                if ending.lower() not in PICTURES or name.startswith("."):
                    continue
                if stem in pictures:
                    bad.append(BadRow((where / name).as_posix(), f"and {pictures[stem]!r} share one text file"))
                    continue
                pictures[stem] = name
                file = (where / name).as_posix()
                if not _is_unicode(file):
                    bad.append(BadRow(repr(file), "is no name in UTF-8"))
                    continue
                if stem not in stems:
                    bad.append(BadRow(file, f"has no {stem}.txt beside it"))
                elif captions := self._captions(Path(path) / f"{stem}.txt", bad):
                    yield file, captions
            bad += [
                BadRow((where / f"{stem}.txt").as_posix(), "has no picture of its name beside it")
                for stem in sorted(stems - pictures.keys())
            ]

    def _captions(self, path: Path, bad: list[BadRow]) -> list[tuple[int, str]]:
        place = path.relative_to(self.root).as_posix()
        try:
            text = path.read_bytes().decode("utf-8-sig")
        except UnicodeDecodeError as error:
            bad.append(BadRow(place, f"is not UTF-8: {error}"))
            return []
        lines = [(number, line.strip()) for number, line in enumerate(text.split("\n"), 1) if line.strip()]
        if not lines:
            bad.append(BadRow(place, "has no caption in it"))
        return lines


def _is_unicode(name: str) -> bool:
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True
