"""What is wrong with a data set, row by row and file by file, and what it holds."""

from collections.abc import Callable, Iterator, Sequence
from itertools import combinations
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from mmlit.data.captions import Captions
from mmlit.data.check.pictures import Picture, pictures, summary
from mmlit.data.datamodule import Source
from mmlit.data.folder import with_pictures
from mmlit.data.survey import Survey, Surveyable, unnamed_splits

#: what is found: is it wrong (training refuses it, or the numbers would mean nothing) or only worth knowing; heading
KINDS = {
    "split": (True, "splits that cannot be read"),
    "row": (True, "rows or samples that cannot be used"),
    "missing": (True, "pictures that are not there"),
    "unreadable": (True, "pictures that cannot be decoded"),
    "shared": (True, "images in two splits"),
    "leak": (True, "equal files in two splits"),
    "unnamed": (False, "rows of splits that no option names"),
    "same_file": (False, "equal files under two names"),
    "same_pair": (False, "pairs that come twice"),
    "same_caption": (False, "captions of several images"),
}

#: how an image is another split's, too
_SHARED = {"file": "which is", "id": "whose id {} is also that of"}


class Finding(NamedTuple):
    """`place` is file and row; `what` goes on from there. `image` and `of` number the image in its split, where known;
    `other` is the split and image that it is equal to; `rows` how many rows it stands for;
    `reason` is `what` without the picture's name."""

    kind: str
    split: str
    place: str
    what: str
    image: int = -1
    other: tuple[str, int] | None = None
    rows: int = 1
    reason: str = ""


class Split(NamedTuple):
    """One split as it was found: its usable rows, and for each image that is there what its picture is."""

    captions: Captions
    places: pa.Array | None
    pictures: list[Picture]
    facts: dict[str, Any]

    def row(self, text: int, image: int) -> str:
        """Where a caption stands, or else what names its image."""
        if self.places is not None:
            return str(self.places[text])
        return self.place(image)

    def place(self, image: int) -> str:
        """Where an image is named."""
        captions = self.captions
        return str(captions.source.name if captions.places is None else captions.places[image])

    def file(self, image: int) -> str:
        """An image's file, or its place in an archive."""
        return self.place(image) if self.packed else str(self.captions.files[image])

    def known(self, image: int, of: str = "", place: str = "") -> str:
        """A picture, its split where `of` says so, and where it is named."""
        return f"{self.place(image)}{of}" if self.packed else f"{self.file(image)!r}{of} ({place or self.place(image)})"

    def told(self, image: int, reason: str) -> str:
        """How a sentence that begins with the place goes on: a row names a picture, a place in an archive is one."""
        return f"is a picture{reason}" if self.packed else f"names {self.file(image)!r}{reason}"

    @property
    def packed(self) -> bool:
        """Whether pictures lie in archives."""
        return self.captions.spans is not None


class Checked(NamedTuple):
    """All that was found."""

    splits: dict[str, Split]
    findings: list[Finding]

    @property
    def wrong(self) -> bool:
        """Whether anything must be mended."""
        return any(KINDS[finding.kind][0] for finding in self.findings)


def checked(
    source: Source, names: Sequence[str], *, workers: int, tokens: Callable[[Captions], np.ndarray] | None
) -> Checked:
    """Looks at every row and every picture of the splits `names`; `tokens` counts those of captions.

    Raises:
        ValueError, OSError: if no split at all can be read.
    """
    splits: dict[str, Split] = {}
    findings: list[Finding] = []
    failed: list[Exception] = []
    for name in names:
        try:
            survey = source.survey(name) if isinstance(source, Surveyable) else Survey(source.read(name), None, [])
            if survey.captions is not None:
                survey = survey._replace(captions=with_pictures(survey.captions))
        except (ValueError, OSError) as error:
            failed.append(error)
            findings.append(Finding("split", name, name, f"cannot be read: {error}"))
            continue
        known = {finding[2:4] for finding in findings}  # one file may hold several splits
        findings += [Finding("row", name, *bad) for bad in survey.bad if bad not in known]
        if survey.captions is not None:
            splits[name] = _split(survey.captions, survey.places, name, workers, tokens)
            findings += _within(name, splits[name])
    if len(failed) == len(names):
        raise failed[0]
    for one, other in combinations(splits, 2):
        findings += _between(one, other, splits)
    for name, (count, place) in unnamed_splits((split.captions for split in splits.values()), names).items():
        what = f"is the {'only row' if count == 1 else f'first of {count:,} rows'} of split {name!r}"
        findings.append(Finding("unnamed", name, place, what, rows=count))
    return Checked(splits, findings)


