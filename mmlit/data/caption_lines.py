"""Reads captions kept line by line: line i of each caption file belongs to line i of a list of images."""

from hashlib import sha256
from pathlib import Path

from mmlit.data.captions import Captions
from mmlit.data.folder import (
    listed_names,
    read_lines,
    require_folder,
    split_file,
    split_names,
    stable_id,
    twice,
)


class CaptionLines:
    """For each split a list of images and one text file per caption of an image, as Multi30k keeps Flickr30k.

    An image's id is a 63-bit hash of its name, a text's one of name and number of its caption file.

    Args:
        root: the data set's folder.
        captions: caption files below `root`, with `{split}`: each has one caption of every image.
        splits: list of a split's images below `root`, with `{split}`: a name a line, with or without `.jpg`.
        images: folder of pictures below `root`.

    Raises:
        FileNotFoundError: if `root` is no folder.
        ValueError: if `captions` names no file or one twice.
    """

    def __init__(self, *, root: str | Path, captions: list[str], splits: str, images: str) -> None:
        self.root, self.captions, self.splits, self.images = require_folder(root), captions, splits, images
        if not captions or twice(captions):
            raise ValueError(f"data.source.captions={captions} must name files, each once")

    def inputs(self, split: str) -> list[Path]:
        """Lists of images and captions."""
        patterns = [self.splits, *self.captions]
        return [split_file(self.root, pattern, part) for part in split_names(split) for pattern in patterns]

    def read(self, split: str) -> Captions:
        """One split, or several joined by `+`, in the order of the lists.

        Raises:
            FileNotFoundError: if a file is missing.
            ValueError: if a caption file has more or fewer lines than the list, a line is empty, or an image is listed
                twice; the message names file and line.
        """
        names, places, texts, sources = [], [], [], []
        digest = sha256()
        for part in split_names(split):
            sources.append(split_file(self.root, self.splits, part))
            listed = listed_names(sources[-1])
            names += [name for _, name in listed]
            places += [f"{sources[-1].relative_to(self.root)}: line {line}" for line, _ in listed]
            columns = [self._column(part, pattern, sources[-1], len(listed)) for pattern in self.captions]
            texts += [text for row in zip(*columns, strict=True) for text in row]
            digest.update(repr((listed, columns)).encode())
        if pair := twice(names):
            again, before = (self.root / places[place] for place in reversed(pair))
            raise ValueError(f"{again} names an image that {before} names already")
        count = len(self.captions)
        return Captions.assemble(
            root=self.root,
            source=sources[0],
            files=[f"{self.images}/{name}" for name in names],
            image_id=[stable_id(name) for name in names],
            owner=[image for image in range(len(names)) for _ in range(count)],
            texts=texts,
            text_id=[stable_id(f"{name}#{place}") for name in names for place in range(count)],
            digest=digest.hexdigest()[:16],
            places=places,
        )

    def _column(self, part: str, pattern: str, images: Path, count: int) -> list[str]:
        """One caption of each image."""
        source = split_file(self.root, pattern, part)
        lines = [line.strip() for line in read_lines(source)]
        if len(lines) != count:
            raise ValueError(f"{source} has {len(lines)} lines, {images} names {count} images")
        if "" in lines:
            raise ValueError(f"{source}: line {lines.index('') + 1} has no caption")
        return lines
