"""Reads pairs from data sets of the Hugging Face `datasets` library: on the hub, saved to disk, or Parquet files."""

from collections.abc import Sequence
from functools import cached_property
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from mmlit.data.captions import Captions
from mmlit.data.columns import lists_of_strings, strings, texts_and_owners
from mmlit.data.folder import split_names
from mmlit.data.pairing import surveyed
from mmlit.data.survey import Survey, sound
from mmlit.data.table_rows import Columns, Rows, joined, other_splits, require_columns
from mmlit.data.tables import ALL

_STRING = pa.large_string()


class HuggingFacePairs:
    """A data set with a column of pictures, or of their paths, and one of captions: strings or lists of them.

    Pictures that lie in the data set are read from its own memory-mapped files; nothing is copied. Each row is then an
    image, unless `image_id` tells that some are the same one. Paths are treated as in other tables.

    Args:
        root: folder that relative paths of pictures start from, if `name` is no directory.
        name: of a data set on the hub; or a directory, by itself or below `root`, that `save_to_disk` wrote or that
            holds Parquet files (or whatever else `load_dataset` makes sense of).
        subset: the data set's configuration, for those that have several; None for the only one.
        image: column of pictures, or of their paths.
        caption: column of captions.
        image_id: column of the images' ids, or None.
        split: column that says which split a row is of, or None: the data set's own splits.
        tags: column of tags, or None.
    """

    def __init__(
        self,
        *,
        root: str | Path,
        name: str,
        subset: str | None,
        image: str,
        caption: str,
        image_id: str | None,
        split: str | None,
        tags: str | None,
    ) -> None:
        self.name, self.subset, self.split = name, subset, split
        self.image, self.caption, self.image_id, self.tags = image, caption, image_id, tags
        places = [place for place in (Path(name), Path(root) / name) if place.is_dir()]
        self.root = places[0] if places else Path(root)
        self._directory = places[0] if places else None

    def inputs(self, split: str) -> list[Path]:
        """None: the library keeps what it has read, and pictures stay there."""
        return []

    def read(self, split: str) -> Captions:
        """One split, or several joined by `+`.

        Raises:
            ValueError: if the library is absent, there is no such data set, split or column, or a row is bad; the
                message names split and row.
        """
        return sound(self.survey(split), root=self.root, source=f"data set {self.name}")

    def survey(self, split: str) -> Survey:
        """The usable pairs of a split, and every row that is none."""
        names, sets = split_names(split), self._sets
        if self.split is None:
            _require_splits(self.name, names, list(sets))
            sets = {name: sets[name] for name in names}
        tables = {name: each.with_format("arrow")[:] for name, each in sets.items()}
        rows = joined([self._rows(name, table) for name, table in tables.items()])
        chosen, others = np.arange(len(rows.number)), None
        if rows.split is not None:
            _require_splits(self.name, names, [name for name in pc.unique(rows.split).to_pylist() if name])
            wanted = pc.is_in(rows.split, value_set=pa.array(names, rows.split.type))
            chosen = np.flatnonzero(wanted.to_numpy(zero_copy_only=False))
            others = other_splits(rows, rows.split, names)
            rows = rows.take(chosen)
        embedded = [_pictures(table.column(self.image)) for table in tables.values()]
        root = self.root if embedded[0] is None or self._directory else Path(self.name)
        found = surveyed(rows, root=root, source=root, images=".").beside(others)
        if found.captions is None or found.first is None or embedded[0] is None:
            return found
        blobs = pa.chunked_array([chunk for pictures in embedded if pictures is not None for chunk in pictures.chunks])
        captions = found.captions._replace(blobs=blobs, blob=chosen[found.first])
        return found._replace(captions=_stamped(captions, _lengths(blobs)[captions.blob], list(sets.values())))

    @cached_property
    def _sets(self) -> dict[str, Any]:
        """The data set's splits; `all` if it has none."""
        try:
            import datasets
        except ImportError:
            raise ValueError("data=huggingface needs the datasets library: pip install 'mmlit[datasets]'") from None
        folder = self._directory
        try:
            if folder and any((folder / name).is_file() for name in ("dataset_dict.json", "state.json")):
                found = datasets.load_from_disk(str(folder))
            else:
                found = datasets.load_dataset(str(folder or self.name), self.subset)
        except (datasets.exceptions.DatasetsError, OSError) as error:
            told = " ".join(str(error).split())
            raise ValueError(f"data.source.name={self.name}: cannot be loaded: {told}") from error
        return dict(found) if isinstance(found, dict) else {ALL: found}

    def _rows(self, name: str, table: pa.Table) -> Rows:
        columns = Columns(self.image, self.caption, self.image_id, self.split, self.tags)
        where = f"data set {self.name}, split {name}"
        require_columns(where, columns, table.column_names)
        found = {option: None if column is None else table.column(column).combine_chunks()
                 for option, column in columns._asdict().items() if option != "image"}  # fmt: skip
        plain = {option: None if found[option] is None else strings(found[option], f"{where}: column {option}")
                 for option in ("image_id", "split")}  # fmt: skip
        text, owner = texts_and_owners(found["caption"], f"{where}: column {self.caption!r}")
        column = table.column(self.image)
        pictures = _pictures(column)
        if pictures is None:
            image = _paths(column, f"{where}: column {self.image!r}")
        else:  # a name for each picture: rows of one image have the same
            keys = pa.array(np.arange(table.num_rows)).cast(_STRING) if plain["image_id"] is None else plain["image_id"]
            image = pc.binary_join_element_wise(pa.scalar(name, _STRING), keys, pa.scalar("/", _STRING))
            image = pc.if_else(pc.is_valid(pictures), image, pa.scalar(None, _STRING))
        return Rows(
            **plain,
            image=image.combine_chunks() if isinstance(image, pa.ChunkedArray) else image,
            text=text,
            owner=owner,
            tags=None if found["tags"] is None else lists_of_strings(found["tags"], f"{where}: column {self.tags!r}"),
            files=[f"{name}: row"],
            file=np.zeros(table.num_rows, np.int64),
            number=np.arange(table.num_rows),
            bad=[],
        )