def _split(captions: Captions, places: pa.Array | None, name: str, workers: int, tokens: Any) -> Split:
    missing = np.array([], np.int64) if captions.missing is None else captions.missing
    there = np.setdiff1d(np.arange(captions.num_images), missing)
    found = pictures(captions, there, workers=workers, told=name)
    facts = {
        "source": str(captions.source),
        "images": captions.num_images,
        "pairs": captions.num_texts,
        "captions_per_image": _spread(np.diff(captions.first)),
        "words": _spread(pc.count_substring_regex(captions.texts, r"\S+").to_numpy(zero_copy_only=False)),
        "pictures": {"missing": len(missing), "unreadable": sum(bool(each.error) for each in found), **summary(found)},
    }
    if tokens is not None:
        facts["tokens"] = _spread(tokens(captions))
    if captions.tags is not None:
        counts = pc.value_counts(pc.list_flatten(captions.tags)).to_pylist()
        counts.sort(key=lambda each: (-each["counts"], each["values"]))
        facts["tags"] = {each["values"]: each["counts"] for each in counts}
    return Split(captions, places, found, facts)


def _spread(values: np.ndarray) -> dict[str, Any]:
    counts = np.bincount(values.astype(np.int64))
    histogram = {int(value): int(counts[value]) for value in np.flatnonzero(counts)}
    return {
        "min": int(values.min()),
        "mean": round(float(values.mean()), 2),
        "max": int(values.max()),
        "histogram": histogram,
    }


def _within(name: str, split: Split) -> Iterator[Finding]:
    captions = split.captions
    for image in [] if captions.missing is None else captions.missing.tolist():
        what = split.told(image, "")
        yield Finding("missing", name, split.place(image), what, image, reason="there is no such file")
    first: dict[bytes, int] = {}
    for picture in split.pictures:
        place = split.place(picture.image)
        if picture.error:
            what = split.told(picture.image, f"{' that cannot be decoded' * split.packed}: {picture.error}")
            yield Finding("unreadable", name, place, what, picture.image, reason=picture.error)
        elif (before := first.setdefault(picture.content, picture.image)) != picture.image:
            reason = f"equal to {split.known(before)}"
            what = split.told(picture.image, f", {reason}")
            yield Finding("same_file", name, place, what, picture.image, (name, before), reason=reason)
    yield from _captions(name, split)


def _captions(name: str, split: Split) -> Iterator[Finding]:
    """Pairs that come twice, and captions that several images have."""
    captions = split.captions
    codes = captions.texts.dictionary_encode()
    code = codes.indices.to_numpy(zero_copy_only=False).astype(np.int64)
    image = np.repeat(np.arange(captions.num_images), np.diff(captions.first))
    _, first, inverse = np.unique(image * len(codes.dictionary) + code, return_index=True, return_inverse=True)
    for text in np.flatnonzero(first[inverse] != np.arange(len(code))).tolist():
        before = split.row(int(first[inverse[text]]), int(image[text]))
        what = f"repeats {captions.texts[text].as_py()!r} of {split.known(int(image[text]), place=before)}"
        yield Finding("same_pair", name, split.row(text, int(image[text])), what, int(image[text]))
    own = np.sort(first)  # each pair once
    told, begins, times = np.unique(code[own], return_index=True, return_counts=True)
    several = np.flatnonzero(times > 1)
    for number in several[np.argsort(-times[several], kind="stable")].tolist():
        text = int(own[begins[number]])
        caption = codes.dictionary[int(told[number])].as_py()
        subject = "is a picture" if split.packed else "names an image"
        what = f"{subject} that is described as {caption!r}, as are others: {times[number] - 1}"
        yield Finding("same_caption", name, split.row(text, int(image[text])), what)


def _between(one: str, other: str, splits: dict[str, Split]) -> Iterator[Finding]:
    """Images that two splits share: by id, by file, by content."""
    here, there = splits[one].captions, splits[other].captions
    twins: dict[int, tuple[str, str, int]] = {}
    keys: dict[str, tuple[Any, Any]] = {"id": (here.image_id.tolist(), there.image_id.tolist())}
    if here.blobs is None and here.spans is None:  # an archive holds pictures of several splits
        keys = {"file": (here.files.to_pylist(), there.files.to_pylist()), **keys}
    for what, (own, others) in keys.items():
        known = {key: image for image, key in enumerate(others)}
        for image, key in enumerate(own):
            if key in known:
                twins.setdefault(image, ("shared", _SHARED[what].format(key), known[key]))
    content = {picture.content: picture.image for picture in splits[other].pictures if not picture.error}
    for picture in splits[one].pictures:
        if not picture.error and picture.content in content:
            twins.setdefault(picture.image, ("leak", "equal to", content[picture.content]))
    for image, (kind, what, twin) in sorted(twins.items()):
        reason = f"{what} {splits[other].known(twin, of=f' of {other}')}"
        told, place = splits[one].told(image, f", {reason}"), splits[one].place(image)
        yield Finding(kind, one, place, told, image, (other, twin), reason=reason)
