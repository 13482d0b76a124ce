"""What each role may do in the schema: what it needs, what it lacks, what it has beyond that.

Three kinds of role: the *loader* runs ``sync``, the *analyst* reads what was published, the
*auditor* reads what ``verify`` reads.  ``etl.warehouse.access.grants`` makes them so.

A new table belongs into ``LOADER_PRIVILEGES`` if a run needs it, and in any case into
``ANALYST_TABLES`` or ``NOT_FOR_ANALYSTS``; a test asks for that.  Views and functions are found in
the catalog: every role may use those that run with the caller's own rights.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from sqlalchemy import Connection

from etl.resources import sql_directory
from etl.warehouse.schema.tables import build_tables

LOADER_PRIVILEGES: Final = {
    "upload_token": ("SELECT", "INSERT", "UPDATE"),
    "upload_token_superseded": ("SELECT", "INSERT"),
    "upload_token_staging": ("SELECT", "INSERT", "DELETE"),
    "upload_token_status": ("SELECT",),
    "sync_run": ("SELECT", "INSERT", "UPDATE"),
    "sync_page": ("SELECT", "INSERT", "DELETE"),
    "rejected_row": ("SELECT", "INSERT", "DELETE"),
    "unobserved_token": ("SELECT", "INSERT"),
    "erasure": ("SELECT",),
    "erasure_key": ("SELECT",),
    "pruning": ("SELECT",),
    "alembic_version": ("SELECT",),
}
"""All that a run and ``verify`` need.  Nothing may change or delete an earlier version.  The
sequence of run_id is not here: the server draws the numbers of an identity column by itself."""

ANALYST_TABLES: Final = (
    "upload_token",
    "upload_token_superseded",
    "upload_token_status",
    "sync_run",
    "sync_page",
    "unobserved_token",
    "pruning",
)
"""What was published, and the ledger that says how complete it is; the views read these."""

READABLE_COLUMNS: Final = {"rejected_row": ("run_id", "token_id", "reason", "created_second")}
"""Tables of which analysts and auditors read these columns only."""

NOT_FOR_ANALYSTS: Final = {
    "upload_token_staging": "observations that were not published, and may never be",
    "rejected_row": "its payload is whatever the service sent; see READABLE_COLUMNS for the rest",
    "erasure": "who was erased, by keyed hash",
    "erasure_key": "its holder can try out who was erased",
    "alembic_version": "of use to the program only",
}
"""Every other table, and why."""

KINDS: Final = ("loader", "analyst", "auditor")


@dataclass(frozen=True, slots=True)
class Allowed:
    """What a kind of role may do; whatever else it can do is too much."""

    purpose: str
    tables: Mapping[str, tuple[str, ...]]
    columns: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Columns that it may read of tables that are not in ``tables``."""
    database: tuple[str, ...] = ("CONNECT",)


def known_tables() -> list[str]:
    """The tables that the migrations make, by name."""
    names = {table.name for table in build_tables().metadata.tables.values()}
    return sorted(names | LOADER_PRIVILEGES.keys())


def allowed(kind: str) -> Allowed:
    """What a role of one of ``KINDS`` may do."""
    if kind == "loader":
        return Allowed(
            "runs sync, cannot change the past",
            LOADER_PRIVILEGES,
            # A batch of a large account is compared in a temporary table.
            database=("CONNECT", "TEMPORARY"),
        )
    if kind == "analyst":
        purpose = "reads what was published, changes nothing"
        readable: tuple[str, ...] = ANALYST_TABLES
    else:
        purpose = "reads all that verify reads, changes nothing"
        readable = tuple(name for name in known_tables() if name not in READABLE_COLUMNS)
    return Allowed(purpose, dict.fromkeys(readable, ("SELECT",)), READABLE_COLUMNS)


