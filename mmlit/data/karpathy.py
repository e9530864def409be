"""Reads Karpathy's split files `dataset_{coco,flickr8k,flickr30k}.json`: one JSON for all splits."""

import json
from functools import cached_property
from hashlib import file_digest
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

from mmlit.data.captions import Captions
from mmlit.data.folder import require_file, require_folder, split_names, twice


class KarpathySplits:
    """A split file plus folders of pictures; splits are read by name or joined, as in `train+restval`.

    All captions of an image are kept: COCO has 5 to 7, and 25,010 for the 5,000 test images. The usual 5K protocol
    counts only the first five of each; which captions count is the evaluator's business, not the reader's.

    An image's id is its `cocoid` where the file has them, else its `imgid`; a text's id is its `sentid`. The file is
    parsed once per object, and only Arrow and NumPy are kept of it.

    Args:
        root: the data set's folder.
        annotations: split file below `root`.
        images: folder of pictures below `root`; `{filepath}` stands for the image's own (COCO: train2014, val2014).

    Raises:
        FileNotFoundError: if `root` is no folder.
        ValueError: if `images` holds another name in braces.

    Source: Karpathy, Fei-Fei 2015, "Deep Visual-Semantic Alignments for Generating Image Descriptions",
        arXiv 1412.2306; the files of https://cs.stanford.edu/people/karpathy/deepimagesent/.
    """

    def __init__(self, *, root: str | Path, annotations: str, images: str) -> None:
        self.root, self.annotations, self.images = require_folder(root), annotations, images
        try:
            images.format(filepath="")
        except (KeyError, IndexError, ValueError):
            raise ValueError(f"data.source.images={images}: only {{filepath}} may stand in braces") from None

    def inputs(self, split: str) -> list[Path]:
        """The split file."""
        return [require_file(self.root, self.annotations)]

    def read(self, split: str) -> Captions:
        """One split, or several joined by `+`, in the file's order.

        Raises:
            FileNotFoundError: if the split file is missing.
            ValueError: if the JSON is broken, a row is not what it should be, an id or a file comes twice, an image has
                no caption (anywhere in the file: the message names the row), or there is no such split.
        """
        table, names = self._table, split_names(split)
        if absent := [name for name in names if name not in table.splits]:
            sizes = np.bincount(table.split)
            found = ", ".join(f"{name} ({size:,} images)" for name, size in zip(table.splits, sizes, strict=True))
            raise ValueError(f"split {absent[0]!r} is not in {table.captions.source}, which has {found}")
        rows = np.flatnonzero(np.isin(table.split, [table.splits.index(name) for name in names]))
        captions = table.captions.subset(rows)
        named = zip(rows, captions.image_id, strict=True)
        places = [f"{self.annotations}: images row {row} (id {id_})" for row, id_ in named]
        return captions._replace(places=pa.array(places, pa.large_string()))

    @cached_property
    def _table(self) -> "_Table":
        source = require_file(self.root, self.annotations)
        with source.open("rb") as file:
            digest = file_digest(file, "sha256").hexdigest()[:16]
        images = _rows(source)
        key = "cocoid" if "cocoid" in images[0] else "imgid"
        columns = _Columns([], [], [], [], [], [])
        for row, image in enumerate(images):
            where = f"{source}: images row {row}"
            columns.image_id.append(_integer(where, image, key))
            columns.split.append(_string(where, image, "split"))
            columns.files.append(self._file(where, image))
            for text, text_id in _captions(where, image):
                columns.owner.append(row)
                columns.texts.append(text)
                columns.text_id.append(text_id)
        _check_once(source, key, columns)
        splits = list(dict.fromkeys(columns.split))
        number = {name: n for n, name in enumerate(splits)}
        captions = Captions.assemble(
            root=self.root,
            source=source,
            files=columns.files,
            image_id=columns.image_id,
            owner=columns.owner,
            texts=columns.texts,
            text_id=columns.text_id,
            digest=digest,
        )
        return _Table(captions, np.array([number[name] for name in columns.split]), splits)

    def _file(self, where: str, image: dict[str, Any]) -> str:
        filepath = _string(where, image, "filepath") if "{filepath}" in self.images else ""
        return f"{self.images.format(filepath=filepath)}/{_string(where, image, 'filename')}"


class _Table(NamedTuple):
    """All images of a file; image n belongs to split `splits[split[n]]`."""

    captions: Captions
    split: np.ndarray
    splits: list[str]


class _Columns(NamedTuple):
    """A file's content while it is read: three columns of images, three of captions."""

    image_id: list[int]
    split: list[str]
    files: list[str]
    owner: list[int]
    texts: list[str]
    text_id: list[int]


def _rows(source: Path) -> list[dict[str, Any]]:
    """The list `images`, without the words of each caption, which need as much memory as all the rest."""
    try:
        content = json.loads(source.read_text(encoding="utf-8"), object_hook=_without_words)
    except ValueError as error:
        raise ValueError(f"{source}: broken JSON: {error}") from None
    rows = content.get("images") if isinstance(content, dict) else None
    if not isinstance(rows, list) or not rows:
        raise ValueError(f"{source}: no list 'images' with rows in it; is this one of Karpathy's split files?")
    for row, image in enumerate(rows):
        if not isinstance(image, dict):
            raise ValueError(f"{source}: images row {row} is {type(image).__name__}, not an object")
    return rows


def _without_words(entry: dict[str, Any]) -> dict[str, Any]:
    entry.pop("tokens", None)
    return entry


def _captions(where: str, image: dict[str, Any]) -> list[tuple[str, int]]:
    """Text and id of each caption of an image."""
    sentences = image.get("sentences")
    if not isinstance(sentences, list) or not sentences:
        raise ValueError(f"{where} has no captions, got sentences={sentences!r}")
    found = []
    for number, sentence in enumerate(sentences):
        if not isinstance(sentence, dict):
            raise ValueError(f"{where}, sentence {number} is {type(sentence).__name__}, not an object")
        text, text_id = sentence.get("raw"), sentence.get("sentid")
        if not isinstance(text, str) or not text.strip():
            raise ValueError(f"{where}, sentence {number} has no caption, got raw={text!r}")
        if type(text_id) is not int:
            raise ValueError(f"{where}, sentence {number} has no integer sentid, got {text_id!r}")
        if sentence.get("imgid", image.get("imgid")) != image.get("imgid"):
            raise ValueError(f"{where}, sentence {number} is of another image: imgid {sentence['imgid']!r}")
        found.append((text, text_id))
    return found


def _check_once(source: Path, key: str, columns: _Columns) -> None:
    """Ids and files come once in the whole file."""
    if pair := twice(columns.image_id):
        raise ValueError(
            f"{source}: images rows {pair[0]} and {pair[1]} have the same {key} {columns.image_id[pair[0]]}"
        )
    if pair := twice(columns.files):
        raise ValueError(f"{source}: images rows {pair[0]} and {pair[1]} both name {columns.files[pair[0]]!r}")
    if pair := twice(columns.text_id):
        one, two = (columns.owner[text] for text in pair)
        raise ValueError(f"{source}: images rows {one} and {two} both have the sentid {columns.text_id[pair[0]]}")


def _integer(where: str, image: dict[str, Any], key: str) -> int:
    if type(number := image.get(key)) is not int:
        raise ValueError(f"{where} has no integer {key}, got {number!r}")
    return number


def _string(where: str, image: dict[str, Any], key: str) -> str:
    if not isinstance(text := image.get(key), str) or not text:
        raise ValueError(f"{where} has no {key}, got {text!r}")
    return text
