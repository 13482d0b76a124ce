"""Writes docs/reference/schema.md: what the comments of a migrated database say of it.

``python -m etl.warehouse.schema.reference docs/reference`` migrates a temporary database and
writes the page; a test compares.  The program itself does not import this module.
"""

from __future__ import annotations

import sys
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from sqlalchemy import Connection, text

from etl.embedded.server import embedded_server
from etl.warehouse.schema.revision import migrate, open_connection

FILE_NAME: Final = "schema.md"
_LEFT_OUT: Final = "alembic_version"

RELATIONS: Final = (
    ("sync_run", "||--o{", "upload_token", "published"),
    ("sync_run", "||--o{", "upload_token_superseded", "published"),
    ("upload_token", "||--o{", "upload_token_superseded", "had before"),
    ("upload_token_status", "|o--o{", "upload_token", "names"),
    ("sync_run", "||--o{", "sync_page", "read"),
    ("sync_run", "||--o{", "rejected_row", "did not load"),
    ("sync_run", "||--o{", "unobserved_token", "did not see"),
    ("upload_token", "||--o{", "unobserved_token", "was not seen"),
    ("sync_run", "||--o{", "upload_token_status_count_log", "counted"),
    ("sync_run", "||--o{", "upload_bytes_arrival_log", "told"),
    ("sync_run", "|o--o{", "sync_run", "is resumed by"),
    ("sync_run", "||--o{", "upload_token_staging", "stages"),
)
"""What belongs to what, in Mermaid's words; not all of it is a foreign key."""

_HEAD: Final = """\
# Schema

Written by `python -m etl.warehouse.schema.reference docs/reference` from the comments of a migrated
database, where `\\d+` in psql shows the same. The schema's name is `kaltura` (setting
`ETL_SCHEMA`). Times are `timestamptz`, sizes are bytes, ids are bytewise.

Query the views. They read with the rights of the caller (`security_invoker`), and days are cut in
the time zone of the session's setting `kaltura.time_zone`:

```sql
set search_path = kaltura;
set kaltura.time_zone = 'Europe/Berlin';
select * from upload_token_daily_status where day = '2026-11-17';
```

A NULL in the column *NULL* means that the value may be missing; views do not state it."""

_RELATIONS_QUERY: Final = """
    select relname, relkind::text as kind, obj_description(oid, 'pg_class') as comment
    from pg_class
    where relnamespace = to_regnamespace(quote_ident(current_schema())) and relkind in ('r', 'v')
    order by relkind, relname
"""
_COLUMNS_QUERY: Final = """
    select
        relation.relname,
        attribute.attname as name,
        format_type(attribute.atttypid, attribute.atttypmod) as type,
        not attribute.attnotnull as nullable,
        col_description(relation.oid, attribute.attnum) as comment,
        exists (
            select 1 from pg_index
            where indrelid = relation.oid and indisprimary and attribute.attnum = any(indkey)
        ) as is_key
    from pg_class as relation
    join pg_attribute as attribute
        on attribute.attrelid = relation.oid and attribute.attnum > 0 and not attisdropped
    where relation.relnamespace = to_regnamespace(quote_ident(current_schema()))
        and relation.relkind in ('r', 'v')
    order by relation.relname, attribute.attnum
"""
_FUNCTIONS_QUERY: Final = """
    select
        proname || '(' || pg_get_function_identity_arguments(oid) || ')' as name,
        pg_get_function_result(oid) as result,
        obj_description(oid, 'pg_proc') as comment
    from pg_proc
    where pronamespace = to_regnamespace(quote_ident(current_schema()))
    order by proname
"""


@dataclass
class _Relation:
    name: str
    is_view: bool
    comment: str
    columns: list[Any] = field(default_factory=list)


def describe(connection: Connection, schema: str = "kaltura") -> str:
    """The page, for a schema that is migrated."""
    quoted = connection.dialect.identifier_preparer.quote(schema)
    connection.execute(text(f"set local search_path = {quoted}"))
    relations = {
        row.relname: _Relation(row.relname, row.kind == "v", row.comment or "")
        for row in connection.execute(text(_RELATIONS_QUERY))
        if row.relname != _LEFT_OUT
    }
    for row in connection.execute(text(_COLUMNS_QUERY)):
        if row.relname in relations:
            relations[row.relname].columns.append(row)
    views = [relation for relation in relations.values() if relation.is_view]
    tables = [relation for relation in relations.values() if not relation.is_view]
    functions = [
        f"### {row.name}\n\nReturns `{row.result}`.\n\n{_paragraphs(row.comment or '')}"
        for row in connection.execute(text(_FUNCTIONS_QUERY))
    ]
    parts = [
        _HEAD,
        _picture(tables),
        "## Views",
        *[_section(view) for view in views],
        "## Functions",
        *functions,
        "## Tables",
        *[_section(table) for table in tables],
    ]
    return "\n\n".join(parts) + "\n"


def _picture(tables: list[_Relation]) -> str:
    known = {table.name for table in tables}
    lines = ["```mermaid", "erDiagram"]
    lines += [
        f'    {one} {how} {other} : "{says}"'
        for one, how, other, says in RELATIONS
        if {one, other} <= known
    ]
    for table in tables:
        keys = [f"        {_word(row.type)} {row.name} PK" for row in table.columns if row.is_key]
        lines += [f"    {table.name} {{", *keys, "    }"] if keys else [f"    {table.name}"]
    return "\n".join([*lines, "```"])


def _section(relation: _Relation) -> str:
    heads = (
        ["Column", "Type", "Meaning"] if relation.is_view else ["Column", "Type", "NULL", "Meaning"]
    )
    lines = [_row(heads), "|---" * len(heads) + "|"]
    for column in relation.columns:
        cells = [f"`{column.name}`", _escaped(column.type)]
        if not relation.is_view:
            cells.append("NULL" if column.nullable else "")
        lines.append(_row([*cells, _escaped(column.comment or "")]))
    table = "\n".join(lines)
    return f"### {relation.name}\n\n{_paragraphs(relation.comment)}\n\n{table}"


def _row(cells: list[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _paragraphs(comment: str) -> str:
    return _escaped(comment).replace("\n", "\n\n")


def _escaped(words: str) -> str:
    """Without what Markdown would take for a tag or the end of a cell."""
    return words.replace("&", "&amp;").replace("<", "&lt;").replace("|", "\\|").replace("  ", " ")


def _word(kind: str) -> str:
    return kind.replace(" ", "_")


def write(folder: Path) -> None:
    """Write the page of a temporary database into the folder."""
    with tempfile.TemporaryDirectory(prefix="kaltura-etl-") as place:
        Path(place).chmod(0o711)  # as root the server runs as another user
        with embedded_server(Path(place) / "data", fast=True) as url:
            migrate(url)
            with open_connection(url) as connection:
                page = describe(connection)
    (folder / FILE_NAME).write_text(page, encoding="utf-8")


if __name__ == "__main__":
    write(Path(sys.argv[1]))
