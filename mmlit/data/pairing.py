"""Rows of tables → images with their captions, and every row that is none."""

import os
from hashlib import sha256
from pathlib import Path
from posixpath import normpath

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from mmlit.data.captions import Captions
from mmlit.data.columns import is_address, numbers, tags_of_images, text_ids
from mmlit.data.folder import stable_id
from mmlit.data.survey import BadRow, Survey
from mmlit.data.table_rows import Rows

#: a path that is spelt in the one way that needs no look: no `//`, `./`, `../`, nor any beginning or end in `/`
_ODD = r"^/|//|(^|/)\.\.?(/|$)|/$"


def surveyed(rows: Rows, *, root: Path, source: Path, images: str) -> Survey:
    """Rows of one picture are joined; images come in the order of their first row.

    An image's id is its column's whole number, a hash where that column holds anything else, or one of its path where
    there is no such column; a text's id is a hash of its image's path and of its place among that image's captions.
    """
    bad = list(rows.bad)
    files = _paths(rows, root, images, bad)
    text, blank = _texts(rows, bad)
    keep = np.ones(len(rows.number), bool)
    keep[files.is_null().to_numpy(zero_copy_only=False)] = False
    with_text = np.zeros(len(keep), bool)
    with_text[rows.owner[~blank]] = True
    keep &= with_text
    if rows.image_id is not None:
        keep &= _agreeing(rows, files, keep, bad)
    bad.sort(key=_in_order)
    if not keep.any():
        return Survey(None, None, bad)
    kept = np.flatnonzero(keep)
    encoded = files.take(pa.array(kept)).dictionary_encode()
    image = np.full(len(keep), -1)
    image[kept] = encoded.indices.to_numpy(zero_copy_only=False)
    first = kept[np.unique(image[kept], return_index=True)[1]]
    names = encoded.dictionary.to_pylist()
    chosen = np.flatnonzero(~blank & keep[rows.owner])
    owner = image[rows.owner[chosen]]
    if rows.image_id is None:
        image_id = np.fromiter(map(stable_id, names), np.int64, len(names))
    else:
        image_id = numbers(rows.image_id.take(pa.array(kept)))[np.searchsorted(kept, first)]
    texts = text.take(pa.array(chosen))
    captions = Captions.assemble(
        root=root,
        source=source,
        files=names,
        image_id=image_id,
        owner=owner,
        texts=texts,
        text_id=text_ids(names, owner),
        digest=_digest(names, image_id, owner, texts),
        places=rows.places(first),
        tags=None if rows.tags is None else tags_of_images(rows.tags.take(pa.array(kept)), image[kept], len(names)),
    )
    in_order = chosen[np.argsort(owner, kind="stable")]
    return Survey(captions, rows.places(rows.owner[in_order]), bad, first)


def _in_order(row: BadRow) -> tuple[str, int]:
    file, _, number = row.place.rpartition(" ")
    return file, int(number)


def _texts(rows: Rows, bad: list[BadRow]) -> tuple[pa.Array, np.ndarray]:
    """Captions without space around them, and which of them are empty."""
    text = pc.utf8_trim_whitespace(rows.text)
    blank = pc.fill_null(pc.equal(pc.binary_length(text), 0), True).to_numpy(zero_copy_only=False)
    empty = np.flatnonzero(blank)
    got = rows.text.take(pa.array(empty)).to_pylist()
    owners = rows.owner[empty]
    for place, row, value in zip(rows.places(owners).to_pylist(), owners, got, strict=True):
        if rows.image[row].is_valid or value is not None:  # a row that was not UTF-8 is told already
            bad.append(BadRow(place, f"has no caption or an empty one, got {value!r}"))
    return text, blank


def _paths(rows: Rows, root: Path, images: str, bad: list[BadRow]) -> pa.Array:
    """Paths below the root, null where a row has none that can be used."""
    path = pc.utf8_trim_whitespace(rows.image)
    usual = pc.invert(pc.or_(pc.match_substring_regex(path, _ODD), pc.equal(pc.binary_length(path), 0)))
    usual = pc.fill_null(usual, False).to_numpy(zero_copy_only=False)
    folder = normpath(images)
    files = path if folder == "." else _below(folder, path)
    if usual.all():
        return files
    odd = np.flatnonzero(~usual)
    found: list[str | None] = []
    places = rows.places(odd).to_pylist()
    for place, value in zip(places, path.take(pa.array(odd)).to_pylist(), strict=True):
        file, what = _path(value, root, folder)
        if what:
            bad.append(BadRow(place, what))
        found.append(file)
    return pc.replace_with_mask(files, pa.array(~usual), pa.array(found, files.type))


