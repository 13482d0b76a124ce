"""What the program needs of a server beyond the protocol of Postgres, asked of the server itself.

Many services call themselves compatible.  What counts is not their name but what they do, so each
feature is probed: nothing is written, and an error is an answer.
"""

from __future__ import annotations

from typing import Final, NamedTuple

import psycopg
from sqlalchemy import Connection
from sqlalchemy.exc import SQLAlchemyError

from etl.errors import ConfigurationError


class Feature(NamedTuple):
    """Something that the program needs, and a query that is true where the server has it."""

    name: str
    probe: str


FEATURES: Final = (
    # Views run with the rights of whoever queries them; no query shows the option without a view.
    Feature(
        "views with security_invoker (PostgreSQL 15)",
        "select cast(current_setting('server_version_num') as integer) >= 150000",
    ),
    Feature(
        "multirange types (int8multirange), range_agg, and unnest of them",
        "select (select range_agg(span) from (values (int8range(1, 2)), (int8range(2, 3))) as v "
        "(span)) + '{[5,6)}'::int8multirange = '{[1,3),[5,6)}'::int8multirange "
        "and (select count(*) from unnest('{[1,3),[5,6)}'::int8multirange)) = 2",
    ),
    Feature(
        "SQL functions that are bound at creation (begin atomic)",
        "select exists (select from pg_attribute where attrelid = 'pg_proc'::regclass "
        "and attname = 'prosqlbody')",
    ),
    Feature(
        "READ COMMITTED as isolation level",
        # YugabyteDB calls READ COMMITTED what is another level there, unless it is enabled.
        "select coalesce(current_setting('yb_effective_transaction_isolation_level', true), "
        "current_setting('transaction_isolation')) = 'read committed'",
    ),
    Feature(
        "advisory locks that last until the transaction ends",
        # A lock of this session's own: another one may try the same at this moment.
        "select pg_try_advisory_xact_lock(730608696, pg_backend_pid()) and exists "
        "(select from pg_locks where locktype = 'advisory' and pid = pg_backend_pid() and granted)",
    ),
    Feature(
        "settings for one transaction",
        "select set_config('lock_timeout', '61s', true) = '61s'",
    ),
    Feature(
        "select … for update skip locked",
        "select true from (select 1) as s for update skip locked",
    ),
    Feature("row-level security", "select to_regclass('pg_catalog.pg_policy') is not null"),
    Feature(
        "collation C",
        "select 'B' < 'a' collate \"C\" and exists (select from pg_collation where collname = 'C')",
    ),
    Feature(
        "lateral subqueries, ordered sets, and filtered aggregates",
        "select percentile_cont(0.5) within group (order by part.x) = 1.5 and count(*) filter "
        "(where part.x > 1) = 1 from (values (1), (2)) as v (a) cross join lateral "
        "(select v.a as x offset 0) as part",
    ),
    Feature(
        "json_to_recordset, and jsonb with ? and ->>",
        "select r.a = 1 and '{\"b\": 2}'::jsonb ? 'b' and '{\"b\": 2}'::jsonb ->> 'b' = '2' "
        "from json_to_recordset('[{\"a\": 1}]') as r (a integer)",
    ),
    Feature(
        "the functions sha256, hashtextextended, width_bucket (of an array), string_agg (of "
        "bytea), date_bin",
        "select length(string_agg(sha256(convert_to('x', 'UTF8')), ''::bytea)) = 32 "
        "and hashtextextended('x', 0) is not null and width_bucket(5, array[1, 3]) = 2 "
        "and date_bin('15 minutes', timestamp '2026-01-01 00:16', timestamp '2000-01-01') "
        "= timestamp '2026-01-01 00:15'",
    ),
)


def feature_problem(connection: Connection) -> ConfigurationError | None:
    """What the server lacks, as an error; None if it has everything.

    Rolls back what the caller has begun.
    """
    missing = missing_features(connection)
    if not missing:
        return None
    return ConfigurationError(
        f"This server lacks what the warehouse needs: {'; '.join(missing)}. Use PostgreSQL 15 or "
        "newer, or a service that has them; docs/scale.md has a table.",
        reason="features",
        missing=missing,
    )


def missing_features(connection: Connection) -> list[str]:
    """The names of the features that the server lacks.  Rolls back what the caller has begun."""
    return [feature.name for feature in FEATURES if not _has(connection, feature)]


def _has(connection: Connection, feature: Feature) -> bool:
    try:
        return connection.exec_driver_sql(feature.probe.replace("%", "%%")).scalar() is True
    except (SQLAlchemyError, psycopg.Error):
        if connection.invalidated:
            raise
        return False
    finally:
        if not connection.invalidated:
            connection.rollback()
