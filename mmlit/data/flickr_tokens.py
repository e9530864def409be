"""Reads the caption files that Flickr8k and Flickr30k came with: one for all images, and a list of names per split."""

import csv
import io
import re
from collections.abc import Iterator
from functools import cached_property
from hashlib import sha256
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa

from mmlit.data.captions import Captions
from mmlit.data.folder import (
    listed_names,
    read_text,
    require_file,
    require_folder,
    split_file,
    split_names,
    stable_id,
    twice,
)

_TOKEN = re.compile(r"([^\t]+)#(\d+)\t(.*)")
# The second stroke is missing once in Flickr30k's file: "2199200615.jpg| 4   A dog runs across the grass ."
_PIPED = re.compile(r"([^|]+)\|\s*(\d+)\s*[|\s](.*)")


class FlickrTokens:
    """A file of captions, lists of the splits' images, and a folder of pictures. The file's first line tells its form:

    - `image,caption`: CSV with quotes (Flickr8k's `captions.txt`);
    - `image_name| comment_number| comment`: Flickr30k's `results.csv`;
    - anything else: `NAME.jpg#0<TAB>caption` (`Flickr8k.token.txt`, `results_20130124.token`).

    Captions whose image no split lists are not used, whether or not there is such a picture: `Flickr8k.token.txt` names
    one that does not exist. An image's id is a 63-bit hash of its name, a text's one of name and number.

    Args:
        root: the data set's folder.
        annotations: file of captions below `root`.
        splits: list of a split's images below `root`, with `{split}`: a name a line, with or without `.jpg`.
        images: folder of pictures below `root`.

    Raises:
        FileNotFoundError: if `root` is no folder.

    Source: Hodosh, Young, Hockenmaier 2013 (Flickr8k); Young et al. 2014 (Flickr30k).
    """

    def __init__(self, *, root: str | Path, annotations: str, splits: str, images: str) -> None:
        self.root, self.annotations, self.splits, self.images = require_folder(root), annotations, splits, images

    def inputs(self, split: str) -> list[Path]:
        """The captions and the lists."""
        lists = [split_file(self.root, self.splits, name) for name in split_names(split)]
        return [require_file(self.root, self.annotations), *lists]

    def read(self, split: str) -> Captions:
        """One split, or several joined by `+`, in the order of the lists.

        Raises:
            FileNotFoundError: if the captions or a list is missing.
            ValueError: if a line cannot be read, a caption is empty or comes twice, or a listed image has no caption or
                is listed twice; the message names file and line.
        """
        everything = self._everything
        number = {file: n for n, file in enumerate(everything.files.to_pylist())}
        chosen, places = [], []
        for name in split_names(split):
            source = split_file(self.root, self.splits, name)
            for line, image in listed_names(source):
                if (n := number.get(f"{self.images}/{image}")) is None:
                    raise ValueError(f"{source}: line {line}: {image!r} has no caption in {everything.source}")
                chosen.append(n)
                places.append(f"{source.relative_to(self.root)}: line {line}")
        if pair := twice(chosen):
            again, before = (self.root / places[place] for place in reversed(pair))
            raise ValueError(f"{again} names an image that {before} names already")
        return everything.subset(np.array(chosen))._replace(places=pa.array(places, pa.large_string()))

    @cached_property
    def _everything(self) -> Captions:
        """All captions of the file; pictures are not looked for."""
        source = require_file(self.root, self.annotations)
        text = read_text(source)
        lines = list(_lines(source, text))
        if not lines:
            raise ValueError(f"{source}: no captions in it")
        for line in lines:
            if not line.caption.strip():
                raise ValueError(f"{source}: line {line.number} has no caption, got {line.caption!r}")
        if pair := twice((line.image, line.place) for line in lines):
            one, two = (lines[place] for place in pair)
            raise ValueError(
                f"{source}: lines {one.number} and {two.number} are both caption {one.place} of {one.image!r}"
            )
        image = {name: n for n, name in enumerate(dict.fromkeys(line.image for line in lines))}
        return Captions.assemble(
            root=self.root,
            source=source,
            files=[f"{self.images}/{name}" for name in image],
            image_id=[stable_id(name) for name in image],
            owner=[image[line.image] for line in lines],
            texts=[line.caption.strip() for line in lines],
            text_id=[stable_id(f"{line.image}#{line.place}") for line in lines],
            digest=sha256(text.encode()).hexdigest()[:16],
        )


class _Line(NamedTuple):
    """A caption, its line's number from 1, its image's name and its place among that image's captions."""

    number: int
    image: str
    place: int
    caption: str


def _lines(source: Path, text: str) -> Iterator[_Line]:
    head, _, rest = text.partition("\n")
    if head.strip() == "image,caption":
        return _quoted(source, rest)
    if [cell.strip() for cell in head.split("|")] == ["image_name", "comment_number", "comment"]:
        return _matched(source, rest, 2, _PIPED, "NAME| NUMBER| CAPTION")
    return _matched(source, text, 1, _TOKEN, "NAME#NUMBER<TAB>CAPTION")


def _matched(source: Path, text: str, start: int, form: re.Pattern[str], what: str) -> Iterator[_Line]:
    for number, line in enumerate(text.split("\n"), start):
        if not line.strip():
            continue
        if not (match := form.fullmatch(line.removesuffix("\r"))):
            raise ValueError(f"{source}: line {number} is not {what}: {line!r}")
        yield _Line(number, match[1], int(match[2]), match[3])


def _quoted(source: Path, text: str) -> Iterator[_Line]:
    counts: dict[str, int] = {}
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    try:
        for cells in reader:
            if not cells:
                continue
            if len(cells) != 2 or not cells[0]:
                raise ValueError(f"{source}: line {reader.line_num + 1} has {len(cells)} cells, not image and caption")
            place = counts[cells[0]] = counts.get(cells[0], -1) + 1
            yield _Line(reader.line_num + 1, cells[0], place, cells[1])
    except csv.Error as error:
        raise ValueError(f"{source}: line {reader.line_num + 1}: {error}") from None
