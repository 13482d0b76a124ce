"""What the catalog says of a schema, and statements on a database."""

from __future__ import annotations

from contextlib import closing

import psycopg

OBJECTS = """
    select relation.relname, relation.relkind::text, relation.relpersistence::text,
        attribute.attname, format_type(attribute.atttypid, attribute.atttypmod),
        attribute.attnotnull, obj_description(relation.oid, 'pg_class'),
        col_description(relation.oid, attribute.attnum),
        pg_get_expr(ad.adbin, ad.adrelid)
    from pg_class as relation
    join pg_attribute as attribute on attribute.attrelid = relation.oid and attribute.attnum > 0
    left join pg_attrdef as ad on ad.adrelid = relation.oid and ad.adnum = attribute.attnum
    where relation.relnamespace = %s::regnamespace and relation.relkind in ('r', 'v', 'i')
    order by 1, attribute.attnum
"""


def rows(url: str, query: str, *values: object) -> list[tuple[object, ...]]:
    with closing(psycopg.connect(url, autocommit=True)) as connection:
        return connection.execute(query.encode(), values or None).fetchall()


def run(url: str, *statements: str) -> None:
    with closing(psycopg.connect(url, autocommit=True)) as connection:
        for statement in statements:
            connection.execute(statement.encode())
