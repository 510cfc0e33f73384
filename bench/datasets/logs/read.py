"""Reads raw tables: text, JSON lines and parquet, with line numbers, and errors that name file, line and column.

``read_table`` holds every line to the header and the types. ``scan_table`` with ``parse_table`` (``read_columns`` for
both) takes the columns wanted lazily, as texts, of files with much else in them. ``read_lines`` is for small files in
formats that polars does not know. Tables have a column ``line`` (from 1), by which ``reject`` names a bad row.
"""

from __future__ import annotations

import csv
import json
import os
import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import polars as pl

from bench.errors import BenchError

Columns = Mapping[str, type[pl.DataType]]
Nested = Mapping[str, type[pl.DataType] | pl.DataType]
PATTERNS: dict[type[pl.DataType] | None, tuple[str, str]] = {
    pl.Int64: (r"[-+]?\d+", "a whole number"),
    pl.Float64: (r"[-+]?\d+(\.\d*)?([eE][-+]?\d+)?", "a number"),
}
KINDS = {pl.Int64: "a whole number of at least 0", pl.Float64: "a number of at least 0", pl.Boolean: "0 or 1"}


def read_table(
    path: Path,
    columns: Columns,
    *,
    separator: str = ",",
    header: bool = True,
    optional: Collection[str] = (),
    keep: pl.Expr | None = None,
    ended: bool = True,
) -> pl.DataFrame:
    """Reads the named columns of a delimited UTF-8 text file, typed, and the number of each ``line``.

    header: whether the first line names the columns; else ``columns`` are all, in order. optional: columns that may be
    empty. keep: rows for which it is false are dropped while the file is read, so that they take no memory. ended:
    whether the publisher ended the last line, so that a file that ends otherwise has been cut off. Raises BenchError
    naming the line of the first value that is missing or of another type.
    """
    cut_off = ended and not _ends_a_line(path)
    names = _header(path, columns, separator) if header else list(columns)
    schema = {name: columns.get(name, pl.String) for name in names}
    lines = pl.scan_csv(
        path,
        separator=separator,
        has_header=header,
        schema=schema,
        row_index_name="line",
        row_index_offset=1 + header,
        glob=False,
    ).select("line", *columns)
    if keep is not None:
        lines = lines.filter(keep | keep.is_null())  # null: what decides is missing, which is an error
    required = [name for name in columns if name not in optional]
    try:
        table = lines.collect(engine="streaming")
        reason = "values are missing" if any(table[name].has_nulls() for name in required) else ""
    except pl.exceptions.PolarsError as error:
        reason = str(error).splitlines()[0]
    if reason:
        _blame_cell(path, {name: columns.get(name) for name in names}, required, separator, header)
        raise BenchError(f"{path}: cannot be read ({reason}); fetch it again")
    if cut_off and table.height:
        raise BenchError(f"{path}: ends in the middle of a line; fetch it again")
    return not_empty(table, path)


def reject(table: pl.DataFrame, path: Path, column: str, bad: pl.Expr, why: str) -> None:
    """Raises BenchError for the first row for which ``bad`` holds; a table without line numbers counts its rows."""
    wrong = _numbered(table).filter(bad)
    if wrong.height:
        line, value = wrong.select("line", column).row(0)
        shown = "" if value is None else value
        raise BenchError(f"{path}, line {line}: {column} '{shown}' {why}; fetch the file again")


def once(
    table: pl.DataFrame, path: Path, key: str, *same: str, why: str = "has another row of other content"
) -> pl.DataFrame:
    """Keeps the first row of each value of the key. Raises BenchError where another differs in ``same``.

    Without ``same``, rows of one key must agree in all columns.
    """
    twice = _numbered(table).filter(pl.col(key).is_duplicated())
    content = [key, *same] if same else [c for c in twice.columns if c != "line"]
    twice = twice.unique(content, keep="first", maintain_order=True)
    reject(twice, path, key, ~pl.col(key).is_first_distinct(), why)
    return table.unique(key, keep="first", maintain_order=True)


def _numbered(table: pl.DataFrame) -> pl.DataFrame:
    return table if "line" in table.columns else table.with_row_index("line", offset=1)


def whole(table: pl.DataFrame, path: Path, low: int, high: int | None, *columns: str) -> pl.DataFrame:
    """Casts columns to whole numbers. Raises BenchError for one outside ``low`` to ``high`` (None: no limit)."""
    for column in columns:
        number = pl.col(column).cast(pl.Int64, strict=False)
        fits = number.is_between(low, high) if high is not None else number >= low
        span = f"from {low} to {high}" if high is not None else f"of at least {low}"
        reject(table, path, column, ~fits.fill_null(False), f"is not a whole number {span}")
    return table.with_columns(pl.col(columns).cast(pl.Int64))


