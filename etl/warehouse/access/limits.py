"""Limiting an analyst to some accounts: row-level security on the tables that he reads.

A limit is a restrictive policy on each of these tables, for one role: Postgres applies it to the
role and to the roles that inherit from it, whatever they set, and evaluates it before every
condition that could reveal a row.  The accounts are constants of the policy: there is no table of
them that someone might write to, a renamed role stays limited, and an index on the account is used.

Row-level security shows nothing to a role for which no policy says otherwise, so a policy for all
roles shows everything.  It is the constant true, which the planner drops: the plans of roles that
are not limited are those of a table without row-level security.  A warehouse in which nobody is
limited has neither.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import count
from typing import Any, Final, LiteralString

from psycopg import sql
from sqlalchemy import Connection
from sqlalchemy.exc import DBAPIError

from etl.errors import ConfigurationError, WarehouseUnavailable
from etl.warehouse.access.privileges import RIGHTS, catalog, shortened
from etl.warehouse.engine import LOCK_NOT_AVAILABLE, LOCK_SECONDS, sqlstate_of
from etl.warehouse.locks import ANY_LOCK, lock_holder
from etl.warehouse.row_security import EVERY_ACCOUNT
from etl.warehouse.schema.layout import layout
from etl.warehouse.schema.tables import build_tables

LIMIT: Final = "kaltura_etl_limit_"
"""What the names of the policies that limit a role begin with."""
POLL_SECONDS: Final = 0.05
_EVERY_ACCOUNT: Final = sql.Identifier(EVERY_ACCOUNT)


def account_tables() -> list[str]:
    """The tables with rows of accounts that an analyst reads."""
    readable = RIGHTS["analyst"].tables.keys() | RIGHTS["analyst"].columns.keys()
    return sorted(
        name
        for name, table in build_tables(None).metadata.tables.items()
        if name in readable and {"partner_id", "run_id"} & set(table.c.keys())
    )


def limited_roles(connection: Connection, schema: str) -> dict[str, tuple[int, ...]]:
    """The roles with a limit of ``grant``, and the accounts that each may see.

    Raises ConfigurationError where a policy of that name is not as ``grant`` made it.
    """
    found: dict[str, set[int]] = {}
    for row in _policies(connection, schema):
        if row.of_role is None or not (row.name or "").startswith(LIMIT):
            continue
        if row.accounts is None:
            raise ConfigurationError(
                f"The policy {row.name} on {schema}.{row.on_table} is not as kaltura-etl grant "
                f"made it: drop it, then run grant --analyst {row.of_role} --accounts … again.",
                role=row.of_role,
            )
        found[row.of_role] = found.get(row.of_role, set(row.accounts)) & set(row.accounts)
    return {role: tuple(sorted(accounts)) for role, accounts in sorted(found.items())}


def limit_statements(
    connection: Connection, schema: str, wanted: Mapping[str, Sequence[int]]
) -> list[str]:
    """What is missing so that each role sees the rows of its accounts alone; of all, if none.

    Empty if nothing is.  Begins with the lock that ``take_tables`` takes.

    Raises ConfigurationError where somebody else has set up row-level security, and on Citus, which
    creates no policy with a subquery.
    """
    if any(wanted.values()) and layout(connection, schema).is_sharded:
        raise ConfigurationError(
            f"Schema {schema} is kept by Citus, where an analyst is limited by schemas: keep each "
            "account in one of its own, and run kaltura-etl grant --analyst without --accounts in "
            "as many schemas as he may see accounts.",
            reason="layout",
            schema=schema,
        )
    rows = _policies(connection, schema)
    statements = [
        statement.as_string()
        for name in account_tables()
        for statement in _of_table(
            schema, name, [row for row in rows if row.on_table == name], wanted
        )
    ]
    return [_lock(schema), *statements] if statements else []


def require_no_policies(connection: Connection, schema: str) -> None:
    """Raise ConfigurationError if Citus could not take the tables over, with their policies."""
    found = [row for row in _policies(connection, schema) if row.name is not None]
    if not found or layout(connection, schema).is_sharded:
        return
    limited = sorted({row.of_role for row in found if row.name.startswith(LIMIT)} - {None})
    foreign = sorted(
        {row.name for row in found if row.name != EVERY_ACCOUNT and not row.name.startswith(LIMIT)}
    )
    if limited:
        raise ConfigurationError(
            f"Analysts are limited to accounts in schema {schema}, which Citus cannot do: "
            f"{shortened(limited)}. Keep each account in a schema of its own; to move this one, "
            "first let them read all of it: kaltura-etl grant --analyst ROLE --accounts all "
            "--apply.",
            reason="layout",
            schema=schema,
        )
    raise ConfigurationError(
        f"Tables of schema {schema} have row-level security, which Citus moves only in part: drop "
        f"its policies first ({shortened(foreign) or EVERY_ACCOUNT}).",
        reason="layout",
        schema=schema,
    )


def _of_table(
    schema: str, name: str, rows: Sequence[Any], wanted: Mapping[str, Sequence[int]]
) -> Iterator[sql.Composed]:
    table = sql.Identifier(schema, name)
    is_enabled = any(row.is_enabled for row in rows)
    names = {row.name for row in rows if row.name is not None}
    before = [row for row in rows if row.of_role is not None and row.name.startswith(LIMIT)]
    others = {row.name for row in before if row.of_role not in wanted}
    foreign = sorted(each for each in names if each != EVERY_ACCOUNT and not each.startswith(LIMIT))
    if any(wanted.values()):
        if foreign or (is_enabled and not names):
            raise ConfigurationError(
                f"Row-level security of table {schema}.{name} has been set up by somebody else "
                f"({shortened(foreign) or 'it is enabled without a policy'}), and limits to "
                "accounts would change what it does. Drop its policies and disable it first.",
                reason="row_security",
                table=name,
            )
        if EVERY_ACCOUNT not in names:
            yield _statement("create policy {} on {} using (true)", _EVERY_ACCOUNT, table)
        if not is_enabled:
            yield _statement("alter table {} enable row level security", table)
    for role, accounts in wanted.items():
        of_role = [row for row in before if row.of_role == role]
        if [row.accounts for row in of_role] == ([list(accounts)] if accounts else []):
            continue
        for row in of_role:
            yield _statement("drop policy {} on {}", sql.Identifier(row.name), table)
            names.remove(row.name)
        if accounts:
            policy = next(each for number in count(1) if (each := f"{LIMIT}{number}") not in names)
            names.add(policy)
            yield _statement(
                "create policy {} on {} as restrictive to {} using ({})",
                sql.Identifier(policy),
                table,
                sql.Identifier(role),
                _condition(schema, name, accounts),
            )
    if before and not others and not foreign and not any(wanted.values()):
        yield _statement("alter table {} disable row level security", table)
        yield _statement("drop policy if exists {} on {}", _EVERY_ACCOUNT, table)


def _statement(text: LiteralString, *parts: sql.Composable) -> sql.Composed:
    return sql.SQL(text).format(*parts)


def _condition(schema: str, name: str, accounts: Sequence[int]) -> sql.Composed:
    of_accounts = sql.SQL("partner_id = any (cast({} as integer[]))").format(
        sql.Literal("{" + ",".join(map(str, accounts)) + "}")
    )
    if "partner_id" in build_tables(None).metadata.tables[name].c:
        return of_accounts
    return sql.SQL("run_id in (select run.run_id from {} as run where run.{})").format(
        sql.Identifier(schema, "sync_run"), of_accounts
    )


def _policies(connection: Connection, schema: str) -> list[Any]:
    return catalog(connection, "account_limits", schema=schema, tables=account_tables())


def _lock(schema: str) -> str:
    """All the tables at once, or none: whoever waits for one while he holds another could end a run
    in a deadlock, and would have every reader wait behind him."""
    tables = sql.SQL(", ").join(sql.Identifier(schema, name) for name in account_tables())
    return _statement("lock table {} in access exclusive mode nowait", tables).as_string()


def take_tables(
    connection: Connection, schema: str, *, sleep: Callable[[float], None] = time.sleep
) -> None:
    """Take the lock with which ``limit_statements`` begins, trying again for ``LOCK_SECONDS``.

    Raises WarehouseUnavailable if others use the tables all the time; names one of them.
    """
    deadline = time.monotonic() + LOCK_SECONDS
    while True:
        try:
            with connection.begin_nested():
                connection.exec_driver_sql(_lock(schema))
            return
        except DBAPIError as error:
            if sqlstate_of(error) != LOCK_NOT_AVAILABLE:
                raise
        if time.monotonic() >= deadline:
            holder = lock_holder(connection, schema=schema, weakest=ANY_LOCK)
            raise WarehouseUnavailable(
                f"The tables have been in use for {LOCK_SECONDS} s, and a limit to accounts is set "
                f"when nobody reads them: {holder or 'another session was in the way'}. Nothing "
                "was changed. Try again when it has ended, or have it ended.",
                reason="lock_timeout",
                sqlstate=LOCK_NOT_AVAILABLE,
                **({} if holder is None else holder.fields),
            )
        sleep(POLL_SECONDS)


def way_round(
    connection: Connection, schema: str, role: str, accounts: Sequence[int]
) -> str | None:
    """How the role reads rows of other accounts, as a phrase; None if it cannot."""
    for row in catalog(
        connection,
        "ways_round_a_limit",
        schema=schema,
        tables=account_tables(),
        role=role,
        accounts=list(accounts),
        prefix=LIMIT,
    ):
        return str(row.power) if row.name == role else f"can become {row.name}, which {row.power}"
    return None


def lapsed_limits(connection: Connection, schema: str) -> dict[str, str]:
    """Roles whose limit no longer holds, and why, as a phrase."""
    found = {
        role: way_round(connection, schema, role, accounts)
        for role, accounts in limited_roles(connection, schema).items()
    }
    return {role: way for role, way in found.items() if way is not None}


def hidden_by(connection: Connection, schema: str, role: str) -> list[str]:
    """Limited roles whose limit applies to this role, because it inherits from them, or is one."""
    query = "select pg_has_role(cast(%s as name), cast(%s as name), 'USAGE')"
    return [
        limited
        for limited in limited_roles(connection, schema)
        if connection.exec_driver_sql(query, (role, limited)).scalar_one()
    ]


def views_past_limits(connection: Connection, schema: str, role: str) -> list[str]:
    """Views that the role may read and that show what their owners may see, not what it may.

    No policy applies to the role there: what such a view leaves out is up to its author.
    """
    rows = catalog(
        connection, "views_past_limits", schema=schema, tables=account_tables(), role=role
    )
    return [str(row.name) for row in rows]
