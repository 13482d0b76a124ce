"""The owner of the schema: whether a role is it, asked before a statement may fail, and what it
changes the schema's objects with."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from sqlalchemy import Connection, text

from etl.errors import CredentialsRefused
from etl.warehouse.engine import (
    SCHEMA_OPTION,
    connect,
    holders_named,
    set_local,
    translated_errors,
)
from etl.warehouse.locks import ANY_LOCK

LOCK_TIMEOUT: Final = "5s"
"""Who waits for a lock makes all later readers wait behind him."""
TO_WORKERS: Final = {"citus.propagate_set_commands": "local"}
"""What a transaction sets after it holds on the workers of Citus, too; elsewhere no effect."""
_FACTS: Final = text(
    """
    select
        current_user as role,
        quote_ident(current_user) as quoted_role,
        current_database() as database,
        quote_ident(:schema) as quoted_schema,
        space.oid is not null as exists,
        pg_get_userbyid(space.nspowner) as schema_owner,
        coalesce(
            has_schema_privilege(space.oid, 'CREATE') and has_schema_privilege(space.oid, 'USAGE'),
            has_database_privilege(current_database(), 'CREATE')
        ) as may_create,
        pg_get_userbyid(ledger.relowner) as owner,
        coalesce(pg_has_role(ledger.relowner, 'USAGE'), true) as may_change
    from (select cast(:schema as text) as name) as wanted
    left join pg_namespace as space on space.nspname = wanted.name
    left join pg_class as ledger on ledger.relnamespace = space.oid and ledger.relname = 'sync_run'
    """
)


@contextmanager
def owner_connection(url: str, schema: str) -> Iterator[Connection]:
    """A connection of its own, for statements that change the definitions of the schema's objects.

    Errors are those that ``translate_error`` names; of a lock that was not granted, with its
    holder, who may be a mere reader.
    """
    engine = connect(url).execution_options(**{SCHEMA_OPTION: schema})
    try:
        with (
            translated_errors(),
            holders_named(engine, weakest=ANY_LOCK),
            engine.connect() as connection,
        ):
            yield connection
    finally:
        engine.dispose()


def set_limits(connection: Connection, schema: str) -> None:
    """For a transaction that changes definitions: its schema alone, and no long waits for a lock.

    The work itself may take long, whatever the server's default is.
    """
    set_local(
        connection,
        {
            **TO_WORKERS,
            "search_path": connection.dialect.identifier_preparer.quote(schema),
            "lock_timeout": LOCK_TIMEOUT,
            "statement_timeout": "0",
        },
    )


def require_owner(connection: Connection, schema: str) -> None:
    """Raise CredentialsRefused unless the role may create the schema, or owns what is in it."""
    facts = connection.execute(_FACTS, {"schema": schema}).one()
    if not facts.exists and not facts.may_create:
        lacking = (
            f"may not create schema {schema} in database {facts.database} (it lacks CREATE on the "
            "database). As the owner of the database, execute  create schema "
            f"{facts.quoted_schema} authorization {facts.quoted_role};  and run kaltura-etl "
            "migrate again"
        )
    elif not facts.may_change:
        lacking = (
            f"does not own the tables of schema {schema}, which {facts.owner} does: run "
            "kaltura-etl migrate with a DATABASE_URL of that role"
        )
    elif not facts.may_create:
        lacking = (
            f"may not create tables in schema {schema}, which belongs to {facts.schema_owner}: "
            f"run kaltura-etl migrate as that role, or have it execute  grant create, usage on "
            f"schema {facts.quoted_schema} to {facts.quoted_role};"
        )
    else:
        return
    raise CredentialsRefused(
        f"Role {facts.role} {lacking}.", reason="privilege", role=facts.role, schema=schema
    )
