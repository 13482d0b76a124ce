"""What only ``demo`` asks of the warehouse: a schema of its own, its calendar, a token to show."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from typing import Any, Final

import psycopg
from psycopg import sql
from sqlalchemy import func, select

from etl.errors import ConfigurationError, LeaseHeld
from etl.warehouse.engine import driver_connection, transaction, translated_errors
from etl.warehouse.read.queries import Reader
from etl.warehouse.schema.database import Database

MADE_BY_DEMO: Final = "Made by kaltura-etl demo, which drops it when it runs again."

WRITTEN_BY_A_RUN: Final = (
    (
        "sync_run",
        "run_id",
        ("started_at", "heartbeat_at", "finished_at", "published_at", "oldest_page_at"),
    ),
    ("sync_page", "run_id", ("requested_at", "received_at")),
    ("upload_token", "run_id", ("valid_from", "observed_at", "absence_confirmed_at")),
    ("upload_token_superseded", "superseded_by_run_id", ("valid_to",)),
)
"""Every time that a run writes: the table, its column of the run, and the columns of times."""
_LOGGED_AGAIN: Final = """
    update {log} as logged
    set
        happened_at = least(
            greatest(moment.happened_at, logged.from_happened_at), moment.happened_before
        ),
        happened_after = moment.happened_after,
        happened_before = moment.happened_before,
        valid_from = moment.valid_from
    from {derived} as moment
    where
        logged.run_id = %(run_id)s
        and moment.run_id = %(run_id)s
        and moment.partner_id = logged.partner_id
        and moment.token_id = logged.token_id
        and moment.version = logged.version
"""
_SINCE_AGAIN: Final = """
    update {token} as latest
    set
        status_happened_at = logged.happened_at,
        status_happened_after = logged.happened_after,
        status_happened_before = logged.happened_before
    from {log} as logged
    where
        logged.run_id = %(run_id)s
        and latest.run_id = %(run_id)s
        and logged.partner_id = latest.partner_id
        and logged.token_id = latest.token_id
        and logged.version = latest.version
"""
_SIGHTED_AGAIN: Final = """
    update {token} as sighted
    set first_happened_at = moment.happened_at
    from {derived} as moment
    where
        sighted.run_id = %(run_id)s
        and sighted.version = 1
        and moment.run_id = %(run_id)s
        and moment.version = 1
        and moment.partner_id = sighted.partner_id
        and moment.token_id = sighted.token_id
"""
_STAYS_AGAIN: Final = """
    update {token} as latest
    set earlier_stays = derived.earlier_stays
    from {derived_stays} as derived
    where
        latest.run_id = %(run_id)s
        and derived.partner_id = latest.partner_id
        and derived.token_id = latest.token_id
"""
_COUNTS_DROPPED: Final = """
    delete from {counts}
    where partner_id = (select partner_id from {run} where run_id = %(run_id)s)
"""
_COUNTED_AGAIN: Final = """
    insert into {counts} (
        partner_id, run_id, quarter_hour, status, status_code, tokens, unseen_tokens
    )
    select partner_id, run_id, quarter_hour, status, status_code, tokens, unseen_tokens
    from {derived_counts}
    where partner_id = (select partner_id from {run} where run_id = %(run_id)s)
"""
_ARRIVALS_DROPPED: Final = """
    delete from {arrivals}
    where partner_id = (select partner_id from {run} where run_id = %(run_id)s)
"""
_ARRIVED_AGAIN: Final = """
    insert into {arrivals} (
        partner_id, run_id, is_long, utc_day,
        earliest_quarters, latest_quarters, best_quarters, bytes
    )
    select
        partner_id, run_id, is_long, utc_day,
        earliest_quarters, latest_quarters, best_quarters, bytes
    from {derived_arrivals}
    where partner_id = (select partner_id from {run} where run_id = %(run_id)s)