def missing_privileges(
    connection: Connection, schema: str = "kaltura", role: str | None = None, kind: str = "loader"
) -> list[str]:
    """What the role lacks, such as ``INSERT on kaltura.sync_page``; empty if it can do its work.

    ``role`` is by default the connection's own.  A table that is missing counts as all of its
    privileges missing.  Without USAGE on the schema nothing else is named.
    """
    rights = allowed(kind)
    wanted = [(table, one) for table, all_of_it in rights.tables.items() for one in all_of_it]
    columns = [(table, name) for table, names in rights.columns.items() for name in names]
    found = catalog(
        connection,
        "privileges_missing",
        role=role,
        schema=schema,
        database=list(rights.database),
        tables=[table for table, _ in wanted],
        privileges=[privilege for _, privilege in wanted],
        of_tables=[table for table, _ in columns],
        columns=[name for _, name in columns],
    )
    return [row.missing for row in found]


def excess_privileges(connection: Connection, schema: str, role: str, kind: str) -> list[str]:
    """What the role has or can come to in the schema beyond what its kind needs.

    Such as ``DELETE on kaltura.sync_run (through pg_write_all_data)``; empty if there is nothing.
    Ask ``power_beyond_grants`` first: of an owner it lists everything.
    """
    rights = allowed(kind)
    views = set(views_with_callers_rights(connection, schema))
    excess = []
    for row in catalog(
        connection, "privileges_held", role=role, schema=schema, tables=known_tables()
    ):
        if row.kind == "n":
            harmless, what = row.privilege == "USAGE", f"schema {schema}"
        else:
            may = ("SELECT",) if row.name in views else rights.tables.get(row.name, ())
            harmless, what = row.privilege in may, f"{schema}.{row.name}"
            if row.column_name is not None:
                readable = rights.columns.get(row.name, ())
                harmless |= row.privilege == "SELECT" and row.column_name in readable
                what = f"column {row.column_name} of {what}"
        if not harmless:
            excess.append(f"{row.privilege} on {what}{_source(row.through, role)}")
    return excess


def _source(through: list[str], role: str) -> str:
    """Where a privilege comes from; PUBLIC's reach every role, so they explain all the others."""
    if "PUBLIC" in through:
        return " (through PUBLIC)"
    others = [name for name in through if name != role]
    return f" (through {others[0]})" if others else ""


def current_role(connection: Connection) -> str:
    """The role whose rights the connection has."""
    return str(connection.exec_driver_sql("select current_user").scalar_one())


def too_much(connection: Connection, schema: str) -> str | None:
    """What the connection's role can do that a loader must not, as a phrase; None if nothing."""
    role = current_role(connection)
    power = power_beyond_grants(connection, schema, role)
    if power is not None:
        return power
    excess = excess_privileges(connection, schema, role, "loader")
    return f"has {shortened(excess)}" if excess else None


def shortened(names: Sequence[str], shown: int = 5) -> str:
    """The first few of a list, for a sentence."""
    more = f" and {len(names) - shown} more" if len(names) > shown else ""
    return ", ".join(names[:shown]) + more


def power_beyond_grants(connection: Connection, schema: str, role: str) -> str | None:
    """Why no grant can hold the role back, such as ``owns schema kaltura``; None if one can."""
    found = catalog(
        connection, "powers_beyond_grants", role=role, schema=schema, tables=known_tables()
    )
    if not found:
        return None
    first = found[0]
    power: str = first.power
    return power if first.itself else f"is a member of {first.name}, which {power}"


def readers_left_behind(connection: Connection, schema: str) -> dict[str, list[str]]:
    """Roles that were granted the published tables, and views that they may not read.

    What ``grant`` leaves when a migration has brought a view since.
    """
    views = views_with_callers_rights(connection, schema)
    found = catalog(connection, "readers_left_behind", schema=schema, views=views)
    return {row.role: list(row.views) for row in found}


def views_with_callers_rights(connection: Connection, schema: str) -> list[str]:
    """The views of the schema that show each caller what that caller may read, by name."""
    return [
        row.name
        for row in catalog(connection, "schema_objects", schema=schema)
        if row.kind == "view" and row.with_callers_rights
    ]


def catalog(connection: Connection, name: str, **values: object) -> list[Any]:
    """The rows of ``sql/ops/<name>.sql``."""
    text = (sql_directory() / "ops" / f"{name}.sql").read_text(encoding="utf-8")
    return list(connection.exec_driver_sql(text, values).all())
