"""A copy of a data set without what is wrong with it."""

import json
import os
import shutil
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from filelock import FileLock, Timeout

from mmlit.data.captions import Captions
from mmlit.data.check.findings import Checked, Finding, Split
from mmlit.data.survey import counted

#: of the copy
FILE_NAME = "pairs.jsonl"
LEFT_OUT = "left_out.jsonl"
_LOCK = ".lock"
#: how pictures got there
HARD, SYMBOLIC = "hard links", "symbolic links"


class Fixed(NamedTuple):
    """What the copy holds: options of `data=pairs` that read it, pairs and images in it, and why how many were left
    out; `linked` says how its pictures got there."""

    options: list[str]
    pairs: int
    images: int
    left_out: dict[str, int]
    linked: dict[str, int]


class _Left(NamedTuple):
    """A line of `left_out.jsonl`; `image` and `caption` are None where a row could not be read."""

    kind: str
    split: str
    place: str
    reason: str
    image: str | None
    caption: str | None


def fixed(checked: Checked, *, folder: Path, root: Path) -> Fixed:
    """Writes the sound pairs to `folder`, with links to their pictures; nothing below `root` is touched.

    Left out are: rows that cannot be used or are of splits that no option names, pictures that are missing or cannot be
    decoded, a pair's second coming, and, of what two splits share, the share of the one that was checked first.
    Captions of equal files are joined.

    Raises:
        ValueError: if `folder` is there already or lies in `root`, or a split could not be read or would be empty.
    """
    require_place(folder, root)
    if unread := [finding for finding in checked.findings if finding.kind == "split"]:
        raise ValueError(f"--fix: split {unread[0].place} {unread[0].what}")
    with _beside(folder) as beside:
        told = _write(checked, beside)
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


def _write(checked: Checked, folder: Path) -> Fixed:
    excluded, joins = _excluded(checked)
    rows = [finding for finding in checked.findings if finding.kind in ("row", "unnamed")]
    left_out = [_Left(each.kind, each.split, each.place, each.what, None, None) for each in rows]
    linked: Counter[str] = Counter()
    pairs, images = 0, set()
    tagged = any(split.captions.tags is not None for split in checked.splits.values())
    with (folder / FILE_NAME).open("w", encoding="utf-8") as lines:
        for name, split in checked.splits.items():
            files = _Files(name, split, folder, linked)
            seen: dict[tuple[int, str], str] = {}
            for image, text, row in _rows(split.captions):
                owner = joins.get((name, image), image)
                place = split.row(row, image)
                if finding := excluded.get((name, owner)):
                    left_out.append(_Left(finding.kind, name, place, finding.reason, split.file(image), text))
                elif before := seen.get((owner, text)):
                    left_out.append(_Left("same_pair", name, place, f"repeats {before}", split.file(image), text))
                else:
                    seen[owner, text] = place
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
        lines.writelines(f"{json.dumps(left._asdict(), ensure_ascii=False)}\n" for left in left_out)
    options = ["data.source.split=split", "data.source.image_id=image_id"]
    options += ["data.source.tags=tags"] if tagged else []
    counts = Counter(left.kind for left in left_out)
    counts.update({"unnamed": sum(finding.rows - 1 for finding in rows)})
    return Fixed(options, pairs, len(images), dict(+counts), dict(linked))


def _excluded(checked: Checked) -> tuple[dict[tuple[str, int], Finding], dict[tuple[str, int], int]]:
    """Images that are left out, and why; those whose captions join another's."""
    excluded: dict[tuple[str, int], Finding] = {}
    joins: dict[tuple[str, int], int] = {}
    for finding in checked.findings:
        here, there = (finding.split, finding.image), finding.other
        if finding.kind in ("missing", "unreadable"):
            excluded[here] = finding
        elif there and finding.kind == "same_file":
            joins[here] = there[1]
        elif there:
            excluded.setdefault(here, finding)
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
        return SYMBOLIC
    return HARD


def words(fixed: Fixed, folder: Path, parts: dict[str, Any]) -> list[str]:
    """The command line, word by word, that trains on the copy; `parts` are `train`, `val` and `test` of before."""
    splits = [f"data.{part}={value}" for part, value in parts.items()]
    return ["data=pairs", f"data.root={folder}", f"data.source.file={FILE_NAME}", *fixed.options, *splits]


def about(fixed: Fixed, folder: Path) -> list[str]:
    """What the copy holds and what it lacks, in lines."""
    linked = ", ".join(
        f"{count:,} {how if count > 1 else how.removesuffix('s')}" for how, count in fixed.linked.items()
    )
    lines = [f"{folder}: {counted(fixed.pairs, 'pair')}, {counted(fixed.images, 'image')}; pictures: {linked}"]
    if any(how in fixed.linked for how in (HARD, SYMBOLIC)):
        lines.append("a link is the picture itself: one that is edited in place changes in the original, too")
    left_out = ", ".join(f"{kind} {count:,}" for kind, count in fixed.left_out.items())
    return [*lines, f"left out: {left_out}; each is named in {folder / LEFT_OUT}" if left_out else "left out: nothing"]
