"""The rights of each kind of role, and what a role lacks of them or has beyond them.

The *loader* runs ``sync``, the *analyst* reads what was published, the *auditor* reads what
``verify`` reads.  ``etl.warehouse.access.grants`` grants these rights.  Views and functions are
found in the catalog: every role may use those that run with the caller's own rights.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from sqlalchemy import Connection

from etl.resources import sql_directory

# A new table belongs here: a test compares these names with the database's.  Nothing may change or
# delete an earlier version.  An identity column needs no right on its sequence.
_TABLES: Final = {
    # The loader's privileges, and whether the analyst reads the table.
    "upload_token": ("SELECT, INSERT, UPDATE", True),
    "upload_token_superseded": ("SELECT, INSERT", True),
    "upload_token_status": ("SELECT", True),
    "upload_token_status_moment_log": ("SELECT, INSERT", True),
    "upload_token_status_count_log": ("SELECT, INSERT", True),
    "upload_bytes_arrival_log": ("SELECT, INSERT", True),
    "sync_run": ("SELECT, INSERT, UPDATE", True),
    "sync_page": ("SELECT, INSERT, DELETE", True),
    "unobserved_token": ("SELECT, INSERT", True),
    "pruning": ("SELECT", True),
    # Observations that were not published, and may never be.
    "upload_token_staging": ("SELECT, INSERT, DELETE", False),
    # Its payload is whatever the service sent; the rest is in READABLE_COLUMNS.
    "rejected_row": ("SELECT, INSERT, DELETE", False),
    # Who was erased, by keyed hash, and the key with which guesses can be checked.
    "erasure": ("SELECT", False),
    "erasure_key": ("SELECT", False),
    # Of use to the program only.
    "alembic_version": ("SELECT", False),
}
READABLE_COLUMNS: Final = {"rejected_row": ("run_id", "token_id", "reason", "created_second")}
"""Tables of which analysts and auditors read these columns only."""
TABLES: Final = sorted(_TABLES)
"""The tables that the migrations create."""


@dataclass(frozen=True, slots=True)
class Rights:
    """What a kind of role may do; anything else is too much."""

    purpose: str
    tables: Mapping[str, str]
    """The privileges on a table, such as ``SELECT, INSERT``."""
    columns: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Columns that it may read of tables that are not in ``tables``."""
    database: str = "CONNECT"

    def privileges(self, schema: str, database: str) -> dict[str, str]:
        """Each as ``sql/ops/privileges_held.sql`` words it, and that on the whole object."""
        on_objects = {f"schema {schema}": "USAGE", f"database {database}": self.database}
        on_objects |= {f"{schema}.{table}": words for table, words in self.tables.items()}
        wanted = [
            f"{one} on {name}" for name, words in on_objects.items() for one in words.split(", ")
        ]
        return {each: each for each in wanted} | {
            f"SELECT ({column}) on {schema}.{table}": f"SELECT on {schema}.{table}"
            for table, columns in self.columns.items()
            for column in columns
        }


RIGHTS: Final = {
    "loader": Rights(
        "runs sync, cannot change the past",
        {table: privileges for table, (privileges, _) in _TABLES.items()},
        # A batch of a large account is compared in a temporary table.
        database="CONNECT, TEMPORARY",
    ),
    "analyst": Rights(
        "reads what was published, changes nothing",
        {table: "SELECT" for table, (_, for_analysts) in _TABLES.items() if for_analysts},
        READABLE_COLUMNS,
    ),
    "auditor": Rights(
        "reads all that verify reads, changes nothing",
        {table: "SELECT" for table in _TABLES if table not in READABLE_COLUMNS},
        READABLE_COLUMNS,
    ),
}


