"""How this schema's columns and constraints are written."""

from __future__ import annotations

from typing import Any, Final

from sqlalchemy import CheckConstraint, Column, DateTime, Text, text
from sqlalchemy.types import TypeEngine

NAMING_CONVENTION: Final = {
    "pk": "pk_%(table_name)s",
    "uq": "uq_%(table_name)s_%(column_0_N_name)s",
    "ck": "ck_%(table_name)s_%(constraint_name)s",
    "fk": "fk_%(table_name)s_%(column_0_N_name)s",
    "ix": "ix_%(table_name)s_%(column_0_N_name)s",
}
STORAGE: Final = "storage"
"""In ``Column.info``: how Postgres stores long values, if not as it would by itself."""
PERSISTENCE: Final = "persistence"
"""In ``Table.info``: ``unlogged``, if it is."""
REPLICA_IDENTITY: Final = "replica_identity"
"""In ``Table.info``: by what logical replication finds a row, if not by the primary key."""


def column(
    name: str,
    kind: TypeEngine[Any],
    comment: str,
    *,
    null: bool = False,
    default: str = "",
    storage: str = "",
) -> Column[Any]:
    return Column(
        name,
        kind,
        nullable=null,
        server_default=text(default) if default else None,
        comment=comment,
        info={STORAGE: storage} if storage else {},
    )


def bytewise() -> Text:
    # Ids are opaque: bytewise order is the same on every server, and sorts twice as fast.
    return Text(collation="C")


def time() -> DateTime:
    return DateTime(timezone=True)


def one_of(column: str, values: tuple[str, ...]) -> CheckConstraint:
    listed = ", ".join(f"'{value}'" for value in values)
    return CheckConstraint(f"{column} in ({listed})", name=column)
