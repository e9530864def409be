"""What the readers of caption files share: folders, names of splits, lists of names, pictures, ids."""

import os
from collections.abc import Hashable, Iterable
from hashlib import blake2b, sha256
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from mmlit.data.captions import Captions


def require_folder(root: str | Path, hint: str = "") -> Path:
    """`root` as a path.

    Raises:
        FileNotFoundError: if it is no folder.
    """
    if not Path(root).is_dir():
        raise FileNotFoundError(f"data.root={root} is no folder{hint or '; docs/coco.md says what belongs there'}")
    return Path(root)


def require_file(root: Path, file: str) -> Path:
    """The file below `root`.

    Raises:
        FileNotFoundError: if there is none.
    """
    if not (root / file).is_file():
        raise FileNotFoundError(f"{root / file} not found; docs/coco.md says where it comes from")
    return root / file


def split_file(root: Path, pattern: str, split: str, hint: str = "") -> Path:
    """The file of a split: `pattern` below `root`, with `{split}`.

    Raises:
        FileNotFoundError: if there is none, naming the splits that are there.
    """
    source = root / pattern.format(split=split)
    if not source.is_file():
        raise FileNotFoundError(f"split {split!r}: {source} not found{_others(root / pattern)}{hint}")
    return source


def _others(pattern: Path) -> str:
    before, _, after = pattern.name.partition("{split}")
    found = sorted(pattern.parent.glob(f"{before}*{after}"))
    names = [path.name[len(before) : len(path.name) - len(after)] for path in found]
    return f" (splits found: {', '.join(names)})" if names else ""


def split_names(split: str) -> list[str]:
    """`train+restval` → `train`, `restval`.

    Raises:
        ValueError: if a name is empty or comes twice.
    """
    names = split.split("+")
    if "" in names or len(set(names)) < len(names):
        raise ValueError(f"split {split!r}: names joined by + must be different and not empty")
    return names


def listed_names(source: Path) -> list[tuple[int, str]]:
    """Line number, from 1, and picture's name for each line of a split's list; `.jpg` where a name has no ending.

    Raises:
        ValueError: if a name comes twice or the list is empty.
    """
    lines = [(number, line.strip()) for number, line in enumerate(read_lines(source), 1) if line.strip()]
    names = [(number, name if "." in name else f"{name}.jpg") for number, name in lines]
    if not names:
        raise ValueError(f"{source}: no names in it")
    if pair := twice(name for _, name in names):
        one, two = (names[place] for place in pair)
        raise ValueError(f"{source}: lines {one[0]} and {two[0]} both name {one[1]!r}")
    return names


def read_lines(source: Path) -> list[str]:
    """Lines of a text file in UTF-8, without their ends.

    Raises:
        ValueError: if it is not UTF-8.
    """
    lines = read_text(source).split("\n")
    return [line.removesuffix("\r") for line in (lines if lines[-1] else lines[:-1])]


def read_text(source: Path) -> str:
    """A text file in UTF-8, with or without a byte-order mark.

    Raises:
        ValueError: if it is not UTF-8.
    """
    try:
        return source.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"{source}: not UTF-8: {error}") from None


def with_pictures(captions: Captions) -> Captions:
    """`captions` after every picture's file was looked for: with `missing`, and hashes that see sizes and times.

    Files of one folder are found by one listing of it.

    Raises:
        ValueError: if a path leads out of the data set's folder.
    """
    if captions.blobs is not None:
        return captions._replace(stamp=captions.stamp or captions.digest, pictures=captions.pictures or captions.digest)
    outside = pc.match_substring_regex(captions.files, r"^/|(^|/)\.\.(/|$)")
    if pc.any(outside).as_py():
        raise ValueError(f"{captions.name(pc.index(outside, True).as_py())}: no path below {captions.root}")
    folders = pc.unique(pc.replace_substring_regex(captions.files, r"[^/]*$", "")).to_pylist()
    there: list[str] = []
    facts: list[tuple[int, int, int]] = [(-1, -1, -1)]  # bytes and nanoseconds; of what is not there
    for folder in folders:
        _list_files(captions.root, folder, there, facts)
    places = pc.index_in(captions.files, value_set=pa.array(there, captions.files.type)).fill_null(-1)
    found = np.array(facts, np.int64)[np.from_dlpack(places) + 1]
    return captions._replace(
        digest=sha256(captions.digest.encode() + found[:, 0].tobytes()).hexdigest()[:16],
        stamp=sha256(captions.digest.encode() + found[:, :2].tobytes()).hexdigest()[:16],
        pictures=_of_pictures(captions, found),
        missing=np.flatnonzero(found[:, 0] < 0),
    )


def _of_pictures(captions: Captions, facts: np.ndarray) -> str:
    """A hash of the files' names and facts and of the pictures' places in them, not of where the root lies."""
    all_of_them = pa.LargeListArray.from_arrays(pa.array([0, len(captions.files)], pa.int64()), captions.files)
    found = sha256(pc.binary_join(all_of_them, pa.scalar("\n", captions.files.type))[0].as_buffer())
    found.update(facts.tobytes())
    if captions.spans is not None:
        found.update(np.ascontiguousarray(captions.spans, np.int64).tobytes())
    return found.hexdigest()[:16]


def _list_files(root: Path, folder: str, names: list[str], facts: list[tuple[int, int, int]]) -> None:
    """Adds each file of `folder`: its size, when it was written, and when anything of it changed.

    Whoever writes a file may set the former time (`cp -p`, `rsync -t`, archives), the latter nobody.
    """
    if (root / folder).is_dir():
        with os.scandir(root / folder) as entries:
            for entry in entries:
                if entry.is_file():
                    stat = entry.stat()
                    names.append(folder + entry.name)
                    facts.append((stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns))


def require_pictures(captions: Captions) -> Captions:
    """`captions`, none of whose pictures is missing.

    Raises:
        FileNotFoundError: if one is, naming it and the file and row that ask for it.
    """
    if captions.missing is not None and len(captions.missing):
        first = int(captions.missing[0])
        path = captions.path(first)
        what = f"is not in {path.parent}" if path.parent.is_dir() else f"cannot be found: {path.parent} is no folder"
        where = captions.source if captions.places is None else captions.root / captions.places[first].as_py()
        raise FileNotFoundError(
            f"{where} names {path.name!r}, which {what} "
            f"({len(captions.missing)} of {captions.num_images} pictures missing); mmlit data check lists them"
        )
    return captions


def twice(values: Iterable[Hashable]) -> tuple[int, int] | None:
    """Places of the first value that comes twice and of its first coming, in order; None if there is none."""
    seen: dict[Hashable, int] = {}
    for place, value in enumerate(values):
        if (first := seen.setdefault(value, place)) != place:
            return first, place
    return None


def stable_id(key: str) -> int:
    """An id in 0 … 2⁶³ − 1 that only `key` decides: for files that number nothing."""
    return int.from_bytes(blake2b(key.encode(), digest_size=8).digest(), "big") >> 1