"""


@contextmanager
def demo_lock(database: Database) -> Iterator[None]:
    """One demo at a time, else LeaseHeld.

    A session's lock is right here: no pooler stands in front of the embedded server.
    """
    key = func.hashtextextended("kaltura-etl demo", 0)
    with translated_errors(database.engine), database.engine.connect() as connection:
        locked = connection.scalar(select(func.pg_try_advisory_lock(key)))
        connection.commit()
        if not locked:
            raise LeaseHeld("Another demo is at work in this warehouse: wait until it has ended.")
        try:
            yield
        finally:
            # The connection goes back to a pool, which would keep the lock.
            connection.invalidate()


def recreate_demo_schema(database: Database) -> None:
    """Drop the schema of an earlier demo, and create it empty.

    Raises ConfigurationError if there is one that demo did not create.
    """
    schema = sql.Identifier(database.schema)
    with transaction(database.engine) as connection:
        driver = driver_connection(connection)
        found = driver.execute(
            "select obj_description(oid, 'pg_namespace') from pg_namespace where nspname = %s",
            [database.schema],
        ).fetchone()
        if found is not None and found[0] != MADE_BY_DEMO:
            raise ConfigurationError(
                f"Schema {database.schema} of the embedded Postgres was not made by demo, which "
                "would drop it. Rename it: ./dev psql -c 'alter schema "
                f"{database.schema} rename to another_name'",
                schema=database.schema,
            )
        driver.execute(sql.SQL("drop schema if exists {} cascade").format(schema))
        driver.execute(sql.SQL("create schema {}").format(schema))
        driver.execute(
            sql.SQL("comment on schema {} is {}").format(schema, sql.Literal(MADE_BY_DEMO))
        )


def move_run(database: Database, run_id: int, begin: datetime) -> None:
    """``restamp_run`` in a transaction of its own."""
    with transaction(database.engine) as connection:
        restamp_run(driver_connection(connection), run_id, begin, database.schema)


def restamp_run(
    connection: psycopg.Connection[Any], run_id: int, begin: datetime, schema: str = "kaltura"
) -> None:
    """Move a run to another time: as if it had begun at ``begin``, after all runs moved before.

    Every time that it has written (ledger, pages, versions) is shifted by one offset, so what
    happened within the run keeps its order and its distances; the account's own times
    (``created_at``, ``updated_at``) stay.  Call it before the next run, which builds on the moved
    times: its ``last_listed_at`` is a copy of one of them.  Needs the owner of the tables.
    """
    row = connection.execute(
        sql.SQL("select %s - started_at from {} where run_id = %s").format(
            sql.Identifier(schema, "sync_run")
        ),
        (begin, run_id),
    ).fetchone()
    assert row is not None, f"no run {run_id}"  # noqa: S101 - the caller has just made it
    with connection.transaction():
        for table, key, columns in WRITTEN_BY_A_RUN:
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
        tell_moments_again(connection, run_id, schema)


def tell_moments_again(
    connection: psycopg.Connection[Any], run_id: int, schema: str = "kaltura"
) -> None:
    """Derive what the last run has told of changes of status from its times as they are now."""
    for statement in (
        *(_LOGGED_AGAIN, _SINCE_AGAIN, _SIGHTED_AGAIN, _STAYS_AGAIN),
        *(_COUNTS_DROPPED, _COUNTED_AGAIN),
        *(_ARRIVALS_DROPPED, _ARRIVED_AGAIN),
    ):
        connection.execute(
            sql.SQL(statement).format(
                log=sql.Identifier(schema, "upload_token_status_moment_log"),
                token=sql.Identifier(schema, "upload_token"),
                derived=sql.Identifier(schema, "upload_token_status_moment"),
                derived_stays=sql.Identifier(schema, "upload_token_earlier_stay"),
                run=sql.Identifier(schema, "sync_run"),
                counts=sql.Identifier(schema, "upload_token_status_count_log"),
                derived_counts=sql.Identifier(schema, "upload_token_status_count"),
                arrivals=sql.Identifier(schema, "upload_bytes_arrival_log"),
                derived_arrivals=sql.Identifier(schema, "upload_bytes_arrival"),
            ),
            {"run_id": run_id},
        )


def most_eventful_token(reader: Reader) -> str:
    """The id of a token that has been in the most states, counting not being listed as one."""
    (row,) = reader.query(
        "select token_id from upload_token_history group by partner_id, token_id "
        "order by count(distinct (status, is_listed)) desc, count(*) desc, token_id limit 1"
    )
    return str(row["token_id"])
