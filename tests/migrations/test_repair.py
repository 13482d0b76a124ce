"""What was dropped from a schema is found by ``check``, and put back by ``migrate --repair``."""

from __future__ import annotations

import pytest

from etl.errors import ConfigurationError, CredentialsRefused, DataRefused
from etl.warehouse.load.ready import require_ready
from etl.warehouse.read.status import status_summary
from etl.warehouse.schema.database import open_database
from etl.warehouse.schema.objects import expected_objects, missing_objects
from etl.warehouse.schema.repair import repair
from etl.warehouse.schema.revision import open_connection
from tests.support.roles import as_role, roles_of
from tests.support.schema import OBJECTS, populated_with_rows, rows, run

CONSTRAINTS = """
    select conrelid::regclass::text, conname, pg_get_constraintdef(oid) from pg_constraint
    where connamespace = 'kaltura'::regnamespace
    union all select tablename, indexname, indexdef from pg_indexes where schemaname = 'kaltura'
    union all select proname, prosrc, obj_description(oid, 'pg_proc') from pg_proc
    where pronamespace = 'kaltura'::regnamespace
    order by 1, 2
"""
KEPT = """
    select relation.oid::regclass::text, attribute.attname,
        concat_ws(
            ' ', relam, relpersistence, relreplident, relrowsecurity, reloptions, attstorage,
            attcompression, attstattarget, attoptions, atthasmissing, attidentity, attgenerated
        )
    from pg_class as relation
    left join pg_attribute as attribute
        on attribute.attrelid = relation.oid and attribute.attnum > 0 and not attisdropped
    where relnamespace = 'kaltura'::regnamespace
    union all select tgrelid::regclass::text, tgname, tgfoid::regproc::text
    from pg_trigger where not tgisinternal
    union all select stxrelid::regclass::text, stxname, pg_get_statisticsobjdef(oid)
    from pg_statistic_ext
    order by 1, 2
"""
"""How everything is kept, whatever of it a migration may set."""
BY_ITSELF = """
    select format('alter table %s alter column %I set storage %s', attrelid::regclass, attname,
        case typstorage when 'p' then 'plain' when 'm' then 'main' else 'extended' end)
    from pg_attribute join pg_type on pg_type.oid = atttypid
    join pg_class as relation on relation.oid = attrelid and relkind = 'r'
    where relnamespace = 'kaltura'::regnamespace and attnum > 0 and not attisdropped
    and attstorage <> typstorage
    union all
    select format('alter table %s set %s', oid::regclass,
        case relpersistence when 'u' then 'logged' else 'unlogged' end)
    from pg_class where relnamespace = 'kaltura'::regnamespace
    and relname in ('upload_token_staging', 'pruning')
    union all
    select format('alter table %s replica identity default', oid::regclass)
    from pg_class where relnamespace = 'kaltura'::regnamespace and relreplident <> 'd'
    and relkind = 'r'
    union all
    select format('alter table %s reset (%s)', oid::regclass, split_part(option, '=', 1))
    from pg_class cross join unnest(reloptions) as option
    where relnamespace = 'kaltura'::regnamespace and relkind = 'r'
    union all
    select format('alter table %s alter column %I set statistics -1', attrelid::regclass, attname)
    from pg_attribute join pg_class as relation on relation.oid = attrelid and relkind = 'r'
    where relnamespace = 'kaltura'::regnamespace and attnum > 0 and attstattarget >= 0
"""
"""Statements that leave tables as Postgres would keep them by itself, but for views and indexes."""
DEFINITIONS = [
    ("drop view kaltura.upload_token_history cascade", "view upload_token_history"),
    ("drop view if exists kaltura.stuck_upload", "view stuck_upload"),
    ("drop function kaltura.upload_size_bucket cascade", "function upload_size_bucket"),
    ("drop index kaltura.ix_upload_token_listed", "index upload_token.ix_upload_token_listed"),
    ("drop index kaltura.uq_sync_run_running", "index sync_run.uq_sync_run_running"),
    (
        "alter table kaltura.upload_token drop constraint pk_upload_token",
        "constraint upload_token.pk_upload_token",
    ),
    (
        "alter table kaltura.sync_run drop constraint pk_sync_run cascade",
        "constraint sync_page.fk_sync_page_run_id",
    ),
    (
        "alter table kaltura.sync_run drop constraint ck_sync_run_status, "
        "add constraint ck_sync_run_status check (false) not valid",
        "constraint sync_run.ck_sync_run_status",
    ),
    ("alter table kaltura.sync_run alter mode drop not null", "not null sync_run.mode"),
    ("alter table kaltura.sync_run alter holes drop default", "default sync_run.holes"),
    ("alter table kaltura.sync_run alter run_id drop identity", "default sync_run.run_id"),
]
COMMENTS = [
    ("comment on column kaltura.sync_run.mode is 'x'", "comment sync_run.mode"),
    ("comment on table kaltura.sync_run is null", "comment sync_run"),
    ("comment on view kaltura.sync_night is null", "comment sync_night"),
    ("comment on function kaltura.kaltura_time_zone is 'x'", "comment kaltura_time_zone"),
]


def missing(url: str) -> list[str]:
    with open_connection(url) as connection:
        return [str(each) for each in missing_objects(connection, "kaltura")]


@pytest.mark.postgres15
def test_a_migrated_schema_has_every_object_and_no_other(database_url: str) -> None:
    assert missing(database_url) == []
    views = "select viewname from pg_views where schemaname = 'kaltura'"
    expected = {each.name for each in expected_objects("kaltura") if each.kind == "view"}
    assert {row[0] for row in rows(database_url, views)} == expected


