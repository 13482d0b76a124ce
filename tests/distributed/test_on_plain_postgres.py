"""What plain Postgres can show of ``migrate --distributed``: the refusal, and its functions."""

from __future__ import annotations

import random
from contextlib import closing
from datetime import timedelta
from pathlib import Path

import psycopg
import pytest

from etl.errors import ConfigurationError
from etl.warehouse.engine import connect, set_local, transaction
from etl.warehouse.schema.distribution import (
    distribute,
    reinstall_if_distributed,
    statements_for_workers,
)
from etl.warehouse.schema.layout import Layout, layout, require_supported_layout
from etl.warehouse.schema.objects import missing_objects
from etl.warehouse.schema.revision import open_connection
from etl.warehouse.schema.views import view_files
from tests.cli.conftest import Run
from tests.support.world import BEGIN, World

DAYS = 6
CUT_DAYS = (
    *("sync_night", "upload_bytes_daily", "upload_mart", "upload_outcome_daily"),
    "upload_token_daily_status",
)


def test_plain_postgres_is_refused_in_a_sentence_and_left_alone(
    empty_database_url: str, run: Run
) -> None:
    refused = run("migrate", "--distributed", DATABASE_URL=empty_database_url)
    assert refused.returncode == 78, refused.stderr
    assert "needs the extension Citus" in refused.stderr
    with closing(psycopg.connect(empty_database_url)) as connection:
        found = connection.execute("select to_regnamespace('kaltura')").fetchone()
    assert found == (None,)


def test_no_embedded_server_is_made_to_be_refused(private_folder: Path, run: Run) -> None:
    folder = private_folder / "embedded"
    refused = run("migrate", "--distributed", ETL_EMBEDDED="yes", ETL_DATA_DIR=str(folder))
    assert refused.returncode == 78, refused.stderr
    assert "needs DATABASE_URL" in refused.stderr
    assert not folder.exists()


@pytest.mark.postgres15
def test_functions_for_workers_give_what_those_of_plain_postgres_give(database_url: str) -> None:
    """Alone and in a join, at any moment; and no object of the revision is missing afterwards."""
    world = World(random.Random(3))
    queries = [
        "select * from upload_token_as_of(%(at)s) order by partner_id, token_id",
        "select * from upload_token_happened_by(%(at)s) order by partner_id, token_id",
        "select known.*, token.status as status_now from upload_token_as_of(%(at)s) as known "
        "join upload_token as token using (partner_id, token_id) order by partner_id, token_id",
    ]
    with closing(psycopg.connect(database_url, autocommit=True)) as connection:
        connection.execute("set search_path = kaltura")
        world.pass_days(DAYS, 20)
        world.write(connection)
        moments = [BEGIN + timedelta(days=day, hours=5) for day in range(-1, DAYS + 2)]
        plain = [
            connection.execute(query.encode(), {"at": at}).fetchall()
            for query in queries
            for at in moments
        ]
        for view in view_files():
            for statement in statements_for_workers(view):
                connection.execute(statement.encode())
        (languages,) = connection.execute(
            "select array_agg(lanname::text order by proname) from pg_proc "
            "join pg_language on pg_language.oid = prolang "
            "where proname in ('upload_token_as_of', 'upload_token_happened_by')"
        ).fetchone() or ((),)
        assert languages == ["plpgsql", "plpgsql"]
        # From anywhere: a worker does not have the caller's search_path.
        connection.execute("set search_path = pg_catalog")
        queried = [
            query.replace("upload_token_", "kaltura.upload_token_").replace(
                "join upload_token", "join kaltura.upload_token"
            )
            for query in queries
        ]
        for_workers = [
            connection.execute(query.encode(), {"at": at}).fetchall()
            for query in queried
            for at in moments
        ]
    assert for_workers == plain
    assert sum(map(len, plain)) > 100
    with open_connection(database_url) as opened:
        assert missing_objects(opened, "kaltura") == []


def test_plain_tables_are_a_layout_without_a_problem(database_url: str) -> None:
    with open_connection(database_url) as connection:
        assert layout(connection, "kaltura") == Layout(False, None)
        require_supported_layout(connection, "kaltura")
    reinstall_if_distributed(database_url, "kaltura")  # nothing to do
    with pytest.raises(ConfigurationError, match="needs the extension Citus"):
        distribute(database_url, "kaltura")


def test_settings_are_set_for_one_transaction_whatever_they_contain(database_url: str) -> None:
    engine = connect(database_url)
    try:
        with transaction(engine) as connection:
            set_local(connection, {"kaltura.time_zone": "O'Higgins", "work_mem": "3MB"})
            shown = "select current_setting('kaltura.time_zone'), current_setting('work_mem')"
            assert connection.exec_driver_sql(shown).one() == ("O'Higgins", "3MB")
        with transaction(engine) as connection:
            assert connection.exec_driver_sql(shown).one() != ("O'Higgins", "3MB")
    finally:
        engine.dispose()


def test_a_worker_that_was_told_no_zone_does_not_cut_days_in_utc(database_url: str) -> None:
    """In a warehouse with something in it: of an empty one, some views do not ask for the zone."""
    world = World(random.Random(3))
    world.pass_days(DAYS, 20)
    with closing(psycopg.connect(database_url, autocommit=True)) as connection:
        connection.execute("set search_path = kaltura")
        world.write(connection)
        connection.execute("update upload_token set uploaded_size_bytes = 1000 where version = 1")
        assert connection.execute("select kaltura_time_zone()").fetchone() == ("UTC",)
        connection.execute("set application_name = 'citus_internal gpid=10000000042'")
        for view in CUT_DAYS:
            with pytest.raises(psycopg.errors.UndefinedObject, match="this worker was not told"):
                connection.execute(f"table {view}".encode())
        connection.execute("set kaltura.time_zone = 'Asia/Tokyo'")
        assert connection.execute("select kaltura_time_zone()").fetchone() == ("Asia/Tokyo",)