def _path(value: str | None, root: Path, folder: str) -> tuple[str | None, str]:
    """A path below the root that is spelt oddly, or what is wrong with it."""
    if not value:
        return None, f"has no image, got {value!r}"
    if is_address(value):
        return None, (
            f"names the address {value!r}: pictures are read from files; img2dataset downloads such a list, "
            "and data.source.image then names the column with the files"
        )
    if value.startswith("/"):
        for start in (os.path.abspath(root), os.path.realpath(root)):  # noqa: PTH100 - symbolic links count twice
            if (file := normpath(value)).startswith(f"{start}/"):
                return file[len(start) + 1 :], ""
        return None, f"names {value!r}, which does not lie below data.root={root}"
    file = normpath(f"{folder}/{value}")
    if file == ".." or file.startswith("../") or value.endswith("/") or file == normpath(folder):
        return None, f"names {value!r}, which is no file below data.root={root}"
    return file, ""


def _agreeing(rows: Rows, files: pa.Array, keep: np.ndarray, bad: list[BadRow]) -> np.ndarray:
    """Rows whose id is there, is the one of that picture's first row, and is no other picture's."""
    ids = pc.utf8_trim_whitespace(rows.image_id)
    lacking = pc.fill_null(pc.equal(pc.binary_length(ids), 0), True).to_numpy(zero_copy_only=False) & keep
    for place in rows.places(np.flatnonzero(lacking)).to_pylist():
        bad.append(BadRow(place, "has no image id"))
    kept = np.flatnonzero(keep & ~lacking)
    agrees = np.zeros(len(keep), bool)
    if not len(kept):
        return agrees
    id_, file = (column.take(pa.array(kept)).dictionary_encode() for column in (ids, files))
    id_code, file_code = (each.indices.to_numpy(zero_copy_only=False).astype(np.int64) for each in (id_, file))
    first_of_file = np.unique(file_code, return_index=True)[1]
    first_of_id = np.unique(id_code, return_index=True)[1]
    other_id = id_code != id_code[first_of_file[file_code]]
    other_file = file_code != file_code[first_of_id[id_code]]
    agrees[kept[~(other_id | other_file)]] = True
    for wrong in np.flatnonzero(other_id | other_file):
        place = first_of_file[file_code[wrong]] if other_id[wrong] else first_of_id[id_code[wrong]]
        here, there = rows.places(kept[[wrong, place]]).to_pylist()
        told = (
            id_.dictionary[id_code[place]].as_py()
            if other_id[wrong]
            else repr(file.dictionary[file_code[place]].as_py())
        )
        given = f"{file.dictionary[file_code[wrong]].as_py()!r} the image id {id_.dictionary[id_code[wrong]].as_py()}"
        bad.append(BadRow(here, f"gives {given}, {there} {'gives it' if other_id[wrong] else 'gives that to'} {told}"))
    return agrees


def _digest(names: list[str], image_id: np.ndarray, owner: np.ndarray, texts: pa.Array) -> str:
    """Of what was read: one file may hold several splits."""
    digest = sha256("\n".join(names).encode())
    for array in (image_id, owner, pc.binary_length(texts).to_numpy(zero_copy_only=False)):
        digest.update(np.ascontiguousarray(array, np.int64).tobytes())
    digest.update(_bytes(texts))
    return digest.hexdigest()[:16]


def _bytes(texts: pa.Array) -> memoryview:
    offsets = np.frombuffer(texts.buffers()[1], np.int64)[texts.offset : texts.offset + len(texts) + 1]
    return memoryview(texts.buffers()[2])[offsets[0] : offsets[-1]]


def _below(folder: str, path: pa.Array) -> pa.Array:
    return pc.binary_join_element_wise(pa.scalar(f"{folder}/", path.type), path, pa.scalar("", path.type))
