"""The files of an export, one at a time and in memory: each is bounded, and written whole.

pyarrow is imported where Parquet is wanted only: it is an extra (``etl.export.extras``).
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, Final, Protocol

if TYPE_CHECKING:
    import pyarrow as pa

    from etl.warehouse.read.extract import Column

PART_BYTES: Final = 32 * 1024 * 1024
"""A file that has reached this size is followed by another one."""
BATCH_BYTES: Final = 8 * 1024 * 1024
"""Text of the rows that are parsed together: a row group of Parquet."""
_LISTS: Final = ("list", "int_list", "float_list")
_DECIMAL: Final = (38, 9)
"""Digits of a decimal, and those of them after the point: as many as other programs take."""


class Part(Protocol):
    """One file in the making."""

    @property
    def size(self) -> int:
        """Bytes so far."""
        ...

    def add(self, rows: Sequence[bytes]) -> None:
        """Add rows as ``Extract.rows`` gives them."""

    def body(self) -> bytes:
        """The whole file, to which nothing is added afterwards."""
        ...


def write_parts(
    rows: Iterable[bytes],
    begin: Callable[[], Part],
    write: Callable[[bytes, int], None],
    tell: Callable[[int], None],
) -> None:
    """Write all rows in files, at least one: without rows it has the columns.

    ``write`` gets the body of a file and the number of its rows, ``tell`` the number of rows of
    each batch.
    """
    part, rows_in_part = begin(), 0
    for batch in _batches(rows):
        if part.size >= PART_BYTES:
            write(part.body(), rows_in_part)
            part, rows_in_part = begin(), 0
        part.add(batch)
        rows_in_part += len(batch)
        tell(len(batch))
    write(part.body(), rows_in_part)


def _batches(rows: Iterable[bytes]) -> Iterator[list[bytes]]:
    batch: list[bytes] = []
    size = 0
    for row in rows:
        batch.append(row)
        size += len(row)
        if size >= BATCH_BYTES:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


class CsvPart:
    """A CSV file: UTF-8, a line of names, lines that end with a line feed."""

    def __init__(self, columns: Sequence[Column]) -> None:
        self._lines = [f"{','.join(column.name for column in columns)}\n".encode()]
        self.size = len(self._lines[0])

    def add(self, rows: Sequence[bytes]) -> None:
        self._lines += rows
        self.size += sum(map(len, rows))

    def body(self) -> bytes:
        return b"".join(self._lines)


class ParquetPart:
    """A Parquet file, compressed with zstd."""

    def __init__(self, columns: Sequence[Column]) -> None:
        import pyarrow as pa  # noqa: PLC0415
        from pyarrow import parquet  # noqa: PLC0415

        self._columns = columns
        self._buffer = pa.BufferOutputStream()
        self._writer = parquet.ParquetWriter(
            self._buffer, arrow_schema(columns), compression="zstd"
        )

    @property
    def size(self) -> int:
        return int(self._buffer.tell())

    def add(self, rows: Sequence[bytes]) -> None:
        self._writer.write_table(_parsed(self._columns, rows))

    def body(self) -> bytes:
        self._writer.close()
        return bytes(self._buffer.getvalue())


def arrow_schema(columns: Sequence[Column]) -> pa.Schema:
    """The columns as files have them: int64, float64, decimal, text, timestamps in UTC, lists."""
    import pyarrow as pa  # noqa: PLC0415

    return pa.schema([(column.name, _arrow_types()[column.kind]) for column in columns])


def _arrow_types() -> dict[str, Any]:
    import pyarrow as pa  # noqa: PLC0415

    return {
        "bool": pa.bool_(),
        "int": pa.int64(),
        "float": pa.float64(),
        "decimal": pa.decimal128(*_DECIMAL),
        "text": pa.string(),
        "time": pa.timestamp("us", "UTC"),
        "date": pa.date32(),
        "list": pa.list_(pa.string()),
        "int_list": pa.list_(pa.int64()),
        "float_list": pa.list_(pa.float64()),
    }


def _parsed(columns: Sequence[Column], rows: Sequence[bytes]) -> pa.Table:
    from pyarrow import csv, py_buffer  # noqa: PLC0415

    text = b"".join(rows)
    types = _arrow_types()
    table = csv.read_csv(
        py_buffer(text),
        read_options=csv.ReadOptions(
            column_names=[column.name for column in columns],
            # A row may be longer than any block that one would choose.
            block_size=len(text) + 1,
            use_threads=False,
        ),
        parse_options=csv.ParseOptions(newlines_in_values=True, ignore_empty_lines=False),
        convert_options=csv.ConvertOptions(
            column_types={
                column.name: types["text" if column.kind in _LISTS else column.kind]
                for column in columns
            },
            null_values=[""],
            strings_can_be_null=True,
            quoted_strings_can_be_null=False,
            true_values=["true"],
            false_values=["false"],
        ),
    )
    for number, column in enumerate(columns):
        if column.kind in _LISTS:
            lists = _lists(table.column(number), types[column.kind])
            table = table.set_column(number, column.name, lists)
    return table


def _lists(texts: pa.ChunkedArray, kind: pa.DataType) -> pa.ChunkedArray:
    """Lists, of JSON; of texts there are few different ones."""
    import pyarrow as pa  # noqa: PLC0415

    encoded = texts.dictionary_encode().unify_dictionaries().combine_chunks()
    values = [json.loads(each) for each in encoded.dictionary.to_pylist()]
    return pa.array(values, kind).take(encoded.indices)
