"""The tables of the warehouse, for SQLAlchemy Core: what the loader reads and writes.

The same tables are made by ``migrations/``; a test checks that the two agree.  Names are
contracts.  The analysts' views are in ``sql/views/``.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

from sqlalchemy import FromClause, MetaData, Table

from etl.warehouse.schema import erasure_tables, ledger_tables, token_tables
from etl.warehouse.schema.columns import NAMING_CONVENTION


@dataclass(frozen=True, slots=True)
class Tables:
    """The tables of one schema, by the names that they have in the database."""

    metadata: MetaData
    upload_token: Table
    upload_token_superseded: Table
    upload_token_staging: Table
    upload_token_status: Table
    upload_token_status_moment_log: Table
    upload_token_status_count_log: Table
    upload_bytes_arrival_log: Table
    sync_run: Table
    sync_page: Table
    rejected_row: Table
    unobserved_token: Table
    erasure: Table
    erasure_key: Table
    pruning: Table


@cache
def build_tables(schema: str | None = "kaltura") -> Tables:
    """The tables in ``schema``; None leaves the name out, so that the search_path decides."""
    metadata = MetaData(schema=schema, naming_convention=NAMING_CONVENTION)
    sync_run = ledger_tables.sync_run_table(metadata)
    tables = Tables(
        metadata=metadata,
        upload_token=token_tables.upload_token_table(metadata),
        upload_token_superseded=token_tables.upload_token_superseded_table(metadata),
        upload_token_staging=token_tables.upload_token_staging_table(metadata),
        upload_token_status=token_tables.upload_token_status_table(metadata),
        upload_token_status_moment_log=token_tables.status_moment_log_table(metadata),
        upload_token_status_count_log=token_tables.status_count_log_table(metadata),
        upload_bytes_arrival_log=token_tables.bytes_arrival_log_table(metadata),
        sync_run=sync_run,
        sync_page=ledger_tables.sync_page_table(metadata, sync_run),
        rejected_row=ledger_tables.rejected_row_table(metadata, sync_run),
        unobserved_token=ledger_tables.unobserved_token_table(metadata, sync_run),
        erasure=erasure_tables.erasure_table(metadata),
        erasure_key=erasure_tables.erasure_key_table(metadata),
        pruning=erasure_tables.pruning_table(metadata),
    )
    for table in (tables.upload_token, tables.upload_token_superseded):
        token_tables.index_marked(table)
        token_tables.index_history(table)
    return tables


@cache
def alias_of(table: Table, name: str) -> FromClause:
    """The table under another name: one object per process, as the table is.

    SQLAlchemy makes a column for each of the table's, and the ledger has 46: anew in each
    statement, that was a tenth of the function calls of a small run.
    """
    alias = table.alias(name)
    # Made here, before several threads have it.
    _ = alias.c
    return alias
