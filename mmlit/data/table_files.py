"""Reads CSV, TSV, JSON, JSON-lines and Parquet files into rows."""

import csv
import io
import json
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from mmlit.data.columns import lists_of_strings, strings, texts_and_owners
from mmlit.data.table_rows import Builder, Columns, Rows, require_columns

_UTF16 = (b"\xff\xfe", b"\xfe\xff")


#: what stands between cells: by a file's ending, and where a line is a row, whatever quotes are in it
_DELIMITERS = {".csv": ",", ".tsv": "\t"}
_PLAIN = ("\t", "|")


def read_rows(
    path: Path, name: str, columns: Columns, header: Sequence[str] | None = None, delimiter: str | None = None
) -> Rows:
    """The rows of a file, by its ending; `name` is what places call it, `header` names the columns of one without.

    `delimiter` is what stands between the cells of a CSV or TSV file, None: what its ending says.

    Raises:
        ValueError: if the ending is unknown, the file is no table, or a column is missing.
    """
    ending = path.suffix.lower()
    delimited = partial(_delimited, header=header, delimiter=delimiter or _DELIMITERS.get(ending, ""))
    readers: dict[str, Callable[[Path, Columns, Builder], None]] = {
        ".csv": delimited,
        ".tsv": delimited,
        ".json": _json,
        ".jsonl": _json_lines,
    }
    if header is not None and ending not in _DELIMITERS:
        raise ValueError(f"data.source.columns names the columns of a CSV or TSV file without a header; {path} is none")
    if delimiter is not None and ending not in _DELIMITERS:
        raise ValueError(f"data.source.delimiter={delimiter} is of a CSV or TSV file; {path} is none")
    if not path.stat().st_size:
        raise ValueError(f"{path} is empty")
    if ending == ".parquet":
        return _parquet(path, name, columns)
    if ending not in readers:
        raise ValueError(
            f"{path}: a table of pairs ends in .parquet, {', '.join(readers)}, not {ending!r}; export it as CSV or TSV"
        )
    builder = Builder(f"{name}: {'row' if ending == '.json' else 'line'}", columns)
    readers[ending](path, columns, builder)
    rows = builder.rows()
    if not len(rows.number) and not rows.bad:
        raise ValueError(f"{path} has no rows")
    return rows


def _delimited(path: Path, columns: Columns, builder: Builder, *, header: Sequence[str] | None, delimiter: str) -> None:
    """CSV as RFC 4180 has it; with tabs or `|` line by line, where quotes mean something only around a whole cell."""
    plain = delimiter in _PLAIN
    with path.open("rb") as raw:
        if raw.read(2) in _UTF16:
            raise ValueError(f"{path}: UTF-16; write it as UTF-8")
        raw.seek(0)
        _require_utf8(path)
        file = io.TextIOWrapper(raw, encoding="utf-8-sig", newline="")
        quoting: Literal[0, 3] = csv.QUOTE_NONE if plain else csv.QUOTE_MINIMAL
        lines = csv.reader(file, delimiter=delimiter, quoting=quoting, strict=not plain)
        names = list(header) if header else _first(path, lines)
        hint = "" if header else _hint(names)
        wanted = require_columns(path, columns, names, hint)
        for number, cells in _cells(lines, len(names), builder, delimiter):
            row: dict[str, Any] = {option: cells[place] for option, place in wanted.items()}
            if plain:
                row = {option: _unquoted(cell.strip()) for option, cell in row.items()}
            row["text"] = (row.pop("caption"),)
            if "tags" in row:
                row["tags"] = split_tags(row["tags"])
            builder.add(number, row)


def _require_utf8(path: Path) -> None:
    with path.open("rb") as lines:
        for number, line in enumerate(lines, 1):
            if not line.isascii():
                try:
                    line.decode()
                except UnicodeDecodeError:
                    raise ValueError(
                        f"{path} is not UTF-8 (first at line {number}); "
                        f"convert it: iconv -f latin1 -t utf8 {path.name} > utf8{path.suffix}"
                    ) from None


def _first(path: Path, lines: Any) -> list[str]:
    """The names in a file's first row."""
    try:
        return [_unquoted(cell).strip() for cell in next(lines, [])]
    except csv.Error as error:
        raise ValueError(f"{path}: line 1 is no row of a table: {error} (is a quote left open?)") from None


def _hint(names: Sequence[str]) -> str:
    """What may help a file that lacks a column: another delimiter where it has but one."""
    if len(names) == 1 and (found := [sign for sign in "|;\t," if sign in names[0]]):
        sign = {"\t": "tab"}.get(found[0], found[0])
        return f"; its cells seem to be separated by {sign}: 'data.source.delimiter=\"{sign}\"'"
    return "; a file without a header: data.source.columns=[caption,image]"


