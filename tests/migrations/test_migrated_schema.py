"""The migrated schema agrees with the tables in Python, and says what everything is for."""

from __future__ import annotations

import re

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext

from etl.resources import sql_directory
from etl.warehouse.schema.revision import (
    open_connection,
)
from etl.warehouse.schema.tables import build_tables
from tests.support.schema import OBJECTS, rows, run


@pytest.mark.postgres15
def test_the_migrated_schema_is_what_the_tables_say(database_url: str) -> None:
    with open_connection(database_url) as connection:
        context = MigrationContext.configure(
            connection,
            opts={
                "version_table_schema": "kaltura",
                "include_schemas": True,
                "include_name": lambda name, kind, _: kind != "schema" or name == "kaltura",
                "compare_server_default": True,
            },
        )
        assert compare_metadata(context, build_tables().metadata) == []


@pytest.mark.postgres15
def test_the_migrated_schema_has_the_checks_and_indexes_that_the_tables_make(
    database_url: str, empty_database_url: str
) -> None:
    # compare_metadata looks at no CHECK, no UNLOGGED and no expression of an index.
    run(empty_database_url, "create schema kaltura")
    with open_connection(empty_database_url) as connection:
        build_tables().metadata.create_all(connection)
        connection.commit()
    query = """
        select conrelid::regclass::text, conname, pg_get_constraintdef(oid) from pg_constraint
        where connamespace = 'kaltura'::regnamespace and conname not like 'alembic_version%'
        union all
        select tablename, indexname, indexdef from pg_indexes
        where schemaname = 'kaltura' and indexname not like 'alembic_version%'
        union all
        select relname, 'persistence', relpersistence::text from pg_class
        where relnamespace = 'kaltura'::regnamespace and relkind = 'r'
            and relname <> 'alembic_version'
        union all
        select relname, 'options', reloptions::text from pg_class
        where relnamespace = 'kaltura'::regnamespace and relkind = 'r' and reloptions is not null
        order by 1, 2
    """
    assert rows(database_url, query) == rows(empty_database_url, query)


def test_every_table_view_and_column_has_a_comment(database_url: str) -> None:
    silent = [
        (row[0], row[3])
        for row in rows(database_url, OBJECTS, "kaltura")
        if row[1] in ("r", "v") and not (row[6] and row[7])
    ]
    assert silent == []
    functions = """
        select proname from pg_proc where pronamespace = 'kaltura'::regnamespace
        and obj_description(oid, 'pg_proc') is null
    """
    assert rows(database_url, functions) == []


def test_the_statuses_are_there(database_url: str) -> None:
    found = rows(
        database_url, "select code, outcome_group from kaltura.upload_token_status order by code"
    )
    groups = ["open", "open", "open", "succeeded", "failed", "deleted", "failed"]
    assert found == list(enumerate(groups))


def test_every_sql_file_is_one_statement_and_says_what_it_is_for() -> None:
    for path in sorted(sql_directory().rglob("*.sql")):
        text = path.read_text(encoding="utf-8")
        first, _, statement = text.partition("\n")
        assert first.startswith("-- "), path
        assert first.endswith((".", "?")), path
        assert len(first) <= 120, path
        code = "\n".join(line.partition("--")[0] for line in statement.splitlines())
        # A function holds statements, between "begin atomic" and "end".
        code = re.sub(r"^begin atomic\n.*^end$", "", code, flags=re.MULTILINE | re.DOTALL)
        assert ";" not in code.rstrip().removesuffix(";"), path