def scan_table(path: Path, columns: Iterable[str]) -> pl.LazyFrame:
    """Scans columns of a comma-separated file with a header, as texts, and the number of each ``line``, lazily.

    Raises BenchError if the file has no such column, or does not end with a line break, for then it was cut off.
    """
    cut_off = not _ends_a_line(path)
    _header(path, columns)
    if cut_off:
        raise BenchError(f"{path}: ends in the middle of a line; fetch it again")
    return pl.scan_csv(path, infer_schema=False).with_row_index("line", offset=2).select("line", *columns)


def parse_table(table: pl.LazyFrame, path: Path, columns: Columns) -> pl.DataFrame:
    """Reads what ``scan_table`` returned, in line order, with columns of the given types.

    Whole numbers, numbers and flags must be there and at least 0; texts may be missing (null). Raises BenchError with
    the first line where that is not so; lines are counted as if no text held a line break.
    """
    parsed = [_parsed(column, dtype).alias(column) for column, dtype in columns.items()]
    with readable(path):
        found = table.select("line", *parsed).collect(engine="streaming").sort("line")
        for column, dtype in columns.items():
            if dtype in KINDS and found[column].null_count():
                line = found.filter(pl.col(column).is_null())["line"][0]
                value = table.filter(pl.col("line") == line).select(column).collect().item()
                raise BenchError(
                    f"{path}, line {line}: {column} '{value or ''}' is not {KINDS[dtype]}; fetch the file again"
                )
    return found


def read_columns(path: Path, columns: Columns) -> pl.DataFrame:
    """Reads columns of a comma-separated file with a header, typed as by ``parse_table``."""
    return not_empty(parse_table(scan_table(path, columns), path, columns), path)


def find_rows(path: Path, key: str, wanted: pl.Series, columns: Iterable[str]) -> pl.DataFrame:
    """Reads ``item`` and text columns of the rows of a file whose ``key`` is a wanted item; the first of each counts.

    The file may be much larger than memory. Raises BenchError if it has no such row.
    """
    columns = tuple(columns)
    ids = pl.LazyFrame({key: wanted.cast(pl.String)})
    table = scan_table(path, (key, *columns)).join(ids, on=key, how="semi")
    found = parse_table(table, path, {key: pl.Int64, **dict.fromkeys(columns, pl.String)})
    if found.is_empty():
        raise BenchError(f"{path}: no row describes a video of the log; fetch the files again")
    return found.unique(key, keep="first", maintain_order=True).select(*columns, item=key)


def read_lines(
    path: Path, separator: str, encoding: str, columns: tuple[str, ...], header: bool = False
) -> pl.DataFrame:
    """Reads a small text table as strings, and each ``line``'s number; any encoding and separator, no quotes.

    With a header (``name:type``), columns are found by name. Raises BenchError naming the first line that does not fit.
    """
    try:
        lines = path.read_bytes().decode(encoding).replace("\r\n", "\n").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise BenchError(f"{path}: cannot be read as {encoding} text ({error})") from error
    if lines.pop():
        raise BenchError(f"{path}, line {len(lines) + 1}: the file ends in the middle of a line; fetch it again")
    names, first = list(columns), 1
    if header:
        names, first = [name.split(":")[0] for name in lines.pop(0).split(separator)] if lines else [], 2
        _check_header(path, columns, names)
    cells = [line.split(separator) for line in lines]
    for number, row in enumerate(cells, first):
        if len(row) != len(names):
            raise BenchError(f"{path}, line {number}: {len(row)} columns instead of {len(names)}; fetch the file again")
    table = pl.DataFrame(cells, schema=dict.fromkeys(names, pl.String), orient="row").select(columns)
    return not_empty(table, path).with_columns(line=first + pl.int_range(pl.len()))


def read_json_lines(path: Path, columns: Nested, required: Collection[str]) -> pl.DataFrame:
    """Reads the named keys of a file with a JSON object on each line, typed, and its number; absent keys are null.

    Raises BenchError naming the first line that is no object, has a value of another type or lacks a required one.
    """
    if not path.is_file():
        raise BenchError(f"{path}: no such file")
    try:
        table = pl.scan_ndjson(path, schema=dict(columns), row_index_name="line", row_index_offset=1).collect()
    except pl.exceptions.PolarsError as error:
        _blame_json(path, columns, required)
        raise BenchError(f"{path}: cannot be read ({str(error).splitlines()[0]}); fetch it again") from error
    if any(table[name].has_nulls() for name in required):
        _blame_json(path, columns, required)
    return not_empty(table, path)


def read_parquet(path: Path, columns: Nested, required: Collection[str] = ()) -> pl.DataFrame:
    """Reads the named columns of a parquet file, as the types wanted.

    Raises BenchError naming file and column where one is absent or of another type, or a required one has nulls.
    """
    try:
        found = pl.read_parquet_schema(path)
        for name in columns:
            if name not in found:
                raise BenchError(f"{path}: no column '{name}'; found {', '.join(found)}")
        table = pl.read_parquet(path, columns=list(columns))
    except (OSError, pl.exceptions.PolarsError) as error:
        reason = str(error).splitlines()[0]
        raise BenchError(f"{path}: not a readable parquet file ({reason}); fetch it again") from error
    for name, dtype in columns.items():
        try:
            table = table.with_columns(pl.col(name).cast(dtype))
        except pl.exceptions.PolarsError as error:
            raise BenchError(f"{path}: column '{name}' is {found[name]}, not {dtype}; fetch the file again") from error
        if name in required and table[name].has_nulls():
            raise BenchError(f"{path}: column '{name}' has {table[name].null_count()} nulls; fetch the file again")
    return table


