"""Move a published run to another time, so that a test can live through weeks in a minute.

Real runs take a second and are stamped by the database's clock.  ``restamp_run`` shifts every time
that a run has written (ledger, pages, versions) by one offset: what happened within the run keeps
its order and its distances, and the account's own times (``created_at``, ``updated_at``) stay.
It writes as the owner of the tables; the program itself has no such power.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

import psycopg
from psycopg import sql

SHIFTED = [
    (
        "sync_run",
        "run_id",
        ["started_at", "heartbeat_at", "finished_at", "published_at", "oldest_page_at"],
    ),
    ("sync_page", "run_id", ["requested_at", "received_at"]),
    ("upload_token", "run_id", ["valid_from", "observed_at", "absence_confirmed_at"]),
    ("upload_token_superseded", "superseded_by_run_id", ["valid_to"]),
]


def restamp_run(
    connection: psycopg.Connection[Any], run_id: int, begin: datetime, schema: str = "kaltura"
) -> None:
    """Move the run so that it began at ``begin``: after every run that was moved before it.

    Call it after each run and before the next one, which then builds on the moved times: its
    ``last_listed_at`` is a copy of one of them.
    """
    row = connection.execute(
        sql.SQL("select %s - started_at from {} where run_id = %s").format(
            sql.Identifier(schema, "sync_run")
        ),
        (begin, run_id),
    ).fetchone()
    assert row is not None, f"no run {run_id}"
    with connection.transaction():
        for table, key, columns in SHIFTED:
            connection.execute(
                sql.SQL("update {} set {} where {} = {}").format(
                    sql.Identifier(schema, table),
                    sql.SQL(", ").join(
                        sql.SQL("{0} = {0} + {1}").format(sql.Identifier(column), row[0])
                        for column in columns
                    ),
                    sql.Identifier(key),
                    run_id,
                )
            )
