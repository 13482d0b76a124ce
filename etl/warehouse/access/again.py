"""What ``grant`` has given is given again after a migration, which leaves new objects to the owner.

Until then a view that was there and reads a new one is refused to its readers.  Only roles that had
exactly what ``grant`` gives get it again, so nobody gets more than somebody has decided, and nobody
loses anything: with rights that were added or taken by hand, a role is named, with the command.
"""

from __future__ import annotations

import logging
import shlex
from collections.abc import Mapping
from typing import Final

from sqlalchemy import Connection

from etl.errors import EtlError
from etl.warehouse.access.grants import grant
from etl.warehouse.access.privileges import (
    TABLES,
    excess_privileges,
    grantees,
    held,
    missing_privileges,
)
from etl.warehouse.schema.revision import open_connection

LOG: Final = logging.getLogger(__name__)


def roles_as_granted(connection: Connection, schema: str) -> dict[str, str]:
    """Roles that have exactly what ``grant`` gives on what is there, and their kinds.

    No role while PUBLIC has rights, and none that may pass its own on, which ``grant`` takes away,
    or that has some through another role.
    """
    return {
        row.name: row.kind
        for row in grantees(connection, schema)
        if not row.views_left_behind
        and not row.may_pass_on
        and not _comes_another_way(connection, schema, row.name)
        and not _missing(connection, schema, row.name, row.kind)
        and not excess_privileges(connection, schema, row.name, row.kind)
    }


def grant_again(url: str, schema: str, roles: Mapping[str, str]) -> list[str]:
    """Grant to ``roles`` (by name, their kinds) what they now lack; returns to which.

    Limits to accounts stay.  A role to which that is not possible is left as it is.
    """
    with open_connection(url) as connection:
        lacking = _lacking(connection, schema)
    granted = []
    for role in (each for each in roles if each in lacking):
        try:
            grant(url, schema, {roles[role]: role}, apply=True)
        except EtlError as error:
            LOG.warning(
                "role %s was not granted what is new: %s",
                role,
                error.message,
                extra={"role": role, "reason": error.fields.get("reason")},
            )
        else:
            granted.append(role)
    return granted


def commands_left(url: str, schema: str) -> list[str]:
    """The commands that grant, to roles that were granted the published tables, what they lack."""
    option = "" if schema == "kaltura" else f" --schema {shlex.quote(schema)}"
    with open_connection(url) as connection:
        return [
            f"kaltura-etl grant --{kind} {shlex.quote(role)} --apply{option}"
            for role, kind in _lacking(connection, schema).items()
        ]


def _lacking(connection: Connection, schema: str) -> dict[str, str]:
    return {
        row.name: row.kind
        for row in grantees(connection, schema)
        if row.views_left_behind or _missing(connection, schema, row.name, row.kind)
    }


def _comes_another_way(connection: Connection, schema: str, role: str) -> bool:
    """Whether the role has rights in the schema through PUBLIC, or a role that it is a member of.

    ``grant`` would take those of PUBLIC from every role, and give the role for itself what it has
    as a member: it would keep that when the membership ends.
    """
    rows = held(connection, schema, role)
    return any(row.kind != "database" and row.through != [role] for row in rows)


def _missing(connection: Connection, schema: str, role: str, kind: str) -> list[str]:
    """Privileges that the role lacks on tables that are there."""
    query = (
        "select relname from pg_class join pg_namespace as space on space.oid = relnamespace "
        "where nspname = %s"
    )
    there = set(connection.exec_driver_sql(query, (schema,)).scalars())
    absent = tuple(f" on {schema}.{table}" for table in TABLES if table not in there)
    missing = missing_privileges(connection, schema, role, kind)
    return [each for each in missing if not each.endswith(absent)]