def not_empty(table: pl.DataFrame, path: Path) -> pl.DataFrame:
    """Returns a table that was read from a file. Raises BenchError if it has no rows."""
    if table.is_empty():
        raise BenchError(f"{path}: holds no rows to use; fetch it again")
    return table


def odd_line(path: Path, columns: int) -> str:
    """Says which line of a comma-separated file without quotes is the first of another length; empty if none is."""
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            if line.count(b",") + 1 != columns:
                return f", line {number}: {line.count(b',') + 1} columns instead of {columns}"
    return ""


@contextmanager
def readable(path: Path) -> Iterator[None]:
    """Turns what goes wrong while a file is read into a BenchError."""
    try:
        yield
    except (OSError, pl.exceptions.PolarsError) as error:
        reason = " ".join(str(error).split("\n\n")[0].split())[:200]
        raise BenchError(f"{path}: cannot be read as a table of text ({reason}); fetch it again") from error


def _parsed(column: str, dtype: type[pl.DataType]) -> pl.Expr:
    """A text as the type wanted; null where it is not such a value."""
    text = pl.col(column)
    if dtype == pl.String:
        return text
    number = text.cast(pl.Int64 if dtype == pl.Int64 else pl.Float64, strict=False)
    if dtype == pl.Boolean:
        return pl.when(number.is_in([0.0, 1.0])).then(number == 1)
    return pl.when(number.is_finite() & (number >= 0)).then(number)


def _ends_a_line(path: Path) -> bool:
    """Whether a file's last byte is a line break, or it is empty. Raises BenchError if it cannot be read."""
    try:
        with path.open("rb") as file:
            file.seek(-min(1, path.stat().st_size), os.SEEK_END)
            return file.read() in (b"\n", b"")
    except OSError as error:
        raise BenchError(f"{path}: cannot be read ({error.strerror})") from error


def _header(path: Path, columns: Iterable[str], separator: str = ",") -> list[str]:
    """The header's column names. Raises BenchError if one of ``columns`` is not there."""
    names = next(_lines(path, separator), (1, []))[1]
    _check_header(path, columns, names)
    return names


def _check_header(path: Path, columns: Iterable[str], names: list[str]) -> None:
    for column in columns:
        if column not in names:
            raise BenchError(f"{path}, line 1: no column '{column}'; found {', '.join(names)[:200] or 'an empty file'}")


def _blame_cell(
    path: Path,
    columns: Mapping[str, type[pl.DataType] | None],
    required: Collection[str],
    separator: str,
    header: bool,
) -> None:
    """Raises BenchError for the first line that does not fit, found the slow way. ``columns``: all; None: not read."""
    for number, cells in _lines(path, separator):
        if number == 1 and header:
            continue
        if len(cells) != len(columns):
            raise BenchError(
                f"{path}, line {number}: {len(cells)} columns instead of {len(columns)}; fetch the file again"
            )
        for (name, dtype), cell in zip(columns.items(), cells, strict=True):
            pattern, wanted = PATTERNS.get(dtype, ("(?s).+", "text"))
            if (cell or name in required) and dtype is not None and not re.fullmatch(pattern, cell.strip(" ")):
                raise BenchError(f"{path}, line {number}: {name} {cell[:80]!r} is not {wanted}; fetch the file again")


def _lines(path: Path, separator: str) -> Iterator[tuple[int, list[str]]]:
    """Line numbers and cells of a text file."""
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.reader(file, delimiter=separator)
            for cells in reader:
                yield reader.line_num, cells
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise BenchError(f"{path}: cannot be read as UTF-8 text ({error}); fetch it again") from error


def _blame_json(path: Path, columns: Nested, required: Collection[str]) -> None:
    """Raises BenchError for the first line that does not fit, found the slow way."""
    types: dict[Any, Any] = {
        pl.Float64: (int | float, "a number"), pl.Int64: (int, "a whole number"), pl.String: (str, "a text"),
    }  # fmt: skip
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            try:
                row = json.loads(line) if line.strip() else {}
            except ValueError as error:
                raise BenchError(f"{path}, line {number}: not JSON ({error}); fetch the file again") from error
            if not isinstance(row, dict):
                raise BenchError(f"{path}, line {number}: not a JSON object; fetch the file again")
            for name, dtype in columns.items() if line.strip() else ():
                kind, wanted = types.get(dtype, (list, "a list"))
                value = row.get(name)
                if (value is None and name in required) or not isinstance(value, kind | None):
                    shown = json.dumps(value)[:80]
                    raise BenchError(f"{path}, line {number}: {name} {shown} is not {wanted}; fetch the file again")
