"""What a schema of this program's revision consists of, and what of it is missing.

Nothing is written down here a second time: tables are those of ``tables.py``, which a test compares
with what the migrations make, and views and functions are the files of ``sql/views``.  An object of
the right name counts as there: what somebody has defined otherwise under it is not found.
"""

from __future__ import annotations

from typing import Final, NamedTuple

from sqlalchemy import Connection, Constraint, PrimaryKeyConstraint, Table
from sqlalchemy.dialects import postgresql

from etl.resources import sql_directory
from etl.warehouse.schema.columns import PERSISTENCE, REPLICA_IDENTITY, STORAGE
from etl.warehouse.schema.tables import build_tables
from etl.warehouse.schema.views import view_files

DIALECT: Final = postgresql.dialect()  # type: ignore[no-untyped-call]
WHOLE: Final = ("table", "view", "function")
"""Kinds whose loss explains that of all that belongs to them."""


class SchemaObject(NamedTuple):
    """A kind and a name, such as ``index`` and ``sync_run.ix_sync_run_partner``."""

    kind: str
    """table, column, not null, default, constraint, index, view, view column, function, comment;
    how a table is kept: storage (of a column), persistence, replica identity, fillfactor."""
    name: str

    @property
    def owner(self) -> str:
        """The table, view or function that it is a part of, or is."""
        return self.name.partition(".")[0]

    @property
    def held_data(self) -> bool:
        """Whether it cannot be put back, because its data went with it."""
        return self.kind in ("table", "column")

    @property
    def is_minor(self) -> bool:
        """Whether everything works without it, if more slowly.

        A table that is logged and need not be writes more WAL; one that must be and is not loses
        its rows in a crash.
        """
        return self.kind in ("comment", "storage", "fillfactor") or self in _NEED_NO_LOG

    def __str__(self) -> str:
        return f"{self.kind} {self.name}"


_NEED_NO_LOG: Final = {
    SchemaObject("persistence", table.name)
    for table in build_tables(None).metadata.tables.values()
    if table.info.get(PERSISTENCE) == "unlogged"
}


def missing_objects(connection: Connection, schema: str) -> list[SchemaObject]:
    """What the revision has and the schema has not, or has in another form; changes nothing.

    Every role may ask.  What is missing with a table, a view or a column is not named beside it.
    Comments come last.
    """
    text = (sql_directory() / "ops" / "objects_found.sql").read_text(encoding="utf-8")
    rows = connection.exec_driver_sql(text, {"schema": schema})
    found = {SchemaObject(row.kind, row.name): row.detail for row in rows}
    missing = [
        each
        for each, detail in expected_objects(schema).items()
        if each not in found or (detail is not None and detail != found[each])
    ]
    gone = {each.name for each in missing if each.kind in (*WHOLE, "column", "view column")}
    told = [
        each
        for each in missing
        if each.kind in WHOLE
        or (each.owner not in gone and (each.name not in gone or each.kind.endswith("column")))
    ]
    return sorted(told, key=lambda each: each.kind == "comment")


def expected_objects(schema: str) -> dict[SchemaObject, str | None]:
    """All objects of the revision; with what must be so: a type, words, an option."""
    expected: dict[SchemaObject, str | None] = {}
    for table in build_tables(schema).metadata.tables.values():
        expected |= _objects_of(table)
    for view in view_files():
        expected[SchemaObject("function" if view.is_function else "view", view.name)] = None
        expected[SchemaObject("comment", view.name)] = view.comment
        for column, words in view.columns.items():
            expected[SchemaObject("view column", f"{view.name}.{column}")] = None
            expected[SchemaObject("comment", f"{view.name}.{column}")] = words
    return expected


def _objects_of(table: Table) -> dict[SchemaObject, str | None]:
    objects: dict[SchemaObject, str | None] = {
        SchemaObject("table", table.name): None,
        SchemaObject("comment", table.name): table.comment,
        SchemaObject("persistence", table.name): table.info.get(PERSISTENCE, "logged"),
    }
    if REPLICA_IDENTITY in table.info:
        objects[SchemaObject("replica identity", table.name)] = table.info[REPLICA_IDENTITY]
    if fill_factor(table) is not None:
        # That of another administrator is as good.
        objects[SchemaObject("fillfactor", table.name)] = None
    for column in table.columns:
        name = f"{table.name}.{column.name}"
        kind = column.type.compile(DIALECT).partition(" COLLATE")[0].lower()
        objects[SchemaObject("column", name)] = kind
        objects[SchemaObject("comment", name)] = column.comment
        if not column.nullable:
            objects[SchemaObject("not null", name)] = None
        if STORAGE in column.info:
            objects[SchemaObject("storage", name)] = column.info[STORAGE]
        if column.server_default is not None:
            objects[SchemaObject("default", name)] = None
    for constraint in constraints_of(table):
        objects[SchemaObject("constraint", f"{table.name}.{constraint_name(constraint)}")] = None
    for index in table.indexes:
        objects[SchemaObject("index", f"{table.name}.{index.name}")] = None
    return objects


def fill_factor(table: Table) -> int | None:
    """How full its blocks are left, in percent; None: full."""
    options = table.dialect_options["postgresql"].get("with") or {}
    return options.get("fillfactor")


def constraints_of(table: Table) -> list[Constraint]:
    """Its constraints; SQLAlchemy gives a table without a primary key one without columns."""
    return [
        each
        for each in table.constraints
        if not isinstance(each, PrimaryKeyConstraint) or len(each.columns)
    ]


def constraint_name(constraint: Constraint) -> str:
    """As the naming convention makes it."""
    return str(DIALECT.identifier_preparer.format_constraint(constraint))
