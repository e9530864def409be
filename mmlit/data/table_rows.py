"""Rows of tables in Arrow, with the line or row where each stands."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from mmlit.data.survey import BadRow

#: rows that are held as Python objects at a time
_CHUNK = 65_536
_STRING = pa.large_string()


class Columns(NamedTuple):
    """The names of a table's columns; None for one that there is not."""

    image: str
    caption: str
    image_id: str | None
    split: str | None
    tags: str | None


class Rows(NamedTuple):
    """R rows with T captions: each column (R,) strings with nulls, or None; `tags` (R,) lists of strings.

    Row r of the file that `file` numbers among `files` is its line or row `number[r]`; caption t is of row `owner[t]`.
    """

    image: pa.Array
    text: pa.Array
    owner: np.ndarray
    image_id: pa.Array | None
    split: pa.Array | None
    tags: pa.Array | None
    files: list[str]
    file: np.ndarray
    number: np.ndarray
    bad: list[BadRow]

    def places(self, rows: np.ndarray) -> pa.Array:
        """File and number of the rows."""
        files = pa.array(self.files, _STRING).take(pa.array(self.file[rows]))
        return pc.binary_join_element_wise(files, pa.array(self.number[rows]).cast(_STRING), pa.scalar(" ", _STRING))

    def take(self, rows: np.ndarray) -> "Rows":
        """Some rows, ascending, with their captions."""
        new = np.full(len(self.number), -1)
        new[rows] = np.arange(len(rows))
        texts = np.flatnonzero(new[self.owner] >= 0)
        image, image_id, split, tags = (
            None if column is None else column.take(pa.array(rows))
            for column in (self.image, self.image_id, self.split, self.tags)
        )
        return self._replace(
            image=image,
            image_id=image_id,
            split=split,
            tags=tags,
            text=self.text.take(pa.array(texts)),
            owner=new[self.owner[texts]],
            file=self.file[rows],
            number=self.number[rows],
        )


def other_splits(rows: Rows, column: pa.Array, names: Sequence[str]) -> dict[str, tuple[int, str]]:
    """Of each split that `column` (R,) tells beside `names`: how many rows it has, and where the first stands."""
    names = pa.array([*names, ""], column.type)
    others = pc.invert(pc.or_(pc.is_null(column), pc.is_in(column, value_set=names)))
    places = np.flatnonzero(others.to_numpy(zero_copy_only=False))
    codes = column.take(pa.array(places)).dictionary_encode()
    first = np.unique(codes.indices.to_numpy(), return_index=True)[1]
    counts = np.bincount(codes.indices.to_numpy())
    told = zip(codes.dictionary.to_pylist(), counts.tolist(), rows.places(places[first]).to_pylist(), strict=True)
    return {name: (count, place) for name, count, place in told}


def joined(parts: Sequence[Rows]) -> Rows:
    """The rows of several files as those of one table."""
    if len(parts) == 1:
        return parts[0]
    starts = np.cumsum([0, *(len(part.number) for part in parts)])
    optional = {name: None if getattr(parts[0], name) is None else pa.concat_arrays([getattr(p, name) for p in parts])
                for name in ("image_id", "split", "tags")}  # fmt: skip
    return Rows(
        image=pa.concat_arrays([part.image for part in parts]),
        text=pa.concat_arrays([part.text for part in parts]),
        owner=np.concatenate([part.owner + start for part, start in zip(parts, starts[:-1], strict=True)]),
        **optional,
        files=[file for part in parts for file in part.files],
        file=np.concatenate([np.full(len(part.number), place) for place, part in enumerate(parts)]),
        number=np.concatenate([part.number for part in parts]),
        bad=[row for part in parts for row in part.bad],
    )


class Builder:
    """Collects rows as Python objects and turns them into Arrow, a chunk at a time."""

    def __init__(self, name: str, columns: Columns) -> None:
        self.name, self.columns = name, columns
        self.bad: list[BadRow] = []
        self.done: dict[str, list[pa.Array]] = {key: [] for key in ("image", "text", "image_id", "split", "tags")}
        self.owner: list[np.ndarray] = []
        self.number: list[np.ndarray] = []
        self.count = 0
        self._begin()

    def _begin(self) -> None:
        self.open: dict[str, list[Any]] = {key: [] for key in self.done}
        self.numbers: list[int] = []
        self.lengths: list[int] = []

    def refuse(self, number: int, what: str) -> None:
        """A row that cannot be read."""
        self.bad.append(BadRow(f"{self.name} {number}", what))

    def add(self, number: int, cells: dict[str, Any]) -> None:
        """A row: `image`, `text` (strings, or None), and the optional columns."""
        for key, values in self.open.items():
            values.extend(cells[key]) if key == "text" else values.append(cells.get(key))
        self.numbers.append(number)
        self.lengths.append(len(cells["text"]))
        if len(self.numbers) == _CHUNK:
            self._flush()

    def _flush(self) -> None:
        owner = np.repeat(np.arange(len(self.numbers)), self.lengths)
        for key, values in self.open.items():
            kind = pa.large_list(_STRING) if key == "tags" else _STRING
            try:
                column = pa.array(values, kind)
            except UnicodeEncodeError:  # half a surrogate pair in JSON
                column = pa.array(self._encodable(values, owner if key == "text" else None), kind)
            self.done[key].append(column)
        self.owner.append(owner + self.count)
        self.number.append(np.array(self.numbers, np.int64))
        self.count += len(self.numbers)
        self._begin()

    def _encodable(self, values: list[Any], owner: np.ndarray | None) -> list[Any]:
        kept = []
        for place, value in enumerate(values):
            try:
                for text in value if isinstance(value, list) else [value or ""]:
                    text.encode()
                kept.append(value)
            except UnicodeEncodeError:
                kept.append(None)
                self.refuse(self.numbers[place if owner is None else owner[place]], f"is not UTF-8: {value!r}")
        return kept

    def rows(self) -> Rows:
        self._flush()
        whole = {key: pa.concat_arrays(arrays) for key, arrays in self.done.items()}
        for key in ("image_id", "split", "tags"):
            if getattr(self.columns, key) is None:
                whole[key] = None
        number = np.concatenate(self.number)
        return Rows(
            **whole,
            owner=np.concatenate(self.owner),
            files=[self.name],
            file=np.zeros(len(number), np.int64),
            number=number,
            bad=self.bad,
        )


def require_columns(path: object, columns: Columns, there: Sequence[str], hint: str = "") -> dict[str, int]:
    """Where each of the wanted columns stands: by the name of its option.

    Raises:
        ValueError: if one is missing or comes twice, naming those that are there.
    """
    found = {}
    for option, name in columns._asdict().items():
        if name is None:
            continue
        if (times := list(there).count(name)) != 1:
            what = f"{times} columns" if times else "no column"
            raise ValueError(
                f"{path}: {what} {name!r} (data.source.{option}); there are: {', '.join(map(repr, there))}{hint}"
            )
        found[option] = list(there).index(name)
    return found
