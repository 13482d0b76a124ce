"""``kaltura-etl grant``: the statements that give each role its rights, and no more than those.

The statements are complete: first everything is revoked from the role, then what it needs is
granted, so they are idempotent.  In one transaction no other session sees the moment between.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any, Final

from psycopg import sql
from sqlalchemy import Connection, exists, select
from sqlalchemy.exc import DBAPIError

from etl.errors import ConfigurationError, CredentialsRefused, UsageError
from etl.warehouse.access.limits import (
    hidden_by,
    limit_statements,
    limited_roles,
    take_tables,
    views_past_limits,
    way_round,
)
from etl.warehouse.access.privileges import (
    RIGHTS,
    TABLES,
    catalog,
    current_database,
    excess_privileges,
    held,
    missing_privileges,
    power_beyond_grants,
    shortened,
)
from etl.warehouse.engine import (
    DEPENDENT_PRIVILEGES,
    INSUFFICIENT_PRIVILEGE,
    SCHEMA_OPTION,
    connect,
    lock_until_commit,
    sqlstate_of,
    transaction,
)
from etl.warehouse.schema.revision import require_current
from etl.warehouse.schema.tables import build_tables

_LIMITS: Final = "Limits to accounts, by row-level security: while others use the tables, try again"
"""The section of their statements."""


@dataclass(frozen=True, slots=True)
class Grants:
    """What ``grant`` prints or executes."""

    sections: dict[str, list[str]]
    """The statements for each role, by a sentence that says what they are for."""
    warnings: list[str]
    accounts: tuple[int, ...] = ()
    """Those that the analyst sees; none: all."""

    @property
    def changes_limits(self) -> bool:
        return _LIMITS in self.sections

    @property
    def statements(self) -> list[str]:
        return list(chain.from_iterable(self.sections.values()))

    def script(self) -> str:
        """All of it as psql takes it, in one transaction."""
        parts = ["begin;"]
        for purpose, statements in self.sections.items():
            parts.append(f"\n-- {purpose}")
            parts += [f"{statement};" for statement in statements]
        return "\n".join([*parts, "\ncommit;", ""])


def grant(
    url: str,
    schema: str,
    roles: Mapping[str, str],
    *,
    accounts: Sequence[int] | None = None,
    apply: bool,
) -> Grants:
    """The statements for ``roles``, by kind (``loader``, ``analyst``, ``auditor``); one at least.

    With ``apply`` they are executed in one transaction, which also checks that each role then has
    what its kind needs and nothing else; otherwise nothing is changed.

    ``accounts`` are those that the analyst sees; none: all of them.  None leaves a limit as it is.

    Raises:
        UsageError: no role, one role twice, a name that is no role's, accounts without an analyst.
        ConfigurationError: a role that does not exist, that no grant can restrict, or that
            would keep more than its kind needs; a schema of another version; row-level security
            that is not the program's.
        CredentialsRefused: ``apply`` by a role that does not own the tables, or may not grant what
            is needed.
        WarehouseUnavailable: others use the tables all the time, and a limit has to change.
    """
    _check_names(roles)
    if accounts is not None and "analyst" not in roles:
        raise UsageError("--accounts limits an analyst: name the role, --analyst ROLE.")
    engine = connect(url).execution_options(**{SCHEMA_OPTION: schema})
    try:
        with transaction(engine) as connection:
            if not apply:
                connection.exec_driver_sql("set transaction read only")
            require_current(connection, schema)
            for kind, role in roles.items():
                _check_role(connection, schema, kind, role)
            if apply:
                _check_owner(connection, schema)
                # The lock of ``take_migration_lock``: what is granted here is made there.  It also
                # serialises grants, which would change the same rows of the catalog.
                lock_until_commit(connection, f"kaltura-etl migrate {schema}")
            limits = _limits(connection, schema, roles, accounts)
            grants = _all_grants(connection, schema, roles, limits)
            if accounts is None and grants.accounts:
                grants.warnings.append(_stays_limited(roles, grants.accounts))
            if apply:
                if grants.changes_limits:
                    take_tables(connection, schema)
                _execute(connection, grants)
                if grants.accounts:
                    # Those of the schema itself have been revoked.
                    grants.warnings.extend(_past_limits(connection, schema, roles["analyst"]))
                for kind, role in roles.items():
                    _check_outcome(connection, schema, kind, role)
                    _check_limit(connection, schema, kind, role, limits[role])
            return grants
    finally:
        engine.dispose()


def _check_names(roles: Mapping[str, str]) -> None:
    if not roles:
        raise UsageError("Name a role: --loader ROLE, --analyst ROLE or --auditor ROLE.")
    kinds: dict[str, str] = {}
    for kind, role in roles.items():
        if role.lower() == "public" or role.startswith("pg_"):
            raise UsageError(
                f"--{kind} {role}: this name is Postgres' own, and stands for more than one role; "
                "name a role that you created.",
                role=role,
            )
        if not role.isprintable():
            raise UsageError(f"--{kind}: the name contains characters that cannot be printed.")
        if kinds.setdefault(role, kind) != kind:
            raise UsageError(
                f"Role {role} cannot be both --{kinds[role]} and --{kind}: each may do what the "
                "other must not. Name two roles.",
                role=role,
            )


def _check_role(connection: Connection, schema: str, kind: str, role: str) -> None:
    # Postgres folds names that are not quoted to lower case.
    query = "select rolname from pg_roles where rolname in (%s, %s)"
    names = set(connection.exec_driver_sql(query, (role, role.lower())).scalars())
    if role not in names:
        raise ConfigurationError(
            f"There is no role {role}, but one named {role.lower()}: run grant again with that."
            if names
            else f"There is no role {role}: create it in psql, as an administrator of the "
            f"server, with  create role {_quoted(role)} login;  and run grant again.",
            role=role,
        )
    power = power_beyond_grants(connection, schema, role)
    if power is not None:
        raise ConfigurationError(
            f"Role {role} {power}: no grant can hold it back. Name as {kind} a role that owns "
            "nothing and is a member of no such role.",
            role=role,
            power=power,
        )


def _check_owner(connection: Connection, schema: str) -> None:
    row = connection.exec_driver_sql(
        "select current_user as me, pg_get_userbyid(relowner) as owner, "
        "pg_has_role(relowner, 'USAGE') as may "
        "from pg_class where oid = to_regclass(format('%%I.sync_run', cast(%s as text)))",
        (schema,),
    ).one()
    if not row.may:
        raise CredentialsRefused(
            f"Role {row.me} does not own the tables of schema {schema}, and may not grant rights "
            f"on them: {row.owner} does. Run grant --apply with a DATABASE_URL of that role, or "
            "hand over the statements that grant prints without --apply.",
            owner=row.owner,
        )


def _limits(
    connection: Connection,
    schema: str,
    roles: Mapping[str, str],
    accounts: Sequence[int] | None,
) -> dict[str, tuple[int, ...]]:
    """The accounts that each role sees; none: all."""
    limits: dict[str, tuple[int, ...]] = dict.fromkeys(roles.values(), ())
    if "analyst" in roles:
        analyst = roles["analyst"]
        if accounts is None:
            limits[analyst] = limited_roles(connection, schema).get(analyst, ())
        else:
            limits[analyst] = tuple(sorted(set(accounts)))
    return limits


def _stays_limited(roles: Mapping[str, str], accounts: tuple[int, ...]) -> str:
    return (
        f"analyst {roles['analyst']} stays limited to accounts {', '.join(map(str, accounts))}: "
        "--accounts all lifts that"
    )


def _past_limits(connection: Connection, schema: str, role: str) -> list[str]:
    return [
        f"view {name} shows analyst {role} what the owner of the view may see, whatever its limit: "
        "revoke it, or create it with (security_invoker)"
        for name in views_past_limits(connection, schema, role)
    ]


def _all_grants(
    connection: Connection,
    schema: str,
    roles: Mapping[str, str],
    limits: Mapping[str, tuple[int, ...]],
) -> Grants:
    objects = catalog(connection, "schema_objects", schema=schema)
    grants = Grants({}, [], limits.get(roles.get("analyst", ""), ()))
    some_role = next(iter(roles.values()))
    on_schema = [row for row in held(connection, schema, some_role) if row.kind != "database"]
    if any("PUBLIC" in row.through for row in on_schema):
        purpose = "PUBLIC is every role of the server: what it has, the roles below have as well"
        grants.sections[purpose] = _revokes(schema, objects, "public")
        grants.warnings.append(
            f"PUBLIC has rights on schema {schema}, which every role of the server shares: "
            "they are taken away, so name the roles that need some"
        )
    on_rows = limit_statements(connection, schema, limits)
    if on_rows:
        grants.sections[_LIMITS] = on_rows
    grants.warnings.extend(
        f"no run of account {account} is in the warehouse yet"
        for account in grants.accounts
        if not _is_known(connection, schema, account)
    )
    for kind, role in roles.items():
        seen = f" (accounts {', '.join(map(str, limits[role]))})" if limits[role] else ""
        grants.sections[f"{kind} {role}: {RIGHTS[kind].purpose}{seen}"] = [
            *_revokes(schema, objects, _quoted(role)),
            *_grants(connection, schema, objects, kind, role),
        ]
    grants.warnings.extend(
        f"{kind} {row.name} works with the rights of its owner, not of its caller: it was not "
        "granted"
        for kind in ("view", "function")
        for row in objects
        if row.kind == kind and not row.with_callers_rights
    )
    return grants


def _is_known(connection: Connection, schema: str, account: int) -> bool:
    run = build_tables(schema).sync_run
    return bool(connection.scalar(select(exists().where(run.c.partner_id == account))))


def _revokes(schema: str, objects: Sequence[Any], grantee: str) -> list[str]:
    """Privileges on columns are revoked with those on their table."""
    names = [f"schema {_quoted(schema)}", *(f"table {_quoted(schema, name)}" for name in TABLES)]
    names += [row.object for row in objects if row.kind != "function"]
    return [f"revoke all on {name} from {grantee}" for name in names]


def _grants(
    connection: Connection, schema: str, objects: Sequence[Any], kind: str, role: str
) -> list[str]:
    granted = {f"schema {_quoted(schema)}": "usage"}
    for table, privileges in RIGHTS[kind].tables.items():
        granted[f"table {_quoted(schema, table)}"] = privileges.lower()
    for table, columns in RIGHTS[kind].columns.items():
        granted[f"table {_quoted(schema, table)}"] = f"select ({', '.join(columns)})"
    for row in objects:
        # Every role may execute a function, unless default privileges of the owner say otherwise.
        if row.with_callers_rights:
            granted[row.object] = "select" if row.kind == "view" else "execute"
    # Every role has these rights on the database, unless an administrator revoked them from PUBLIC.
    # It may belong to another role, who then has to grant them: so only what is missing.
    database = current_database(connection)
    on_database = f" on database {database}"
    missing = missing_privileges(connection, schema, role, kind)
    lacking = [each.removesuffix(on_database) for each in missing if each.endswith(on_database)]
    if lacking:
        granted[f"database {_quoted(database)}"] = ", ".join(lacking).lower()
    return [f"grant {what} on {name} to {_quoted(role)}" for name, what in granted.items()]


def _quoted(*names: str) -> str:
    return sql.Identifier(*names).as_string()


def _execute(connection: Connection, grants: Grants) -> None:
    for statement in grants.statements:
        try:
            connection.exec_driver_sql(statement.replace("%", "%%"))
        except DBAPIError as error:
            state = sqlstate_of(error)
            if state == DEPENDENT_PRIVILEGES:
                raise ConfigurationError(
                    "A role has passed its rights on to others, who would lose them. As the owner "
                    "of the tables, execute this with cascade at its end, then run grant again: "
                    f"{statement}",
                    sqlstate=state,
                ) from None
            if state == INSUFFICIENT_PRIVILEGE:
                raise CredentialsRefused(
                    "Postgres does not let this role execute one statement, so nothing was "
                    f"changed: {statement}; ask the owner of what it names.",
                    sqlstate=state,
                ) from None
            raise


def _check_outcome(connection: Connection, schema: str, kind: str, role: str) -> None:
    """Raise, which rolls back, unless the role now has what it needs and nothing else.

    Rights that come another way (a role that it is a member of, another grantor) are not ours to
    revoke.
    """
    missing = missing_privileges(connection, schema, role, kind)
    excess = excess_privileges(connection, schema, role, kind)
    if missing:
        raise CredentialsRefused(
            f"Nothing was changed: role {role} would still lack {shortened(missing)}, which you "
            "may not grant. The owner of what is named must grant that first.",
            reason="privilege",
            role=role,
            missing=missing,
            excess=excess,
        )
    if excess:
        raise ConfigurationError(
            f"Nothing was changed: role {role} would still have {shortened(excess)}, which is more "
            f"than the {kind} may do. Revoke that, or name another role.",
            role=role,
            missing=missing,
            excess=excess,
        )


def _check_limit(
    connection: Connection, schema: str, kind: str, role: str, accounts: tuple[int, ...]
) -> None:
    """Raise, which rolls back, unless the role sees the rows of its accounts alone, or of all."""
    if accounts:
        way = way_round(connection, schema, role, accounts)
        if way is not None:
            raise ConfigurationError(
                f"Nothing was changed: role {role} cannot be limited to accounts, because it {way}."
                " End that membership (revoke OTHER from ROLE), or name another role.",
                role=role,
                power=way,
            )
        return
    limited = hidden_by(connection, schema, role)
    if limited:
        raise ConfigurationError(
            f"Nothing was changed: role {role} would not see every account, as the {kind} does, "
            f"because it is a member of {limited[0]}, which is limited to some. End that "
            "membership (revoke OTHER from ROLE), or name another role.",
            role=role,
            limited=limited,
        )
