"""What the tests count as WAL of a table: what was written, not what reading has marked."""

from __future__ import annotations

from typing import Any

import psycopg
from psycopg.rows import dict_row

from tests.support.job import wait_until
from tests.support.wal import install_wal_inspect, wal_of_tables, wal_position


def test_a_row_that_a_reader_marks_as_committed_is_not_a_write(empty_database_url: str) -> None:
    with psycopg.connect(empty_database_url, autocommit=True, row_factory=dict_row) as connection:

        def query(statement: str, *parameters: object) -> list[dict[str, Any]]:
            cursor = connection.execute(statement.encode(), parameters or None)
            return cursor.fetchall() if cursor.description else []

        def marked_by_a_reader() -> bool:
            # Not the first one, if another session has just committed and is not on disk yet.
            query("select a from read")
            query("checkpoint")  # which also writes the WAL: only what is written can be read
            return bool(
                query(
                    "select 1 from pg_get_wal_block_info(%s, pg_current_wal_flush_lsn(), false) "
                    "where relfilenode = pg_relation_filenode('read')",
                    start,
                )
            )

        assert install_wal_inspect(query)
        query("create table read as select 1 as a")
        query("checkpoint")
        start = wal_position(query)
        wait_until(marked_by_a_reader)

        assert "read" not in wal_of_tables(query, start)

        query("update read set a = 2")
        query("checkpoint")

        assert wal_of_tables(query, start)["read"] > 0
