"""What the catalog says of a schema, and statements on a database."""

from __future__ import annotations

from contextlib import closing

import psycopg
from alembic import command
from alembic.config import Config

from etl.resources import migrations_directory

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


def upgrade(url: str, revision: str) -> None:
    """Migrate the schema ``kaltura`` to an earlier revision."""
    command.upgrade(configured(url), revision)


def configured(url: str) -> Config:
    """What Alembic's commands are given, for the schema ``kaltura``."""
    config = Config()
    config.set_main_option("script_location", str(migrations_directory()))
    config.set_main_option("path_separator", "os")
    config.attributes.update(url=url, schema="kaltura")
    return config


def populated(url: str, revision: str) -> None:
    """A schema of an earlier revision, with a row in each table that gets an index later."""
    upgrade(url, revision)
    populated_with_rows(url)


def populated_with_rows(url: str) -> None:
    """A run, a token and a superseded version of it, as far as indexes are concerned."""
    version = (
        "insert into kaltura.{} (partner_id, token_id, status, created_at, is_listed, version, "
        "change_kind, valid_from, observed_at, run_id{}) "
        "select 101, 'a', 0, now(), true, 1, 'first_seen', now(), now(), 1{}"
    )
    run(
        url,
        "insert into kaltura.sync_run (run_id, partner_id, walk_id, mode, status, published_at, "
        "coverage) values (1, 101, 1, 'full', 'succeeded', now(), '{(,)}')",
        version.format("upload_token", "", ""),
        version.format(
            "upload_token_superseded", ", valid_to, superseded_by_run_id", ", now() + '1 s', 1"
        ),
    )
