"""Reads the list-of-captions form, as ALBEF and BLIP use it: one JSON list per split."""

import json
import re
from hashlib import sha256
from pathlib import Path
from posixpath import normpath
from typing import Any

from mmlit.data.captions import Captions
from mmlit.data.folder import require_folder, split_file, split_names, stable_id

#: how COCO numbers its files: COCO_val2014_000000391895.jpg, 000000391895.jpg
_COCO_NAME = re.compile(r"(?:.*[_/])?(\d{12})\.\w+")


class CaptionLists:
    """Lists of `{"image": path, "caption": one or several}` plus pictures; rows of one image are joined.

    Nothing in these files is a dependable number (`image_id`, where there is one, is not read), so ids are made:

    - An image's id is the number in its name if all names of the split are COCO's (twelve digits before the ending)
      and no number comes twice; otherwise a 63-bit hash of its path in the file. Equal paths have equal ids in any two
      splits that both follow one of the rules; that no file is in two splits is checked by path besides.
    - A text's id is a 63-bit hash of its image's path and of its place among that image's captions.

    Args:
        root: the data set's folder.
        annotations: a split's list below `root`, with `{split}`; splits joined by `+` are read from their files.
        images: folder below `root` that the paths start from; `.` is `root`.

    Raises:
        FileNotFoundError: if `root` is no folder.

    Source: Li et al. 2022, BLIP, arXiv 2201.12086: its files `coco_karpathy_{train,val,test}.json`.
    """

    def __init__(self, *, root: str | Path, annotations: str, images: str) -> None:
        self.root, self.annotations, self.images = require_folder(root), annotations, images

    def inputs(self, split: str) -> list[Path]:
        """The lists."""
        return [split_file(self.root, self.annotations, name) for name in split_names(split)]

    def read(self, split: str) -> Captions:
        """One split, or several joined by `+`; images in the order of their first row.

        Raises:
            FileNotFoundError: if a list is missing.
            ValueError: if the JSON is broken, a row has no image, no caption or a path that leaves the folder, or two
                of the joined splits share an image; the message names file and row.
        """
        texts: dict[str, list[str]] = {}
        first: dict[str, tuple[Path, int]] = {}
        digest, sources = sha256(), []
        for name in split_names(split):
            sources.append(split_file(self.root, self.annotations, name))
            raw = sources[-1].read_bytes()
            digest.update(sha256(raw).digest())
            for row, entry in enumerate(_rows(sources[-1], raw)):
                path = _path(sources[-1], row, entry)
                if first.setdefault(path, (sources[-1], row))[0] != sources[-1]:
                    other, place = first[path]
                    raise ValueError(f"{sources[-1]}: row {row} names {path!r}, as does {other} row {place}")
                texts.setdefault(path, []).extend(_captions(sources[-1], row, entry))
        return Captions.assemble(
            root=self.root,
            source=sources[0],
            files=[normpath(f"{self.images}/{path}") for path in texts],
            image_id=_image_ids(list(texts)),
            owner=[image for image, own in enumerate(texts.values()) for _ in own],
            texts=[text for own in texts.values() for text in own],
            text_id=[stable_id(f"{path}#{place}") for path, own in texts.items() for place in range(len(own))],
            digest=digest.hexdigest()[:16],
            places=[f"{source.relative_to(self.root)}: row {row}" for source, row in first.values()],
        )


def _rows(source: Path, raw: bytes) -> list[dict[str, Any]]:
    try:
        rows = json.loads(raw)
    except ValueError as error:
        raise ValueError(f"{source}: broken JSON: {error}") from None
    if not isinstance(rows, list) or not rows:
        raise ValueError(f'{source}: no list of rows {{"image": ..., "caption": ...}}')
    for row, entry in enumerate(rows):
        if not isinstance(entry, dict):
            raise ValueError(f"{source}: row {row} is {type(entry).__name__}, not an object")
    return rows


def _path(source: Path, row: int, entry: dict[str, Any]) -> str:
    """The row's picture, spelt in one way only."""
    image = entry.get("image")
    if not isinstance(image, str) or not image:
        raise ValueError(f"{source}: row {row} has no image, got {image!r}")
    path = normpath(image)
    if path.startswith(("/", "..")) or path == ".":
        raise ValueError(f"{source}: row {row}: image {image!r} is no path below the folder of pictures")
    return path


def _captions(source: Path, row: int, entry: dict[str, Any]) -> list[str]:
    caption = entry.get("caption")
    texts: list[Any] = caption if isinstance(caption, list) else [caption]
    if not texts or not all(isinstance(text, str) and text.strip() for text in texts):
        raise ValueError(f"{source}: row {row} has no caption or an empty one, got {caption!r}")
    return texts


def _image_ids(paths: list[str]) -> list[int]:
    matches = [_COCO_NAME.fullmatch(path) for path in paths]
    numbers = [int(match[1]) for match in matches if match]
    return numbers if len(set(numbers)) == len(paths) else [stable_id(path) for path in paths]