@pytest.mark.parametrize("damage", [DEFINITIONS, COMMENTS], ids=["definitions", "comments"])
def test_what_was_dropped_is_found_and_put_back(
    database_url: str, damage: list[tuple[str, str]]
) -> None:
    url = database_url
    populated_with_rows(url)
    run(url, "alter table kaltura.sync_run alter run_id restart with 2")
    whole = rows(url, OBJECTS, "kaltura"), rows(url, CONSTRAINTS)
    data = rows(url, "table kaltura.sync_run"), rows(url, "table kaltura.upload_token")
    run(url, *[statement for statement, _ in damage])
    found = missing(url)
    assert {named for _, named in damage} <= set(found)
    assert [str(each) for each in repair(url, "kaltura")] == found
    assert missing(url) == []
    assert (rows(url, OBJECTS, "kaltura"), rows(url, CONSTRAINTS)) == whole
    assert repair(url, "kaltura") == []
    run(url, "insert into kaltura.sync_run (partner_id, mode, status) values (9, 'full', 'failed')")
    run(url, "delete from kaltura.sync_run where partner_id = 9")
    assert (rows(url, "table kaltura.sync_run"), rows(url, "table kaltura.upload_token")) == data


def test_how_tables_are_kept_is_put_back(database_url: str) -> None:
    url = database_url
    migrated = rows(url, KEPT)
    run(url, *[str(statement) for (statement,) in rows(url, BY_ITSELF)])
    assert rows(url, KEPT) != migrated
    found = missing(url)
    assert {each.rpartition(" ")[0] for each in found} == {
        "storage",
        "persistence",
        "replica identity",
        "fillfactor",
    }
    assert [str(each) for each in repair(url, "kaltura")] == found
    assert rows(url, KEPT) == migrated


@pytest.mark.parametrize(
    ("statement", "named"),
    [
        ("drop table kaltura.erasure_key", ["table erasure_key"]),
        ("alter table kaltura.sync_run drop column label", ["column sync_run.label"]),
        ("alter table kaltura.sync_run alter pid type bigint", ["column sync_run.pid"]),
    ],
)
def test_what_held_data_is_named_and_refused(
    database_url: str, statement: str, named: list[str]
) -> None:
    run(database_url, statement, "drop view kaltura.stuck_upload")
    assert missing(database_url) == [*named, "view stuck_upload"]
    with pytest.raises(ConfigurationError, match=named[0]) as refused:
        repair(database_url, "kaltura")
    assert (refused.value.exit_code, refused.value.fields["reason"]) == (78, "objects")
    assert "view stuck_upload" in missing(database_url)


def test_a_table_that_is_gone_is_no_matter_of_privileges(database_url: str) -> None:
    run(database_url, "drop table kaltura.rejected_row")
    with (
        pytest.raises(ConfigurationError, match="lacks table rejected_row") as refused,
        open_database(database_url, "kaltura") as database,
    ):
        require_ready(database)
    assert (refused.value.exit_code, refused.value.fields["reason"]) == (78, "objects")


@pytest.mark.postgres15
@pytest.mark.parametrize(
    ("statement", "said"),
    [
        ("alter table kaltura.sync_page drop column body_sha256", "lacks column sync_page.body_"),
        (
            "drop index kaltura.uq_sync_run_running",
            r"lacks sync_run\.uq_sync_run_running, .* migrate --repair",
        ),
        (
            "alter table kaltura.upload_token drop constraint pk_upload_token",
            r"lacks upload_token\.pk_upload_token, .* migrate --repair",
        ),
    ],
)
def test_a_run_does_not_begin_without_a_column_or_a_key(
    database_url: str, statement: str, said: str
) -> None:
    """It would find out when it publishes; without the key of the lease it would not at all."""
    with open_database(database_url, "kaltura") as database:
        require_ready(database)
    run(database_url, statement)
    with (
        pytest.raises(ConfigurationError, match=said) as refused,
        open_database(database_url, "kaltura") as database,
    ):
        require_ready(database)
    assert (refused.value.exit_code, refused.value.fields["reason"]) == (78, "objects")


def test_a_view_that_is_gone_is_not_said_to_need_a_migration_only(database_url: str) -> None:
    run(database_url, "drop view kaltura.sync_night")
    with pytest.raises(ConfigurationError, match="migrate --repair") as refused:
        status_summary(database_url, "kaltura", None)
    assert refused.value.exit_code == 78


def test_rows_that_violate_a_constraint_and_views_of_others_are_named(database_url: str) -> None:
    url = database_url
    run(
        url,
        "alter table kaltura.sync_run drop constraint ck_sync_run_status",
        "insert into kaltura.sync_run (partner_id, mode, status) values (9, 'full', 'odd')",
        "drop view kaltura.stuck_upload",
    )
    with pytest.raises(DataRefused, match=r"constraint sync_run\.ck_sync_run_status"):
        repair(url, "kaltura")
    run(url, "delete from kaltura.sync_run", "create view kaltura.stuck_upload as select 1 as x")
    with pytest.raises(ConfigurationError, match="view stuck_upload"):
        repair(url, "kaltura")
    assert "constraint sync_run.ck_sync_run_status" in missing(url)


def test_only_the_owner_repairs(database_url: str) -> None:
    with roles_of(database_url) as roles:
        roles.grant_all("loader")
        run(database_url, "drop view kaltura.stuck_upload")
        with pytest.raises(CredentialsRefused, match="does not own the tables"):
            repair(as_role(database_url, roles.names["loader"]), "kaltura")
