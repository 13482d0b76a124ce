"""How much WAL a test's database has written, without that of other databases on the server."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import psycopg

Query = Callable[..., list[dict[str, Any]]]


def wal_position(query: Query) -> str:
    """The current end of the WAL, for ``wal_of_tables``."""
    return str(query("select pg_current_wal_insert_lsn() as at")[0]["at"])


def install_wal_inspect(query: Query) -> bool:
    """Enable ``wal_of_tables``; False where Postgres lacks it (before 16, or without contrib)."""
    try:
        query("create extension pg_walinspect")
        query("select 'pg_get_wal_block_info(pg_lsn, pg_lsn, boolean)'::regprocedure")
    except psycopg.Error:
        return False
    # Other tests drop databases on the same server, and each drop is a checkpoint, after which the
    # segments before it would go.
    query("alter system set wal_keep_size = '1GB'")
    query("select pg_reload_conf()")
    return True


def wal_of_tables(query: Query, start: str) -> dict[str, int]:
    """Bytes of WAL about each table (its indexes and TOAST too) without page images.

    Nor what announces the image of a page that a reader marked.  The first who reads a row after
    its commit is on disk marks it as committed, and where pages have checksums Postgres logs the
    marked page, once after each checkpoint; which reader that is depends on the other sessions.
    """
    rows = query(
        """
        with record as (
            select relfilenode, start_lsn, record_length, block_fpi_length
            from pg_get_wal_block_info(%s, pg_current_wal_flush_lsn(), false)
            where reldatabase = (select oid from pg_database where datname = current_database())
                and record_type <> 'FPI_FOR_HINT'
        ), named as (
            select coalesce(owner.relname, of_index.relname, relation.relname) as name, record.*
            from record
            join pg_class as relation on pg_relation_filenode(relation.oid) = record.relfilenode
            left join pg_index on indexrelid = relation.oid
            left join pg_class as of_index on of_index.oid = indrelid
            left join pg_class as owner
                on owner.reltoastrelid = coalesce(of_index.oid, relation.oid)
                and owner.reltoastrelid <> 0
        )
        select name, sum(record_length - block_fpi_length)::int as bytes from named group by name
        """,
        start,
    )
    return {row["name"]: row["bytes"] for row in rows}
