"""Which things are in a picture, as words: of the data's own column, or of COCO's instances files."""

import json
from collections.abc import Iterable, Sequence
from hashlib import file_digest, sha256
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch
from torch import Tensor

from mmlit.data.captions import Captions
from mmlit.data.columns import tags_of_images
from mmlit.data.kept import made_once

#: of what is kept; another one is another key
_VERSION = 1
#: how COCO names its files of 2014: COCO_val2014_000000391895.jpg
_COCO_2014 = r"(?:^|/)COCO_(?P<part>[a-z]+2014)_\d{12}\.\w+$"


class TagTable(NamedTuple):
    """`names` (K,) of tags in alphabetical order; image n has the `codes` first[n] … first[n + 1] − 1."""

    names: tuple[str, ...]
    first: np.ndarray
    codes: np.ndarray

    @classmethod
    def of(cls, tags: pa.Array) -> "TagTable":
        """From (N,) lists of strings."""
        encoded = pc.list_flatten(tags).dictionary_encode()
        names = encoded.dictionary.to_pylist()
        number = np.empty(len(names), np.int64)
        number[sorted(range(len(names)), key=names.__getitem__)] = np.arange(len(names))
        lengths = pc.fill_null(pc.list_value_length(tags), 0).to_numpy(zero_copy_only=False)
        codes = number[encoded.indices.to_numpy(zero_copy_only=False).astype(np.int64)]
        return cls(tuple(sorted(names)), np.concatenate([[0], np.cumsum(lengths)]), codes)

    def take(self, images: Sequence[int]) -> Tensor:
        """Which tags the images number `images` have: bool (N,K)."""
        labels = torch.zeros(len(images), len(self.names), dtype=torch.bool)
        for row, image in enumerate(images):
            labels[row, self.codes[self.first[image] : self.first[image + 1]]] = True
        return labels


def tag_table(captions: Captions, *, folder: Path | None) -> TagTable:
    """The tags of a split: its column's where it has one, otherwise those of COCO's instances files beside it.

    Args:
        captions: the split.
        folder: keeps what was read of instances files, which takes a while; None keeps nothing.

    Raises:
        FileNotFoundError: if the instances file is missing.
        ValueError: if the data have neither; if a file is no instances file or is of other images; if no image has a
            tag.
    """
    tags = captions.tags if captions.tags is not None else _of_instances(captions, folder)
    table = TagTable.of(tags)
    if not table.names:
        raise ValueError(f"auxiliary=[tags]: no image of {captions.source} has a tag")
    return table


def _of_instances(captions: Captions, folder: Path | None) -> pa.Array:
    files = _instances_files(captions)
    if absent := [file for file in files if not file.is_file()]:
        raise FileNotFoundError(
            f"auxiliary=[tags]: {absent[0]} is missing, COCO's file of what is in the pictures of {captions.source}"
        )
    if folder is None:
        return _read(files, captions)
    digest = sha256(f"{_VERSION}|{captions.digest}|{captions.num_images}".encode())
    for file in files:
        with file.open("rb") as opened:
            digest.update(file_digest(opened, "sha256").digest())
    place = made_once(
        folder / "tags" / digest.hexdigest()[:24], lambda beside: _write(_read(files, captions), beside / "tags.arrow")
    )
    with pa.memory_map(str(place / "tags.arrow")) as mapped:
        return pa.ipc.open_file(mapped).get_batch(0).column("tags")


def _write(tags: pa.Array, file: Path) -> None:
    table = pa.table({"tags": tags})
    with pa.OSFile(str(file), "wb") as sink, pa.ipc.new_file(sink, table.schema) as writer:
        writer.write_table(table.combine_chunks())


def _instances_files(captions: Captions) -> list[Path]:
    """As COCO names them: by the caption file's name, or by the pictures' where another file has the captions."""
    source = captions.source
    if source.name.startswith("captions_"):
        return [source.with_name(source.name.replace("captions_", "instances_", 1))]
    found = pc.struct_field(pc.extract_regex(captions.files, _COCO_2014), "part")
    if found.null_count or not len(found):
        raise ValueError(
            f"auxiliary=[tags]: nothing says what is in the pictures of {source}: name a column with "
            "data.source.tags=... (data=pairs, data=huggingface), or take COCO's layout with its instances files"
        )
    return [captions.root / "annotations" / f"instances_{part}.json" for part in sorted(set(found.to_pylist()))]


def _read(files: Iterable[Path], captions: Captions) -> pa.Array:
    """(N,) lists of the names of the categories that each image has an annotation of."""
    number = {int(id_): n for n, id_ in enumerate(captions.image_id)}
    owner: list[int] = []
    names: list[str] = []
    known: set[int] = set()
    for file in files:
        category, images, annotations = _tables(file)
        known |= images
        for image, kind in annotations:
            if image in number:
                owner.append(number[image])
                names.append(category[kind])
    if absent := number.keys() - known:
        raise ValueError(
            f"{', '.join(map(str, files))}: {len(absent)} images of {captions.source} are not in it, "
            f"e.g. id {min(absent)}"
        )
    lists = pa.array([[name] for name in names], pa.large_list(pa.large_string()))
    return tags_of_images(lists, np.array(owner, np.int64), captions.num_images)


def _tables(file: Path) -> tuple[dict[int, str], set[int], list[tuple[int, int]]]:
    """Names of categories by id, ids of images, and of each annotation its image's and its category's."""
    try:
        content = json.loads(file.read_bytes(), object_hook=_without_outlines)
        category = {int(entry["id"]): str(entry["name"]) for entry in content["categories"]}
        images = {int(entry["id"]) for entry in content["images"]}
        annotations = [(int(entry["image_id"]), int(entry["category_id"])) for entry in content["annotations"]]
    except ValueError as error:
        raise ValueError(f"{file}: broken JSON: {error}") from None
    except (KeyError, TypeError) as error:
        raise ValueError(f"{file}: is this one of COCO's instances files? It lacks {error}") from None
    if strange := {kind for _, kind in annotations} - category.keys():
        raise ValueError(f"{file}: an annotation names category_id {min(strange)}, which is not among the categories")
    return category, images, annotations


def _without_outlines(entry: dict[str, Any]) -> dict[str, Any]:
    """They need far more memory than all the rest."""
    entry.pop("segmentation", None)
    return entry
