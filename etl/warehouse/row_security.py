"""Row-level security, where ``grant`` limits an analyst to some accounts: who sees every row.

Postgres applies it to everybody but the owner of the tables.  With the setting ``row_security`` off
it refuses to apply it, even where no policy hides anything from the role; so the setting of our
transactions depends on what the policies do.  ``etl.warehouse.access.limits`` creates them.
"""

from __future__ import annotations

from typing import Final

import sqlalchemy as sa

from etl.resources import sql_directory

EVERY_ACCOUNT: Final = "kaltura_etl_every_account"
"""The policy that hides nothing from the roles that are not limited; only a limit needs it."""

_policy: Final = sa.table("pg_policy", sa.column("polname"), schema="pg_catalog")
LIMITS_SOMEBODY: Final = sa.exists().select_from(_policy).where(_policy.c.polname == EVERY_ACCOUNT)
"""Whether the database has such policies: most have none, and pay no more than this question."""


def hidden_tables(connection: sa.Connection, schema: str) -> list[str]:
    """The tables of which row-level security hides rows from the connection's role."""
    text = (sql_directory() / "ops" / "rows_hidden.sql").read_text(encoding="utf-8")
    return list(connection.exec_driver_sql(text, {"schema": schema}).scalars())


def show_rows(connection: sa.Connection, schema: str) -> str:
    """Let the transaction read tables with policies, unless these hide rows from the role.

    If they do, every statement that they affect is still refused by Postgres.  Returns the value
    of ``row_security``.
    """
    if hidden_tables(connection, schema):
        return "off"
    connection.execute(sa.select(sa.func.set_config("row_security", "on", True)))
    return "on"
