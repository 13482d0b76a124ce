"""What a database administrator has set up on the tables, and what it does to a run."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from sqlalchemy import Connection

from etl.errors import ConfigurationError
from etl.warehouse.access.privileges import TABLES, catalog, current_role, shortened
from etl.warehouse.row_security import hidden_tables

FORBIDDING: Final = ("row security", "publication")
"""Kinds with which a run cannot work; the others are warned of."""
_SENTENCES: Final = {
    "row security": "Row-level security hides rows of {names} from role {role}: as the owner, "
    "alter table … disable row level security, or as a superuser  alter role … bypassrls; a role "
    "that kaltura-etl grant limits to some accounts, and its members, cannot do this work",
    "publication": "Postgres refuses an UPDATE or a DELETE of {names}: it is published for logical "
    "replication without its key. Publish all of its columns and rows, or give it a replica "
    "identity (alter table … replica identity full)",
    "trigger": "triggers that are not the program's: {names}. A run that they change is refused "
    "(row_count_mismatch)",
    "rule": "rules that are not the program's: {names}. A run that they change is refused "
    "(row_count_mismatch)",
}


@dataclass(frozen=True, slots=True)
class Hindrance:
    """One kind of them."""

    kind: str
    """A key of ``_SENTENCES``."""
    text: str

    @property
    def forbids(self) -> bool:
        """Whether no run can work."""
        return self.kind in FORBIDDING


def hindrances(connection: Connection, schema: str) -> list[Hindrance]:
    """Those of the connection's role, one per kind."""
    by_kind: dict[str, list[str]] = {}
    hidden = [name for name in hidden_tables(connection, schema) if name in TABLES]
    if hidden:
        by_kind["row security"] = [f"{schema}.{name}" for name in hidden]
    for row in catalog(connection, "hindrances", schema=schema, tables=TABLES):
        name = f"{schema}.{row.on_table}" + (f" ({row.name})" if row.name else "")
        by_kind.setdefault(row.kind, []).append(name)
    role = current_role(connection)
    return [
        Hindrance(kind, _SENTENCES[kind].format(names=shortened(names), role=role))
        for kind, names in by_kind.items()
    ]


def require_unhindered(connection: Connection, schema: str) -> None:
    """Raise ConfigurationError if a run cannot work on these tables."""
    for each in hindrances(connection, schema):
        if each.forbids:
            raise ConfigurationError(f"{each.text}.", reason=each.kind.replace(" ", "_"))
