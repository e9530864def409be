"""Reads image–caption pairs from COCO's caption files, 2014 and 2017 layouts."""

import json
from collections.abc import Iterable
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np

from mmlit.data.captions import Captions
from mmlit.data.folder import require_folder, split_file


class CocoCaptions:
    """Caption JSON plus a folder of pictures per split; any number of captions per image.

    Args:
        root: the data set's folder.
        annotations: caption file below `root`, with `{split}` for the split's name.
        images: folder of pictures below `root`, with `{split}`.
        prepare: command that makes the data, with `{root}`; named when something is missing.

    Raises:
        FileNotFoundError: if `root` is no folder.

    Source: https://cocodataset.org/#format-data (caption annotations).
    """

    def __init__(self, *, root: str | Path, annotations: str, images: str, prepare: str | None) -> None:
        self.hint = f"; make it with: {prepare.format(root=root)}" if prepare else ""
        self.root, self.annotations, self.images = require_folder(root, self.hint), annotations, images

    def inputs(self, split: str) -> list[Path]:
        """The caption file."""
        return [split_file(self.root, self.annotations, split, self.hint)]

    def read(self, split: str) -> Captions:
        """One split, checked whole but for its pictures.

        Raises:
            FileNotFoundError: if the caption file or the folder of pictures is missing.
            ValueError: if the JSON is broken, an id comes twice, an image has no file or no caption, or a caption no
                image; the message names file and row.
        """
        (source,) = self.inputs(split)
        raw = source.read_bytes()
        images, annotations = _tables(source, raw)
        image_id = _ids(source, "images", images)
        text_id = _ids(source, "annotations", annotations)
        owner = _owners(source, annotations, image_id)
        texts = [_caption(source, row, annotation) for row, annotation in enumerate(annotations)]
        counts = np.bincount(owner, minlength=len(images))
        if len(empty := np.flatnonzero(counts == 0)):
            raise ValueError(
                f"{source}: images row {empty[0]} (id {image_id[empty[0]]}) has no caption ({len(empty)} such images)"
            )
        folder = self.images.format(split=split)
        if not (self.root / folder).is_dir():
            raise FileNotFoundError(f"{self.root / folder} is no folder of pictures{self.hint}")
        file = source.relative_to(self.root)
        return Captions.assemble(
            root=self.root,
            source=source,
            files=[f"{folder}/{_file_name(source, row, image)}" for row, image in enumerate(images)],
            image_id=image_id,
            owner=owner,
            texts=texts,
            text_id=text_id,
            digest=sha256(raw).hexdigest()[:16],
            places=[f"{file}: images row {row} (id {id_})" for row, id_ in enumerate(image_id)],
        )


def _tables(source: Path, raw: bytes) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """The lists `images` and `annotations` of a caption file."""
    try:
        content = json.loads(raw)
    except ValueError as error:
        raise ValueError(f"{source}: broken JSON: {error}") from None
    tables = []
    for name in ("images", "annotations"):
        rows = content.get(name) if isinstance(content, dict) else None
        if not isinstance(rows, list) or not rows:
            raise ValueError(f"{source}: no list {name!r} with rows in it; is this a COCO caption file?")
        for row, entry in enumerate(rows):
            if not isinstance(entry, dict):
                raise ValueError(f"{source}: {name} row {row} is {type(entry).__name__}, not an object")
        tables.append(rows)
    return tables[0], tables[1]


def _ids(source: Path, name: str, rows: Iterable[dict[str, Any]]) -> np.ndarray:
    """The integer ids of a table, each only once."""
    seen: dict[int, int] = {}
    for row, entry in enumerate(rows):
        number = entry.get("id")
        if type(number) is not int:
            raise ValueError(f"{source}: {name} row {row} has no integer id, got {number!r}")
        if number in seen:
            raise ValueError(f"{source}: {name} rows {seen[number]} and {row} have the same id {number}")
        seen[number] = row
    return np.fromiter(seen, np.int64, len(seen))


def _owners(source: Path, annotations: list[dict[str, Any]], image_id: np.ndarray) -> np.ndarray:
    """For each caption the number of its image."""
    number = {int(id_): n for n, id_ in enumerate(image_id)}
    owners = np.empty(len(annotations), np.int64)
    for row, annotation in enumerate(annotations):
        owner = number.get(annotation.get("image_id", -1))
        if owner is None:
            raise ValueError(
                f"{source}: annotations row {row} (id {annotation['id']}) names image_id "
                f"{annotation.get('image_id')!r}, which is not among the images"
            )
        owners[row] = owner
    return owners


def _file_name(source: Path, row: int, image: dict[str, Any]) -> str:
    name = image.get("file_name")
    if not isinstance(name, str) or not name:
        raise ValueError(f"{source}: images row {row} (id {image['id']}) has no file_name, got {name!r}")
    return name


def _caption(source: Path, row: int, annotation: dict[str, Any]) -> str:
    caption = annotation.get("caption")
    if not isinstance(caption, str) or not caption.strip():
        raise ValueError(f"{source}: annotations row {row} (id {annotation['id']}) has no caption, got {caption!r}")
    return caption
