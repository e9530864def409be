"""A copy of a data set without what is wrong with it."""

import json
import os
import shutil
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from filelock import FileLock, Timeout

from mmlit.data.captions import Captions
from mmlit.data.check.findings import Checked, Split

#: of the copy
FILE_NAME = "pairs.jsonl"
LEFT_OUT = "left_out.jsonl"
_LOCK = ".lock"


class Fixed(NamedTuple):
    """What the copy holds: options of `data=pairs` that read it, pairs and images in it, and why how many were left
    out; `linked` says how its pictures got there."""

    options: list[str]
    pairs: int
    images: int
    left_out: dict[str, int]
    linked: dict[str, int]


def fixed(checked: Checked, *, folder: Path, root: Path, order: Sequence[str]) -> Fixed:
    """Writes the sound pairs to `folder`, with links to their pictures; nothing below `root` is touched.

    Left out are: rows that cannot be used or are of splits that no option names, pictures that are missing or cannot be
    decoded, a pair's second coming, and, of what two splits share, the share of the one that is later in `order`.
    Captions of equal files are joined.

    Raises:
        ValueError: if `folder` is there already or lies in `root`, or a split could not be read or would be empty.
    """
    require_place(folder, root)
    if unread := [finding for finding in checked.findings if finding.kind == "split"]:
        raise ValueError(f"--fix: split {unread[0].place} {unread[0].what}")
    with _beside(folder) as beside:
        told = _write(checked, beside, order)
        (beside / _LOCK).unlink()
        beside.rename(folder)
    return told


@contextmanager
def _beside(folder: Path) -> Iterator[Path]:
    """An empty folder that this process alone fills, whatever a killed one left in it; gone in the end."""
    beside = folder.with_name(f".{folder.name}.unfinished")
    beside.mkdir(parents=True, exist_ok=True)
    lock = FileLock(beside / _LOCK, timeout=0)
    try:
        lock.acquire()
    except Timeout:
        raise ValueError(f"--fix {folder}: another process writes it") from None
    try:
        for path in beside.iterdir():
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            elif path.name != _LOCK:
                path.unlink()
        yield beside
    finally:
        shutil.rmtree(beside, ignore_errors=True)
        lock.release()


def require_place(folder: Path, root: Path) -> None:
    """Whether a copy can go to `folder`.

    Raises:
        ValueError: if something is there already, or it lies in `root`.
    """
    if folder.exists():
        raise ValueError(f"--fix {folder}: there is something already; name a new folder")
    if folder.resolve().is_relative_to(root.resolve()):
        raise ValueError(f"--fix {folder} must lie outside {root}, which is left as it is")


def _write(checked: Checked, folder: Path, order: Sequence[str]) -> Fixed:
    excluded, joins = _excluded(checked, order)
    left_out = [finding._asdict() for finding in checked.findings if finding.kind in ("row", "unnamed")]
    linked: Counter[str] = Counter()
    pairs, images = 0, set()
    tagged = any(split.captions.tags is not None for split in checked.splits.values())
    with (folder / FILE_NAME).open("w", encoding="utf-8") as lines:
        for name, split in checked.splits.items():
            files = _Files(name, split, folder, linked)
            seen: set[tuple[int, str]] = set()
            for image, text, row in _rows(split.captions):
                owner = joins.get((name, image), image)
                place = {"split": name, "place": split.row(row, image)}
                if (name, owner) in excluded:
                    left_out.append({"kind": excluded[name, owner], **place, "what": text})
                elif (owner, text) in seen:
                    left_out.append({"kind": "same_pair", **place, "what": text})
                else:
                    seen.add((owner, text))
                    id_ = int(split.captions.image_id[owner])
                    entry: dict[str, Any] = {"image": files[owner], "caption": text, "split": name, "image_id": id_}
                    if split.captions.tags is not None:
                        entry["tags"] = split.captions.tags[owner].as_py()
                    lines.write(f"{json.dumps(entry, ensure_ascii=False)}\n")
                    pairs += 1
            if not seen:
                raise ValueError(f"--fix: nothing would be left of split {name}")
            images |= {(name, owner) for owner, _ in seen}
    with (folder / LEFT_OUT).open("w", encoding="utf-8") as lines:
        for entry in left_out:
            told = {key: entry[key] for key in ("kind", "split", "place", "what")}
            lines.write(f"{json.dumps(told, ensure_ascii=False)}\n")
    options = ["data.source.split=split", "data.source.image_id=image_id"]
    options += ["data.source.tags=tags"] if tagged else []
    counts = Counter[str]()
    for entry in left_out:
        counts[entry["kind"]] += entry.get("rows", 1)
    return Fixed(options, pairs, len(images), dict(counts), dict(linked))


def _excluded(checked: Checked, order: Sequence[str]) -> tuple[dict[tuple[str, int], str], dict[tuple[str, int], int]]:
    """Images that are left out, and why; those whose captions join another's."""
    excluded: dict[tuple[str, int], str] = {}
    joins: dict[tuple[str, int], int] = {}
    for finding in checked.findings:
        here, there = (finding.split, finding.image), finding.other
        if finding.kind in ("missing", "unreadable"):
            excluded[here] = finding.kind
        elif there and finding.kind == "same_file":
            joins[here] = there[1]
        elif there:
            excluded.setdefault(max(here, there, key=lambda each: order.index(each[0])), finding.kind)
    return excluded, joins


def _rows(captions: Captions) -> Iterator[tuple[int, str, int]]:
    texts = captions.texts.to_pylist()
    for image in range(captions.num_images):
        for text in captions.texts_of(image):
            yield image, texts[text], text


class _Files(dict[int, str]):
    """The pictures of a split in the copy, each put there when it is first asked for: a hard link to its file, a
    symbolic one where the file system is another, or, out of an archive or a table, a file."""

    def __init__(self, name: str, split: Split, folder: Path, linked: Counter[str]) -> None:
        super().__init__()
        self.name, self.captions, self.folder, self.linked = name, split.captions, folder, linked
        self.kinds = {picture.image: picture.kind for picture in split.pictures}

    def __missing__(self, image: int) -> str:
        captions = self.captions
        if captions.blobs is None and captions.spans is None:
            file = f"pictures/{captions.files[image].as_py()}"
            how = _link(captions.path(image), self.folder / file)
        else:
            file = f"pictures/{self.name}/{image:08d}.{self.kinds[image].lower().replace('jpeg', 'jpg')}"
            (self.folder / file).parent.mkdir(parents=True, exist_ok=True)
            (self.folder / file).write_bytes(captions.picture(image))
            how = "written"
        self.linked[how] += 1
        self[image] = file
        return file


def _link(source: Path, target: Path) -> str:
    target.parent.mkdir(parents=True, exist_ok=True)
    source = source.resolve()  # of a symbolic link, what it leads to
    if target.exists():  # two splits that share it name one file
        return "shared"
    try:
        os.link(source, target)
    except OSError:  # another file system, or one without hard links
        target.symlink_to(source)
        return "symbolic links"
    return "hard links"


def words(fixed: Fixed, folder: Path, parts: dict[str, Any]) -> list[str]:
    """The command line, word by word, that trains on the copy; `parts` are `train`, `val` and `test` of before."""
    splits = [f"data.{part}={value}" for part, value in parts.items()]
    return ["data=pairs", f"data.root={folder}", f"data.source.file={FILE_NAME}", *fixed.options, *splits]


def numbers_left_out(fixed: Fixed) -> str:
    """Why how many rows or pairs were left out."""
    return ", ".join(f"{kind} {count:,}" for kind, count in fixed.left_out.items()) or "nothing"
