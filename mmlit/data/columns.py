"""Columns of tables in Arrow: captions, ids and tags out of whatever type holds them."""

import re
from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from mmlit.data.folder import stable_id

_STRING = pa.large_string()
_WHOLE = r"^-?\d{1,18}$"


def _is_string(kind: pa.DataType) -> bool:
    return pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind)


def _is_list(kind: pa.DataType) -> bool:
    return pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind)


def strings(column: pa.Array, told: str) -> pa.Array:
    """A column of strings or whole numbers as strings; whole numbers may have become floats.

    Raises:
        ValueError: if it is of another type, naming `told`.
    """
    if pa.types.is_dictionary(column.type):
        column = column.dictionary_decode()
    if pa.types.is_floating(column.type) and pc.all(pc.equal(column, pc.floor(column)), min_count=0).as_py():
        column = column.cast(pa.int64())
    if not (_is_string(column.type) or pa.types.is_integer(column.type) or pa.types.is_null(column.type)):
        raise ValueError(f"{told} is of type {column.type}, not of strings")
    return column.cast(_STRING)


def texts_and_owners(column: pa.Array, told: str) -> tuple[pa.Array, np.ndarray]:
    """Captions one by one, null where a row has none, and the row of each; a cell is a string or a list of them.

    Raises:
        ValueError: if it is neither, naming `told`.
    """
    if pa.types.is_dictionary(column.type):
        column = column.dictionary_decode()
    if not _is_list(column.type):
        return strings(column, told), np.arange(len(column))
    if not _is_string(column.type.value_type):
        raise ValueError(f"{told} is of type {column.type}: strings or lists of strings are wanted")
    lengths = pc.fill_null(pc.list_value_length(column), 0).to_numpy(zero_copy_only=False).astype(np.int64)
    flat = pc.list_flatten(column).cast(_STRING)
    # a row without captions keeps one that is null, so that it is found
    each = np.maximum(lengths, 1)
    places = np.full(each.sum(), -1)
    owner = np.repeat(np.arange(len(column)), each)
    filled = np.repeat(lengths > 0, each)
    places[filled] = np.arange(len(flat))
    return flat.take(pa.array(places, mask=~filled)), owner


def lists_of_strings(column: pa.Array, told: str) -> pa.Array:
    """A column of lists, or of strings with commas or semicolons in between.

    Raises:
        ValueError: if it is neither, naming `told`.
    """
    if _is_list(column.type) and _is_string(column.type.value_type):
        return column.cast(pa.large_list(_STRING))
    return pc.split_pattern_regex(strings(column, told), "[,;]").cast(pa.large_list(_STRING))


def numbers(ids: pa.Array) -> np.ndarray:
    """Ids as int64: themselves if all are whole numbers, otherwise a hash of each."""
    if pc.all(pc.match_substring_regex(ids, _WHOLE), min_count=0).as_py():
        return ids.cast(pa.int64()).to_numpy(zero_copy_only=False)
    encoded = ids.dictionary_encode()
    known = np.array([stable_id(text) for text in encoded.dictionary.to_pylist()], np.int64)
    return known[encoded.indices.to_numpy(zero_copy_only=False)]


def tags_of_images(tags: pa.Array, owner: np.ndarray, count: int) -> pa.Array:
    """Lists of rows → one list for each of the `count` images that `owner` names, each tag once, in order."""
    row = pc.list_parent_indices(tags).to_numpy(zero_copy_only=False)
    flat = pc.utf8_trim_whitespace(pc.list_flatten(tags))
    real = pc.fill_null(pc.greater(pc.binary_length(flat), 0), False).to_numpy(zero_copy_only=False)
    flat, image = flat.filter(pa.array(real)), owner[row[real]]
    encoded = flat.dictionary_encode()
    code = encoded.indices.to_numpy(zero_copy_only=False).astype(np.int64)
    _, first = np.unique(image * max(len(encoded.dictionary), 1) + code, return_index=True)
    first = first[np.lexsort((first, image[first]))]
    offsets = np.concatenate([[0], np.cumsum(np.bincount(image[first], minlength=count))])
    return pa.LargeListArray.from_arrays(pa.array(offsets), flat.take(pa.array(first)))


def within(owner: np.ndarray) -> np.ndarray:
    """For each text its place among those of its image: 0, 1, …"""
    order = np.argsort(owner, kind="stable")
    counts = np.bincount(owner)
    place = np.empty(len(owner), np.int64)
    place[order] = np.arange(len(owner)) - np.repeat(np.cumsum(counts) - counts, counts)
    return place


def text_ids(names: Sequence[str], owner: np.ndarray) -> np.ndarray:
    """A hash of each text's image's name and its place among that image's texts."""
    pairs = zip(owner.tolist(), within(owner).tolist(), strict=True)
    return np.fromiter((stable_id(f"{names[image]}#{place}") for image, place in pairs), np.int64, len(owner))


def is_address(path: str) -> bool:
    """Whether a path is rather the address of a picture on the network."""
    return re.match(r"[A-Za-z][A-Za-z0-9+.-]*://", path) is not None
