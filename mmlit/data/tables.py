"""Reads pairs from tables: CSV, TSV, JSON, JSON lines and Parquet."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from mmlit.data.captions import Captions
from mmlit.data.folder import require_folder, split_file, split_names
from mmlit.data.pairing import surveyed
from mmlit.data.survey import BadRow, Survey, sound
from mmlit.data.table_files import read_rows
from mmlit.data.table_rows import Columns, Rows, joined, other_splits

#: what the one split of a table is called that has none
ALL = "all"


class TablePairs:
    """A table with a picture's path and a caption, or several, in each row; rows of one picture are joined.

    Its ending tells a file's form. CSV has quotes as RFC 4180; in TSV, and with `|` between cells, every line is a row,
    and quotes count only around a whole cell; JSON is a list of objects, JSONL one a line. A caption is a string or,
    outside CSV and TSV, a list of them; tags likewise, or one string with commas or semicolons in between.

    Args:
        root: the data set's folder.
        file: the table below `root`; with `{split}` in its name there is one for each split.
        images: folder below `root` that the paths start from; `.` is `root`. Absolute paths must lie below `root`.
        columns: names of the columns of a CSV or TSV file that has no header, in order; None: its first row has them.
        delimiter: what stands between the cells of a CSV or TSV file, one character or `tab`; None: as the file ends.
        image: column of the pictures' paths.
        caption: column of the captions.
        image_id: column of the images' ids, or None.
        split: column that says which split a row is of, or None: without `{split}` all is one split, `all`.
        tags: column of tags, or None.

    Raises:
        FileNotFoundError: if `root` is no folder.
        ValueError: if splits are told both by files and by a column, or `delimiter` is none.
    """

    def __init__(
        self,
        *,
        root: str | Path,
        file: str,
        images: str,
        columns: Sequence[str] | None,
        delimiter: str | None,
        image: str,
        caption: str,
        image_id: str | None,
        split: str | None,
        tags: str | None,
    ) -> None:
        if split is not None and "{split}" in file:
            raise ValueError(
                f"data.source.split={split} is of no use with a file for each split, {file!r}: leave it null"
            )
        if delimiter not in (None, "tab") and (len(delimiter) != 1 or delimiter in '" \r\n'):
            raise ValueError(f"data.source.delimiter must be one character such as | or ;, or tab, got {delimiter!r}")
        self.root, self.file, self.images = require_folder(root, _HINT), file, images
        self.columns = None if columns is None else list(columns)
        self.delimiter = "\t" if delimiter == "tab" else delimiter
        self.image, self.caption, self.image_id, self.split, self.tags = image, caption, image_id, split, tags
        self._read: dict[str, Rows] = {}

    def inputs(self, split: str) -> list[Path]:
        """The tables."""
        return [self.root / name for name in self._files(split_names(split))]

    def read(self, split: str) -> Captions:
        """One split, or several joined by `+`; images in the order of their first row.

        Raises:
            FileNotFoundError: if a table is missing.
            ValueError: if a table cannot be read, a column is missing, there is no such split, or a row is bad; the
                message names file and line, or row.
        """
        return sound(self.survey(split), root=self.root, source=self.inputs(split)[0])

    def survey(self, split: str) -> Survey:
        """The usable pairs of a split, and every row that is none."""
        names = split_names(split)
        files = self._files(names)
        rows = joined([self._rows(name) for name in files])
        if self.split is None:
            return surveyed(rows, root=self.root, source=self.root / files[0], images=self.images)
        others = other_splits(rows, pc.utf8_trim_whitespace(rows.split), names)
        found = surveyed(self._of_splits(rows, names), root=self.root, source=self.root / files[0], images=self.images)
        return found.beside(others)

    def _files(self, names: Sequence[str]) -> list[str]:
        """Below the root."""
        if "{split}" in self.file:
            for name in names:
                split_file(self.root, self.file, name, "" if name != ALL else _SPLITS)
            return [self.file.format(split=name) for name in names]
        if (self.root / self.file).is_dir():
            raise ValueError(
                f"data.source.file: {self.root / self.file} is a folder; name a table in it, or, for NAME.jpg with "
                f"NAME.txt, say data=folder_pairs data.root={self.root / self.file}"
            )
        if not (self.root / self.file).is_file():
            raise FileNotFoundError(f"data.source.file: {self.root / self.file} not found")
        if self.split is None and list(names) != [ALL]:
            raise ValueError(
                f"split {'+'.join(names)!r}: {self.root / self.file} has one split, {ALL!r}, of which data.val and "
                "data.test set shares aside; name the column that tells splits with data.source.split"
            )
        return [self.file]

    def _rows(self, name: str) -> Rows:
        if name not in self._read:
            columns = Columns(self.image, self.caption, self.image_id, self.split, self.tags)
            self._read[name] = read_rows(self.root / name, name, columns, self.columns, self.delimiter)
        return self._read[name]

    def _of_splits(self, rows: Rows, names: Sequence[str]) -> Rows:
        column = pc.utf8_trim_whitespace(rows.split)
        lacking = pc.fill_null(pc.equal(pc.binary_length(column), 0), True).to_numpy(zero_copy_only=False)
        there = sorted(filter(None, pc.unique(column).to_pylist()))
        for name in names:
            if name not in there:
                raise ValueError(
                    f"split {name!r}: {self.root / self.file} has none such in column {self.split!r} "
                    f"(splits found: {', '.join(there)})"
                    f"{_SPLITS if name == ALL else ''}"
                )
        bad = [BadRow(place, "is of no split") for place in rows.places(np.flatnonzero(lacking)).to_pylist()]
        chosen = pc.is_in(column, value_set=pa.array(names, column.type)).to_numpy(zero_copy_only=False)
        return rows.take(np.flatnonzero(chosen))._replace(bad=rows.bad + bad)


_HINT = "; docs/data.md says how pairs of your own are read"
_SPLITS = "; name yours: data.train=train data.val=val data.test=test"
