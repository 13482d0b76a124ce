"""The privileges to rewrite or delete history, which no loader has."""

from __future__ import annotations

from collections.abc import Iterable

import sqlalchemy as sa

from etl.errors import CredentialsRefused
from etl.warehouse.schema.database import Database


def missing_rights(
    connection: sa.Connection, database: Database, wanted: Iterable[tuple[str, str]]
) -> list[str]:
    """Those of the (table, privilege) that the role lacks: ``DELETE on kaltura.sync_page``."""
    return [
        f"{privilege} on {database.schema}.{table}"
        for table, privilege in wanted
        if not connection.scalar(
            sa.select(
                sa.func.has_table_privilege(
                    sa.func.format("%I.%I", sa.literal(database.schema), sa.literal(table)),
                    privilege,
                )
            )
        )
    ]


def require_rights(
    connection: sa.Connection,
    database: Database,
    wanted: Iterable[tuple[str, str]],
    *,
    to: str,
    advice: str,
) -> None:
    """Raise CredentialsRefused unless the role has each (table, privilege)."""
    missing = missing_rights(connection, database, wanted)
    if missing:
        raise CredentialsRefused(
            f"The database role may not {to}: it lacks {', '.join(missing)}. {advice}",
            missing=missing,
        )