def _require_splits(name: str, wanted: Sequence[str], there: Sequence[str]) -> None:
    for split in wanted:
        if split not in there:
            raise ValueError(
                f"split {split!r}: data set {name} has none such (splits found: {', '.join(sorted(there))}); "
                "data.train, data.val and data.test name them, or say how much of data.train to set aside"
            )


def _pictures(column: pa.ChunkedArray) -> pa.ChunkedArray | None:
    """The pictures themselves, if they lie in the data set; not copied."""
    if pa.types.is_struct(column.type) and column.type.get_field_index("bytes") >= 0:
        column = pc.struct_field(column, "bytes")
        if len(column) and column.null_count == len(column):
            return None
    return column if pa.types.is_binary(column.type) or pa.types.is_large_binary(column.type) else None


def _paths(column: pa.ChunkedArray, told: str) -> pa.Array:
    if pa.types.is_struct(column.type) and column.type.get_field_index("path") >= 0:
        column = pc.struct_field(column, "path")
    return strings(column.combine_chunks(), told)


def _lengths(blobs: pa.ChunkedArray) -> np.ndarray:
    return pc.fill_null(pc.binary_length(blobs), -1).to_numpy().astype(np.int64)


def _stamped(captions: Captions, lengths: np.ndarray, sets: Sequence[Any]) -> Captions:
    """With hashes that see the pictures: the size of each; and, of the files that hold them, sizes and times.

    Captions lie in the same files, so where one is edited the pictures, too, are others.
    """
    digest = sha256(captions.digest.encode() + lengths.tobytes()).hexdigest()[:16]
    files = sorted(file["filename"] for each in sets for file in each.cache_files)
    stats = [Path(file).stat() for file in files]
    written = [(stat.st_size, stat.st_mtime_ns) for stat in stats]
    stamp = sha256(f"{digest}|{written}|{[each._fingerprint for each in sets]}".encode()).hexdigest()[:16]
    pictures = sha256(f"{stamp}|{[stat.st_ctime_ns for stat in stats]}".encode()).hexdigest()[:16]
    return captions._replace(digest=digest, stamp=stamp, pictures=pictures)
