"""Search every column of every table for values that must not be there."""

from __future__ import annotations

import json
from collections.abc import Iterable
from contextlib import closing
from typing import Any

import psycopg
from psycopg import sql

TABLES = """
    select table_name, array_agg(column_name::text order by ordinal_position)
    from information_schema.columns
    where table_schema = %s and table_name in (
        select relname from pg_class
        where relnamespace = %s::regnamespace and relkind in ('r', 'p', 'm')
    )
    group by 1 order by 1
"""
STATISTICS = """
    select tablename, attname, concat_ws(
        ' ', most_common_vals::text, histogram_bounds::text, most_common_elems::text
    )
    from pg_stats where schemaname = %s
"""


def search(url: str, needles: Iterable[str], schema: str = "kaltura") -> set[tuple[str, str, str]]:
    """(needle, table, column) of everything found; the planner's statistics are searched too.

    Each needle as it is, and in the two forms that JSON gives it.
    """
    forms = {
        needle: {
            needle.encode(),
            json.dumps(needle, ensure_ascii=False)[1:-1].encode(),
            json.dumps(needle)[1:-1].encode(),
            json.dumps(needle)[1:-1].replace("/", "\\/").encode(),
        }
        for needle in needles
    }
    found = set()
    with closing(psycopg.connect(url, autocommit=True)) as connection:
        for table, columns in connection.execute(TABLES, [schema, schema]).fetchall():
            for column in columns:
                values = connection.execute(
                    sql.SQL("select {0} from {1} where {0} is not null").format(
                        sql.Identifier(column), sql.Identifier(schema, table)
                    )
                )
                for (value,) in values:
                    content = bytes(value) if isinstance(value, bytes) else _text(value).encode()
                    found |= {
                        (needle, table, column)
                        for needle, each in forms.items()
                        if any(form in content for form in each)
                    }
        for table, column, text in connection.execute(STATISTICS, [schema]).fetchall():
            # bytea is shown in hexadecimal digits there.
            found |= {
                (needle, table, f"statistics of {column}")
                for needle, each in forms.items()
                if any(form in text.encode() or form.hex() in text for form in each)
            }
    return found


def _text(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False) if isinstance(value, dict | list) else str(value)


def fingerprint(url: str, schema: str = "kaltura") -> dict[str, str]:
    """Every table's rows in one hash each."""
    with closing(psycopg.connect(url, autocommit=True)) as connection:
        return {
            table: connection.execute(
                sql.SQL(
                    "select coalesce(md5(string_agg(row, '\n' order by row)), '') "
                    "from (select t::text as row from {} as t) as rows"
                ).format(sql.Identifier(schema, table))
            ).fetchone()[0]  # type: ignore[index]
            for table, _ in connection.execute(TABLES, [schema, schema]).fetchall()
        }