def _cells(lines: Any, width: int, builder: Builder, delimiter: str) -> Iterator[tuple[int, list[str]]]:
    """Line, counted from 1, where each row begins, and its cells."""
    sign = {",": "a comma", ";": "a semicolon", "\t": "tabs"}.get(delimiter, repr(delimiter))
    mend = f"a cell with {sign} needs quotes"
    if delimiter in _PLAIN:
        mend = f"write a file whose captions hold {sign} or new lines as CSV"
    while True:
        number = lines.line_num + 1
        try:
            cells = next(lines)
        except StopIteration:
            return
        except csv.Error as error:
            builder.refuse(number, f"is no row of a table: {error} (is a quote left open?)")
            continue
        if len(cells) == width:
            yield number, cells
        elif len(cells) > 1 or (cells and cells[0].strip()):
            builder.refuse(number, f"has {len(cells)} cell{'s' * (len(cells) != 1)}, not {width}; {mend}")


def _unquoted(cell: str) -> str:
    """A cell without quotes that stand around all of it, as programs write them around tabs and quotes."""
    inner = cell[1:-1].replace('""', "")
    whole = len(cell) > 1 and cell[0] == cell[-1] == '"' and '"' not in inner
    return cell[1:-1].replace('""', '"') if whole else cell


def split_tags(cell: str) -> list[str]:
    """Tags of one cell, between commas or semicolons."""
    return [tag.strip() for tag in cell.replace(";", ",").split(",") if tag.strip()]


def _json(path: Path, columns: Columns, builder: Builder) -> None:
    try:
        rows = json.loads(path.read_bytes())
    except ValueError as error:
        raise ValueError(f"{path}: broken JSON: {error}") from None
    if not isinstance(rows, list) or not rows:
        raise ValueError(f'{path}: no list of rows {{"{columns.image}": ..., "{columns.caption}": ...}}')
    _records(path, enumerate(rows), columns, builder)


def _json_lines(path: Path, columns: Columns, builder: Builder) -> None:
    def parsed() -> Iterator[tuple[int, Any]]:
        with path.open("rb") as lines:
            for number, line in enumerate(lines, 1):
                if not (text := line.removeprefix(b"\xef\xbb\xbf").strip()):
                    continue
                try:
                    yield number, json.loads(text)
                except ValueError as error:
                    builder.refuse(number, f"is broken JSON: {error}")

    _records(path, parsed(), columns, builder)


def _records(path: Path, rows: Iterator[tuple[int, Any]], columns: Columns, builder: Builder) -> None:
    wanted = {option: name for option, name in columns._asdict().items() if name is not None}
    first, seen = None, set()
    for number, row in rows:
        if not isinstance(row, dict):
            builder.refuse(number, f"is {type(row).__name__}, not an object")
            continue
        first = row if first is None else first
        cells = {option: row.get(name) for option, name in wanted.items()}
        seen |= {option for option, cell in cells.items() if cell is not None}
        if what := _wrong(cells):
            builder.refuse(number, what)
            continue
        texts, tags, id_ = cells.pop("caption"), cells.get("tags"), cells.get("image_id")
        texts = texts if isinstance(texts, list) and texts else [None if texts == [] else texts]
        cells |= {"image_id": None if id_ is None else str(id_)}
        cells |= {"tags": split_tags(tags) if isinstance(tags, str) else tags, "text": texts}
        builder.add(number, cells)
    if first is not None:  # a column that no row has is a wrong name rather than so many bad rows
        absent = [name for option, name in wanted.items() if option not in seen and name not in first]
        if absent:
            require_columns(path, columns, list(first))


def _wrong(cells: dict[str, Any]) -> str:
    """What is of a wrong type, or nothing."""
    for option, cell in cells.items():
        if cell is None or type(cell) is str or (option == "image_id" and type(cell) is int):
            continue
        many = option in ("caption", "tags") and type(cell) is list
        if not many or not all(type(each) is str or (each is None and option == "caption") for each in cell):
            return f"has {option} {cell!r}: {'strings are wanted' if many else 'a string is wanted'}"
    return ""


def _parquet(path: Path, name: str, columns: Columns) -> Rows:
    try:
        file = pq.ParquetFile(path)
    except (pa.ArrowInvalid, OSError) as error:
        raise ValueError(f"{path}: no Parquet file: {error}") from None
    require_columns(path, columns, file.schema_arrow.names)
    wanted = {option: column for option, column in columns._asdict().items() if column is not None}
    kind = file.schema_arrow.field(columns.image).type
    if pa.types.is_struct(kind) or pa.types.is_binary(kind) or pa.types.is_large_binary(kind):
        raise ValueError(
            f"{path}: column {columns.image!r} holds pictures rather than their paths: data=huggingface reads them"
        )
    table = file.read(columns=list(wanted.values()))
    found = {option: table.column(column).combine_chunks() for option, column in wanted.items()}
    text, owner = texts_and_owners(found["caption"], f"{path}: column {columns.caption!r}")
    plain = {
        option: strings(found[option], f"{path}: column {wanted[option]!r}") if option in found else None
        for option in ("image", "image_id", "split")
    }
    tags = lists_of_strings(found["tags"], f"{path}: column {columns.tags!r}") if "tags" in found else None
    number = np.arange(table.num_rows)
    file_of = np.zeros(len(number), np.int64)
    return Rows(**plain, text=text, owner=owner, tags=tags, files=[f"{name}: row"], file=file_of, number=number, bad=[])