def missing_privileges(
    connection: Connection, schema: str, role: str | None = None, kind: str = "loader"
) -> list[str]:
    """What the role lacks, such as ``INSERT on kaltura.sync_page``; empty if it can do its work.

    ``role`` defaults to the connection's own.  All privileges on a missing table are missing.
    Without USAGE on the schema nothing else in it is named.
    """
    wanted = RIGHTS[kind].privileges(schema, current_database(connection))
    rows = held(connection, schema, role or current_role(connection), itself=True)
    has = {row.privilege for row in rows}
    missing = [each for each, on_object in wanted.items() if not has & {each, on_object}]
    if f"USAGE on schema {schema}" in missing:
        return [each for each in missing if f" on {schema}." not in each]
    return missing


def excess_privileges(connection: Connection, schema: str, role: str, kind: str) -> list[str]:
    """What the role has or can acquire in the schema beyond what its kind needs.

    Such as ``DELETE on kaltura.sync_run (through pg_write_all_data)``; empty if there is nothing.
    Ask ``power_beyond_grants`` first: for an owner this lists everything.
    """
    allowed = set(RIGHTS[kind].privileges(schema, ""))
    for row in catalog(connection, "schema_objects", schema=schema):
        if row.kind == "view" and row.with_callers_rights:
            allowed.add(f"SELECT on {schema}.{row.name}")
    return [
        row.privilege + _source(row.through, role)
        for row in held(connection, schema, role)
        if row.kind != "database" and not allowed & {row.privilege, row.on_object}
    ]


def _source(through: list[str], role: str) -> str:
    """Where a privilege comes from; PUBLIC's reach every role, so they explain all the others."""
    if "PUBLIC" in through:
        return " (through PUBLIC)"
    others = [name for name in through if name != role]
    return f" (through {others[0]})" if others else ""


def held(connection: Connection, schema: str, role: str, *, itself: bool = False) -> list[Any]:
    """The rows of ``sql/ops/privileges_held.sql``: ``kind``, ``privilege``, ``on_object``,
    ``through``.  ``itself``: only what the role can use without SET ROLE."""
    return catalog(
        connection, "privileges_held", schema=schema, role=role, itself=itself, tables=TABLES
    )


def power_beyond_grants(connection: Connection, schema: str, role: str) -> str | None:
    """Why no grant can restrict the role, such as ``owns schema kaltura``; None if one can."""
    for row in catalog(connection, "powers_beyond_grants", role=role, schema=schema, tables=TABLES):
        power: str = row.power
        return power if row.name == role else f"is a member of {row.name}, which {power}"
    return None


def too_much(connection: Connection, schema: str) -> str | None:
    """What the connection's role can do that a loader must not, as a phrase; None if nothing."""
    role = current_role(connection)
    power = power_beyond_grants(connection, schema, role)
    if power is not None:
        return power
    excess = excess_privileges(connection, schema, role, "loader")
    return f"has {shortened(excess)}" if excess else None


def grantees(connection: Connection, schema: str) -> list[Any]:
    """Roles that were granted the published tables: ``name``, ``kind``, ``views_left_behind``."""
    return catalog(connection, "grantees", schema=schema)


def readers_left_behind(connection: Connection, schema: str) -> dict[str, list[str]]:
    """Roles that were granted the published tables, and views that they may not read.

    What is left when a view has come, and ``grant`` was not run again.
    """
    return {
        row.name: list(row.views_left_behind)
        for row in grantees(connection, schema)
        if row.views_left_behind
    }


def current_role(connection: Connection) -> str:
    """The role whose rights the connection has."""
    return str(connection.exec_driver_sql("select current_user").scalar_one())


def current_database(connection: Connection) -> str:
    return str(connection.exec_driver_sql("select current_database()").scalar_one())


def shortened(names: Sequence[str], shown: int = 5) -> str:
    """The first few of a list, for a sentence."""
    more = f" and {len(names) - shown} more" if len(names) > shown else ""
    return ", ".join(names[:shown]) + more


def catalog(connection: Connection, name: str, **values: object) -> list[Any]:
    """The rows of ``sql/ops/<name>.sql``."""
    text = (sql_directory() / "ops" / f"{name}.sql").read_text(encoding="utf-8")
    return list(connection.exec_driver_sql(text, values).all())
