"""dlt as its documentation has it: a generator of rows, the scd2 strategy, the csv loader."""

from __future__ import annotations

import dlt  # type: ignore[import-not-found,unused-ignore]

from benchmarks.peers.tools.dlt_place import pipeline
from benchmarks.peers.tools.pages import pages


def main() -> None:
    rows = dlt.resource(
        pages,
        name="upload_token",
        write_disposition={"disposition": "merge", "strategy": "scd2"},
    )
    pipeline().run(rows, loader_file_format="csv").raise_on_failed_jobs()


if __name__ == "__main__":
    main()
