"""What a loader may do in the schema, and what it still lacks."""

from __future__ import annotations

from typing import Final

from sqlalchemy import Connection, cast, func, literal, select
from sqlalchemy.dialects.postgresql import OID

LOADER_PRIVILEGES: Final = {
    "upload_token": ("SELECT", "INSERT", "UPDATE"),
    "upload_token_superseded": ("SELECT", "INSERT"),
    "upload_token_staging": ("SELECT", "INSERT", "DELETE"),
    "upload_token_status": ("SELECT",),
    "sync_run": ("SELECT", "INSERT", "UPDATE"),
    "sync_page": ("SELECT", "INSERT", "DELETE"),
    "rejected_row": ("SELECT", "INSERT", "DELETE"),
    "unobserved_token": ("SELECT", "INSERT"),
    "alembic_version": ("SELECT",),
}
"""All that a run needs.  Nothing may change or delete an earlier version."""


def missing_privileges(source: Connection | str, schema: str = "kaltura") -> list[str]:
    """What the role lacks, such as ``INSERT on kaltura.sync_page``; empty if it can do its work.

    ``source`` is an open connection or an address.  A table that is missing counts as all of its
    privileges missing.
    """
    if isinstance(source, str):
        # Inside, because schema imports this module.
        from etl.warehouse.schema import open_connection  # noqa: PLC0415

        with open_connection(source) as connection:
            return missing_privileges(connection, schema)
    # has_table_privilege raises where the schema is out of reach, so that is asked first; by oid,
    # because by name a missing schema is an error, not an answer.
    namespace = cast(func.to_regnamespace(func.quote_ident(literal(schema))), OID)
    if not source.scalar(select(func.has_schema_privilege(namespace, "USAGE"))):
        return [f"USAGE on schema {schema}"]
    return [
        f"{privilege} on {schema}.{table}"
        for table, privileges in LOADER_PRIVILEGES.items()
        for privilege in privileges
        if not source.scalar(
            select(
                func.has_table_privilege(
                    cast(
                        func.to_regclass(func.format("%I.%I", literal(schema), literal(table))), OID
                    ),
                    privilege,
                )
            )
        )
    ]
