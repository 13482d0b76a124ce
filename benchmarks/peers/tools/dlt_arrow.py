"""dlt at its fastest: Arrow tables of many pages, the scd2 strategy, the parquet loader over ADBC.

The version of a row is a hash of its columns made by pandas, as dlt's own helper makes it, but
without the columns that change by themselves.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import dlt  # type: ignore[import-not-found,unused-ignore]
import orjson  # type: ignore[import-not-found,unused-ignore]
import pandas  # type: ignore[import-not-found,import-untyped,unused-ignore]
import pyarrow  # type: ignore[import-not-found,import-untyped,unused-ignore]

from benchmarks.peers.tools.dlt_place import pipeline
from benchmarks.peers.tools.pages import pages

PAGES_PER_TABLE = 20
TEXT = (
    *("id", "userId", "fileName", "uploadUrl", "attachedObjectType", "attachedObjectId"),
    "objectType",
)
WHOLE = ("partnerId", "status")
SIZES = ("fileSize", "uploadedFileSize")
TIMES = ("createdAt", "updatedAt")
VOLATILE = ("autoFinalize", "uploadUrl")


def tables() -> Iterator[Any]:
    """Arrow tables of up to 10,000 rows, with a column ``row_hash``."""
    rows: list[dict[str, Any]] = []
    for number, page in enumerate(pages(orjson.loads), 1):
        rows += page
        if number % PAGES_PER_TABLE == 0:
            yield _table(rows)
            rows = []
    if rows:
        yield _table(rows)


def _table(rows: list[dict[str, Any]]) -> Any:
    columns: dict[str, Any] = {
        name: pyarrow.array([row.get(name) for row in rows], pyarrow.string()) for name in TEXT
    }
    for name in (*WHOLE, *SIZES):
        columns[name] = _whole([row.get(name) for row in rows])
    for name in TIMES:
        seconds = _whole([row.get(name) for row in rows])
        columns[name] = seconds.cast(pyarrow.timestamp("s", "UTC")).cast(
            pyarrow.timestamp("us", "UTC")
        )
    finals = [row.get("autoFinalize") for row in rows]
    try:
        columns["autoFinalize"] = pyarrow.array(finals, pyarrow.bool_())
    except pyarrow.ArrowInvalid:  # 0 and 1
        finals = [None if one is None else bool(one) for one in finals]
        columns["autoFinalize"] = pyarrow.array(finals, pyarrow.bool_())
    table = pyarrow.table(columns)
    compared = table.drop_columns(list(VOLATILE)).to_pandas(deduplicate_objects=False)
    hashes = pandas.util.hash_pandas_object(compared, index=False)
    return table.append_column(
        "row_hash", pyarrow.Array.from_pandas(hashes, type=pyarrow.int64(), safe=False)
    )


def _whole(values: list[Any]) -> Any:
    """A column of integers; they may come as numbers, as text, or as both."""
    try:
        return pyarrow.array(values, pyarrow.int64())
    except (pyarrow.ArrowInvalid, pyarrow.ArrowTypeError):
        pass
    try:
        return pyarrow.array(values, pyarrow.string()).cast(pyarrow.int64())
    except (pyarrow.ArrowInvalid, pyarrow.ArrowTypeError):
        return pyarrow.array([None if one is None else int(one) for one in values], pyarrow.int64())


def main() -> None:
    rows = dlt.resource(
        tables,
        name="upload_token",
        write_disposition={
            "disposition": "merge",
            "strategy": "scd2",
            "row_version_column_name": "row_hash",
        },
    )
    pipeline().run(rows, loader_file_format="parquet").raise_on_failed_jobs()


if __name__ == "__main__":
    main()
