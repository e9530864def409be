"""Any split → shards: pictures with all their captions and ids, optionally shrunk. Finished shards are kept."""

import io
import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

from PIL import Image

from mmlit.data.captions import Captions
from mmlit.data.decode import opened, upright
from mmlit.data.shard_library import TarWriter

#: Pillow's names of formats → endings of files that are copied as they are
_ENDINGS = {
    "JPEG": "jpg", "MPO": "jpg", "PNG": "png", "WEBP": "webp", "GIF": "gif", "BMP": "bmp", "TIFF": "tif",
}  # fmt: skip
#: a JPEG that is shrunk is decoded at no less than this many times the size asked for
_MARGIN = 2
#: bytes of a tar's header, and of the blocks that files are filled up to
_BLOCK = 512


class Shrinking(NamedTuple):
    """Pictures whose shorter side is longer than `shorter_side` px become JPEGs of that size; None: none do."""

    shorter_side: int | None
    quality: int


class Shard(NamedTuple):
    """What is to be written: the images `start` … `stop` − 1 of a part, as `path`."""

    part: str
    path: Path
    start: int
    stop: int


class Written(NamedTuple):
    """A finished shard: samples in it, its bytes, and the pictures that could not be read."""

    samples: int
    size: int
    unreadable: list[str]


class ShardMaker:
    """Writes shards; called with one, in whatever process.

    Args:
        parts: splits by name.
        shrinking: how pictures are made smaller.
        skip: whether pictures that cannot be read are left out; otherwise they stop the work.
    """

    def __init__(self, *, parts: dict[str, Captions], shrinking: Shrinking, skip: bool) -> None:
        self.parts, self.shrinking, self.skip = parts, shrinking, skip

    def __call__(self, shard: Shard) -> Written:
        """Writes a shard beside its place and renames it; then what `finished` reads.

        Raises:
            ValueError: if a picture cannot be read, and is not to be skipped.
            OSError: if the disk refuses.
        """
        captions, unreadable = self.parts[shard.part], []

        def write(file: BinaryIO) -> None:
            with TarWriter(file, mtime=0) as tar:
                for image in range(shard.start, shard.stop):
                    try:
                        tar.write(self.sample(captions, image))
                    except _UnreadableError as error:
                        if not self.skip:
                            raise ValueError(f"{error}; reading.on_error=skip leaves such pictures out") from None
                        unreadable.append(str(error))

        replace(shard.path, write)
        done = Written(shard.stop - shard.start - len(unreadable), shard.path.stat().st_size, unreadable)
        stats = {"count": shard.stop - shard.start, "successes": done.samples, "unreadable": unreadable}
        write_json(stats_of(shard.path), stats)
        return done

    def sample(self, captions: Captions, image: int) -> dict[str, Any]:
        """Image number `image` as webdataset writes it: picture, first caption, and a JSON with all that is known."""
        ending, picture = self._picture(captions, image)
        own = captions.texts_of(image)
        texts = captions.texts[own.start : own.stop].to_pylist()
        facts = {
            "caption": texts,
            "image_id": int(captions.image_id[image]),
            "text_ids": captions.text_id[own.start : own.stop].tolist(),
            "file": captions.files[image].as_py(),
        }
        content = json.dumps(facts, ensure_ascii=False).encode()
        return {"__key__": f"{image:09d}", ending: picture, "json": content, "txt": texts[0].encode()}

    def size(self, captions: Captions, image: int) -> int:
        """Bytes of image number `image` in a shard; 0 if it cannot be read."""
        try:
            sample = self.sample(captions, image)
        except _UnreadableError:
            return 0
        files = [content for ending, content in sample.items() if not ending.startswith("_")]
        return sum(_BLOCK + -(-len(content) // _BLOCK) * _BLOCK for content in files)

    def _picture(self, captions: Captions, image: int) -> tuple[str, bytes]:
        try:
            file = captions.picture(image)
            with opened(file) as picture:
                side = self.shrinking.shorter_side
                if picture.format in _ENDINGS and (side is None or min(picture.size) <= side):
                    return _ENDINGS[picture.format], file
                return "jpg", _shrunk(picture, self.shrinking)
        except (OSError, ValueError, SyntaxError) as error:
            why = "no such file" if isinstance(error, FileNotFoundError) else str(error).partition(" <_io")[0]
            raise _UnreadableError(f"{captions.name(image)}: not a readable picture: {why}") from None


class _UnreadableError(Exception):
    """A picture that cannot be read, by name."""


def _shrunk(given: Image.Image, shrinking: Shrinking) -> bytes:
    """A JPEG, upright, RGB, whose shorter side is at most as long as asked for."""
    side = shrinking.shorter_side or min(given.size)
    given.draft("RGB", (_MARGIN * side, _MARGIN * side))  # the shorter side stays longer than that
    picture = upright(given)
    if (scale := side / min(picture.size)) < 1:
        size = [max(side, round(length * scale)) for length in picture.size]
        picture = picture.resize((size[0], size[1]), Image.Resampling.BICUBIC)
    file = io.BytesIO()
    picture.save(file, "JPEG", quality=shrinking.quality)
    return file.getvalue()


def stats_of(path: Path) -> Path:
    """What stands beside a shard as soon as it is whole, named as img2dataset names it."""
    return path.with_name(f"{path.stem}_stats.json")


def finished(shard: Shard) -> Written | None:
    """A shard that an earlier time has finished."""
    stats = stats_of(shard.path)
    if not (stats.is_file() and shard.path.is_file()):
        return None
    facts = json.loads(stats.read_text())
    return Written(facts["successes"], shard.path.stat().st_size, facts["unreadable"])


def shards_of(part: str, captions: Captions, *, out: Path, per_shard: int) -> Sequence[Shard]:
    """The shards that a split makes."""
    starts = range(0, captions.num_images, per_shard)
    return [
        Shard(part, out / part / f"{number:05d}.tar", start, min(start + per_shard, captions.num_images))
        for number, start in enumerate(starts)
    ]


def replace(path: Path, write: Callable[[BinaryIO], object]) -> None:
    """Writes a file beside its place, brings it to the disk, then renames it."""
    beside = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with beside.open("wb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        beside.replace(path)
    finally:
        beside.unlink(missing_ok=True)


def clear(folder: Path, name: str = "*") -> None:
    """Removes what a killed `replace` of files of that name (a pattern) left; for who is alone in the folder."""
    for beside in folder.glob(f".{name}.*.tmp"):
        beside.unlink()


def write_json(path: Path, content: dict[str, Any]) -> None:
    """As `replace`."""
    replace(path, lambda file: file.write(json.dumps(content, indent=1).encode()))
