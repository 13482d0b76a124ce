"""``kaltura-etl grant``: the statements that give each role its rights, and no more than those.

The statements say the whole of it: first everything is taken from the role, then it is given what
it needs, so they may be executed at any time and as often as one likes.  Within one transaction
nobody sees the moment between.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from psycopg import sql
from sqlalchemy import Connection
from sqlalchemy.exc import DBAPIError

from etl.errors import ConfigurationError, CredentialsRefused, UsageError
from etl.warehouse.access.privileges import (
    Allowed,
    allowed,
    catalog,
    excess_privileges,
    known_tables,
    missing_privileges,
    power_beyond_grants,
    shortened,
)
from etl.warehouse.engine import connect, sqlstate_of, transaction
from etl.warehouse.schema.revision import require_current

_DEPENDENT_PRIVILEGES: Final = "2BP01"
_NOT_PERMITTED: Final = "42501"


@dataclass(frozen=True, slots=True)
class Section:
    """Statements for one role, and the sentence that says what they are for."""

    purpose: str
    statements: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Grants:
    """What ``grant`` prints or executes."""

    sections: tuple[Section, ...]
    warnings: tuple[str, ...] = ()

    @property
    def statements(self) -> list[str]:
        return [statement for section in self.sections for statement in section.statements]

    def script(self) -> str:
        """All of it as psql takes it, in one transaction."""
        parts = ["begin;"]
        for section in self.sections:
            parts.append(f"\n-- {section.purpose}")
            parts += [f"{statement};" for statement in section.statements]
        return "\n".join([*parts, "\ncommit;", ""])


@dataclass(frozen=True, slots=True)
class _Objects:
    """What there is in the schema to give rights on."""

    schema: str
    tables: list[str]
    views: list[str] = field(default_factory=list)
    sequences: list[str] = field(default_factory=list)
    functions: list[tuple[str, str]] = field(default_factory=list)
    """Name and arguments."""
    views_of_owner: list[str] = field(default_factory=list)
    """Views that show each caller what their owner may read."""
    functions_of_owner: list[tuple[str, str]] = field(default_factory=list)


def grant(url: str, schema: str, roles: Mapping[str, str], *, apply: bool) -> Grants:
    """The statements for ``roles``, by kind (``loader``, ``analyst``, ``auditor``); one at least.

    With ``apply`` they are executed, in one transaction, which also looks whether each role then
    has what its kind needs and nothing else; else nothing is changed.

    Raises:
        UsageError: no role, one role twice, a name that is no role's.
        ConfigurationError: a role that does not exist, that no grant can hold back, or that
            would keep more than its kind needs; a schema of another version.
        CredentialsRefused: ``apply`` by somebody who does not own the tables.
    """
    _check_names(roles)
    engine = connect(url)
    try:
        with transaction(engine) as connection:
            if not apply:
                connection.exec_driver_sql("set transaction read only")
            require_current(connection, schema)
            _check_roles(connection, schema, roles)
            if apply:
                _check_owner(connection, schema)
                _wait_for_migrations(connection, schema)
            grants = _grants(connection, _objects(connection, schema), roles)
            if apply:
                _execute(connection, grants)
                for kind, role in roles.items():
                    _check_outcome(connection, schema, role, kind)
            return grants
    finally:
        engine.dispose()


# --- who ---------------------------------------------------------------------------------------


def _check_names(roles: Mapping[str, str]) -> None:
    if not roles:
        raise UsageError("Name a role: --loader ROLE, --analyst ROLE or --auditor ROLE.")
    for kind, role in roles.items():
        if role.lower() == "public" or role.startswith("pg_"):
            raise UsageError(
                f"--{kind} {role}: this name is Postgres' own, and stands for more than one role; "
                "name a role that you created.",
                role=role,
            )
        if not role.isprintable():
            raise UsageError(f"--{kind}: the name holds characters that cannot be printed.")
    kinds = {role: kind for kind, role in roles.items()}
    for kind, role in roles.items():
        if kinds[role] != kind:
            raise UsageError(
                f"Role {role} cannot be both --{kind} and --{kinds[role]}: each may do what the "
                "other must not. Name two roles.",
                role=role,
            )


def _check_roles(connection: Connection, schema: str, roles: Mapping[str, str]) -> None:
    names = [*roles.values(), *(role.lower() for role in roles.values())]
    existing = {
        row.rolname
        for row in connection.exec_driver_sql(
            "select rolname from pg_roles where rolname = any(%s)", (names,)
        )
    }
    for kind, role in roles.items():
        if role not in existing:
            create = sql.SQL("create role {} login").format(sql.Identifier(role)).as_string()
            raise ConfigurationError(
                # Postgres folds names that are not quoted to small letters.
                f"There is no role {role}, but one named {role.lower()}: run grant again with that."
                if role.lower() in existing
                else f"There is no role {role}: create it in psql, as an administrator of the "
                f"server, with  {create};  and run grant again.",
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
        "select current_user as me, pg_get_userbyid(relation.relowner) as owner, "
        "pg_has_role(relation.relowner, 'USAGE') as may "
        "from pg_class as relation "
        "join pg_namespace as space on space.oid = relation.relnamespace "
        "where space.nspname = %s and relation.relname = 'sync_run'",
        (schema,),
    ).one()
    if not row.may:
        raise CredentialsRefused(
            f"Role {row.me} does not own the tables of schema {schema}, and may not grant rights "
            f"on them: {row.owner} does. Run grant --apply with a DATABASE_URL of that role, or "
            "hand over the statements that grant prints without --apply.",
            owner=row.owner,
        )


# --- what --------------------------------------------------------------------------------------


def _objects(connection: Connection, schema: str) -> _Objects:
    found = _Objects(schema, known_tables())
    for row in catalog(connection, "schema_objects", schema=schema):
        if row.kind == "sequence":
            found.sequences.append(row.name)
        elif row.kind == "view":
            (found.views if row.with_callers_rights else found.views_of_owner).append(row.name)
        else:
            functions = found.functions if row.with_callers_rights else found.functions_of_owner
            functions.append((row.name, row.arguments))
    return found


def _grants(connection: Connection, objects: _Objects, roles: Mapping[str, str]) -> Grants:
    sections, warnings = [], []
    if _public_has_something(connection, objects.schema, next(iter(roles.values()))):
        sections.append(
            Section(
                "PUBLIC is every role of the server: what it has, the roles below have as well",
                tuple(_revoke_all(objects, sql.SQL("public"))),
            )
        )
        warnings.append(
            f"PUBLIC has rights on schema {objects.schema}, which every role of the server shares: "
            "they are taken away, so name the roles that need some"
        )
    for kind, role in roles.items():
        rights, grantee = allowed(kind), sql.Identifier(role)
        statements = [
            *_revoke_all(objects, grantee),
            *_grant_all(objects, rights, grantee),
            *_grant_on_database(connection, rights, role),
        ]
        sections.append(Section(f"{kind} {role}: {rights.purpose}", tuple(statements)))
    left_out = [f"view {name}" for name in objects.views_of_owner]
    left_out += [f"function {name}" for name, _ in objects.functions_of_owner]
    warnings += [
        f"{what} works with the rights of its owner, not of its caller: it was not granted"
        for what in left_out
    ]
    return Grants(tuple(sections), tuple(warnings))


def _public_has_something(connection: Connection, schema: str, some_role: str) -> bool:
    held = catalog(
        connection, "privileges_held", role=some_role, schema=schema, tables=known_tables()
    )
    return any("PUBLIC" in row.through for row in held)


def _revoke_all(objects: _Objects, grantee: sql.Composable) -> list[str]:
    """Privileges on columns go with those on their table."""
    relations = [*objects.tables, *objects.views, *objects.views_of_owner]
    statements = [
        sql.SQL("revoke all on schema {} from {}").format(sql.Identifier(objects.schema), grantee),
        sql.SQL("revoke all on table{}from {}").format(_names(objects, relations), grantee),
    ]
    if objects.sequences:
        statements.append(
            sql.SQL("revoke all on sequence{}from {}").format(
                _names(objects, objects.sequences), grantee
            )
        )
    return [statement.as_string() for statement in statements]


def _grant_all(objects: _Objects, rights: Allowed, grantee: sql.Composable) -> list[str]:
    statements = [
        sql.SQL("grant usage on schema {} to {}").format(sql.Identifier(objects.schema), grantee)
    ]
    for privileges in dict.fromkeys(rights.tables.values()):
        statements.append(
            sql.SQL("grant {} on table{}to {}").format(
                sql.SQL(", ").join(sql.SQL(privilege.lower()) for privilege in privileges),
                _names(
                    objects, [name for name, these in rights.tables.items() if these == privileges]
                ),
                grantee,
            )
        )
    for table, columns in rights.columns.items():
        statements.append(
            sql.SQL("grant select ({}) on table{}to {}").format(
                sql.SQL(", ").join(map(sql.Identifier, columns)), _names(objects, [table]), grantee
            )
        )
    if objects.views:
        statements.append(
            sql.SQL("grant select on table{}to {}").format(_names(objects, objects.views), grantee)
        )
    if objects.functions:
        # Everybody may execute a function, unless the owner's default privileges say otherwise.
        signatures = [
            sql.SQL("{}({})").format(sql.Identifier(objects.schema, name), sql.SQL(arguments))
            for name, arguments in objects.functions
        ]
        statements.append(
            sql.SQL("grant execute on function{}to {}").format(_listed(signatures), grantee)
        )
    return [statement.as_string() for statement in statements]


def _grant_on_database(connection: Connection, rights: Allowed, role: str) -> list[str]:
    """Only what the role lacks: PUBLIC has these rights, unless an administrator took them away.

    The database may belong to somebody else, who then has to grant them.
    """
    database = str(connection.exec_driver_sql("select current_database()").scalar_one())
    lacking = [
        privilege
        for privilege in rights.database
        if not connection.exec_driver_sql(
            "select has_database_privilege(%s, %s, %s)", (role, database, privilege)
        ).scalar_one()
    ]
    if not lacking:
        return []
    statement = sql.SQL("grant {} on database {} to {}").format(
        sql.SQL(", ").join(sql.SQL(privilege.lower()) for privilege in lacking),
        sql.Identifier(database),
        sql.Identifier(role),
    )
    return [statement.as_string()]


def _names(objects: _Objects, names: Iterable[str]) -> sql.Composable:
    return _listed([sql.Identifier(objects.schema, name) for name in names])


def _listed(items: Sequence[sql.Composable]) -> sql.Composable:
    """With space around it: one on the line, several on lines of their own."""
    if len(items) == 1:
        return sql.SQL(" {} ").format(items[0])
    return sql.SQL("\n    {}\n").format(sql.SQL(",\n    ").join(items))


# --- to do it -----------------------------------------------------------------------------------


def _wait_for_migrations(connection: Connection, schema: str) -> None:
    """Take the lock of ``warehouse.schema.migration``: what is granted here is made there.

    It is also the lock of two grants at once, which would change the same rows of the catalog.
    """
    connection.exec_driver_sql(
        "select pg_advisory_xact_lock(hashtextextended(%s, 0))", (f"kaltura-etl migrate {schema}",)
    )


def _execute(connection: Connection, grants: Grants) -> None:
    for statement in grants.statements:
        try:
            connection.exec_driver_sql(statement.replace("%", "%%"))
        except DBAPIError as error:
            state = sqlstate_of(error)
            if state == _DEPENDENT_PRIVILEGES:
                raise ConfigurationError(
                    "A role has passed its rights on to others, who would lose them. As the owner "
                    f"of the tables, execute this with cascade at its end, then run grant again: "
                    f"{_on_one_line(statement)}",
                    sqlstate=state,
                ) from None
            if state == _NOT_PERMITTED:
                raise CredentialsRefused(
                    "Postgres does not let this role execute one statement, so nothing was "
                    f"changed: {_on_one_line(statement)}; ask the owner of what it names.",
                    sqlstate=state,
                ) from None
            raise


def _on_one_line(statement: str) -> str:
    return " ".join(statement.split())


def _check_outcome(connection: Connection, schema: str, role: str, kind: str) -> None:
    """Whether the role now has what it needs and nothing else; the transaction may yet be undone.

    Rights that come by another way (a role that it is a member of, another grantor) are not ours
    to take away.
    """
    missing = missing_privileges(connection, schema, role, kind)
    if missing:
        raise ConfigurationError(
            f"Nothing was changed: role {role} would still lack {shortened(missing)}. The owner of "
            "what is named must grant that first.",
            role=role,
            missing=missing,
        )
    excess = excess_privileges(connection, schema, role, kind)
    if excess:
        raise ConfigurationError(
            f"Nothing was changed: role {role} would still have {shortened(excess)}, which is more "
            f"than the {kind} may do. Revoke that, or name another role.",
            role=role,
            excess=excess,
        )
