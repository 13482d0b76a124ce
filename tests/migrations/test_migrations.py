"""The migrations make the schema that the code expects, however often and by whomever started."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from alembic.config import Config
from alembic.script import ScriptDirectory
from sqlalchemy import text

from etl.embedded.binaries import find_binaries
from etl.errors import ConfigurationError, LeaseHeld
from etl.resources import migrations_directory
from etl.warehouse.access.privileges import missing_privileges
from etl.warehouse.schema.migration import take_migration_lock
from etl.warehouse.schema.revision import (
    HEAD_REVISION,
    migrate,
    open_connection,
    require_current,
    schema_state,
)
from tests.support import forked
from tests.support.schema import OBJECTS, populated, rows, run

REPOSITORY = Path(__file__).parents[2]


def alembic(url: str, *words: str, schema: str = "kaltura") -> subprocess.CompletedProcess[str]:
    return forked.call(
        *("-c", str(REPOSITORY / "alembic.ini"), *words),
        env=forked.environment(DATABASE_URL=url, ETL_SCHEMA=schema),
        code="from alembic.config import main; main()",
        cwd=REPOSITORY,
    )


@pytest.fixture
def head() -> str:
    config = Config()
    config.set_main_option("script_location", str(migrations_directory()))
    config.set_main_option("path_separator", "os")
    found = ScriptDirectory.from_config(config).get_current_head()
    assert found is not None
    return found


def test_the_constant_names_the_newest_revision(head: str) -> None:
    assert head == HEAD_REVISION


def test_migrating_from_nothing_and_again(empty_database_url: str) -> None:
    assert schema_state(empty_database_url).current is None
    assert migrate(empty_database_url) == (None, HEAD_REVISION)
    before = rows(empty_database_url, OBJECTS, "kaltura")
    assert migrate(empty_database_url) == (HEAD_REVISION, HEAD_REVISION)
    assert rows(empty_database_url, OBJECTS, "kaltura") == before
    state = schema_state(empty_database_url)
    assert (state.current, state.head) == (HEAD_REVISION, HEAD_REVISION)


def test_two_schemas_with_any_name_live_side_by_side(empty_database_url: str) -> None:
    strange = 'Two Words"; drop'
    migrate(empty_database_url)
    assert migrate(empty_database_url, strange) == (None, HEAD_REVISION)
    quoted = '"' + strange.replace('"', '""') + '"'
    ours = rows(empty_database_url, OBJECTS, quoted)
    theirs = rows(empty_database_url, OBJECTS, "kaltura")
    # Names of sequences and tables carry their schema, so the defaults are left out.
    assert [row[:8] for row in ours] == [row[:8] for row in theirs]
    with open_connection(empty_database_url) as connection:
        require_current(connection, strange)
        assert missing_privileges(connection, strange) == []
    assert rows(empty_database_url, "select count(*) from pg_class where relname = 'sync_run'") == [
        (2,)
    ]


def test_migrators_started_at_once_all_succeed_and_one_works(empty_database_url: str) -> None:
    code = (
        "import sys\n"
        "from etl.warehouse.schema.revision import migrate\n"
        "print(migrate(sys.argv[1])[0])"
    )
    started = [
        forked.start(empty_database_url, env=forked.environment(), code=code) for _ in range(4)
    ]
    said = [process.communicate(timeout=60) for process in started]
    assert [process.returncode for process in started] == [0] * 4, said
    assert sorted(out.strip() for out, _ in said) == [HEAD_REVISION] * 3 + ["None"]


def test_a_migrator_does_not_wait_for_ever(empty_database_url: str) -> None:
    slept: list[float] = []
    with (
        open_connection(empty_database_url) as first,
        open_connection(empty_database_url) as other,
        open_connection(empty_database_url) as third,
    ):
        take_migration_lock(first, "kaltura")
        take_migration_lock(other, "another schema")
        with pytest.raises(LeaseHeld, match="Another migration of schema kaltura") as held:
            take_migration_lock(third, "kaltura", wait_seconds=0.3, sleep=slept.append)
        assert held.value.fields["holder_pid"] == first.scalar(text("select pg_backend_pid()"))
        first.rollback()
        third.rollback()
        take_migration_lock(third, "kaltura", wait_seconds=0)
    assert slept


def test_a_migration_gives_up_rather_than_wait_for_a_lock(empty_database_url: str) -> None:
    run(
        empty_database_url,
        "create table seen (name text, value text)",
        """create function note() returns event_trigger language plpgsql as $$
        begin insert into public.seen select name, setting from pg_settings
              where name in ('lock_timeout', 'statement_timeout'); end $$""",
        "create event trigger note on ddl_command_end when tag in ('CREATE VIEW') "
        "execute function note()",
    )
    migrate(empty_database_url)
    settings = rows(empty_database_url, "select distinct * from seen order by 1")
    assert settings == [("lock_timeout", "5000"), ("statement_timeout", "0")]


@pytest.mark.parametrize("before", [None, "0001"])
def test_a_migration_that_was_killed_can_be_started_again(
    empty_database_url: str, before: str | None
) -> None:
    if before is not None:
        populated(empty_database_url, before)
    run(
        empty_database_url,
        """create function fail() returns event_trigger language plpgsql as
        $$ begin raise exception 'killed'; end $$""",
        "create event trigger fail on ddl_command_start when tag in ('CREATE VIEW') "
        "execute function fail()",
    )
    for _ in range(2):
        with pytest.raises(Exception, match="raised an error"):
            migrate(empty_database_url)
        # Of the revision with the views, only its indexes may be there.
        assert schema_state(empty_database_url).current == before
    run(empty_database_url, "drop event trigger fail")
    assert migrate(empty_database_url) == (before, HEAD_REVISION)


@pytest.mark.parametrize(
    ("statement", "said"),
    [
        ("drop schema kaltura cascade", "no tables .* run kaltura-etl migrate"),
        ("delete from kaltura.alembic_version", "no tables .* run kaltura-etl migrate"),
        ("update kaltura.alembic_version set version_num = '0000'", "run kaltura-etl migrate"),
        ("update kaltura.alembic_version set version_num = '9999'", "does not know"),
        ("insert into kaltura.alembic_version values ('0000')", "several revisions"),
    ],
)
def test_a_schema_of_another_version_is_refused(
    database_url: str, statement: str, said: str
) -> None:
    run(database_url, statement)
    with (
        open_connection(database_url) as connection,
        pytest.raises(ConfigurationError, match=said) as caught,
    ):
        require_current(connection)
    assert caught.value.exit_code == 78


def test_an_old_program_does_not_touch_a_newer_schema(database_url: str) -> None:
    run(database_url, "update kaltura.alembic_version set version_num = '9999'")
    with pytest.raises(ConfigurationError, match="does not know"):
        migrate(database_url)
    assert schema_state(database_url).current == "9999"


def test_a_schema_of_this_version_is_accepted(database_url: str) -> None:
    with open_connection(database_url) as connection:
        require_current(connection)


def test_the_printed_statements_make_the_same_schema(
    database_url: str, empty_database_url: str
) -> None:
    printed = alembic(database_url, "upgrade", "head", "--sql")
    assert printed.returncode == 0, printed.stderr
    # Statement by statement, as a person would: some may not be in a transaction.
    psql = [str(find_binaries() / "psql"), "-X", "-q", "-v", "ON_ERROR_STOP=1", empty_database_url]
    done = subprocess.run(psql, input=printed.stdout, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert rows(empty_database_url, OBJECTS, "kaltura") == rows(database_url, OBJECTS, "kaltura")
    assert schema_state(empty_database_url).current == HEAD_REVISION


def test_alembic_by_hand(empty_database_url: str) -> None:
    done = alembic(empty_database_url, "upgrade", "head", schema="by_hand")
    assert done.returncode == 0, done.stderr
    assert schema_state(empty_database_url, "by_hand").current == HEAD_REVISION
    assert alembic(empty_database_url, "check", schema="by_hand").returncode == 0


def test_a_downgrade_that_loses_data_wants_a_word(database_url: str) -> None:
    refused = alembic(database_url, "downgrade", "base")
    assert refused.returncode != 0
    assert "force=yes" in refused.stderr
    # It goes down to the newest revision whose downgrade loses something.
    assert str(schema_state(database_url).current) == "0007"
    done = alembic(database_url, "-x", "force=yes", "downgrade", "base")
    assert done.returncode == 0, done.stderr
    assert schema_state(database_url).current is None
    assert migrate(database_url) == (None, HEAD_REVISION)


def test_data_outlive_the_way_up_and_down(empty_database_url: str) -> None:
    url = empty_database_url
    assert alembic(url, "upgrade", "0001").returncode == 0
    version = (
        "insert into kaltura.{} select 101, 'a', 'anna', {}, 'film', 1, 1, now(), now(), null, "
        "null, null, null, null, true, {}, '{}', '{{status}}', now(), now(), null, null, 1{}"
    )
    run(
        url,
        "insert into kaltura.sync_run (run_id, partner_id, walk_id, mode, status, published_at, "
        "coverage) values (1, 101, 1, 'full', 'succeeded', now(), '{(,)}')",
        "insert into kaltura.sync_run (run_id, partner_id, walk_id, mode, status, finished_at, "
        "error_kind, error_message) select 1 + n, 101, 1 + n, 'full', 'failed', now(), kind, 'x' "
        "from unnest(array['refused', 'dry_run', 'service_unavailable']) "
        "with ordinality as failed (kind, n)",
        version.format("upload_token", 3, 2, "changed", ""),
        version.format("upload_token_superseded", 0, 1, "first_seen", ", now() + '1 s', 1"),
    )
    columns = "string_agg(attname, ', ' order by attnum)"
    tables = {
        table: rows(
            url,
            f"select {columns} from pg_attribute where attnum > 0 "  # noqa: S608
            f"and attrelid = 'kaltura.{table}'::regclass",
        )[0][0]
        for table in ("upload_token", "upload_token_superseded")
    }

    def stored() -> list[list[tuple[object, ...]]]:
        return [
            rows(url, f"select {names} from kaltura.{table}")  # noqa: S608
            for table, names in tables.items()
        ]

    before = stored()
    assert migrate(url) == ("0001", HEAD_REVISION)
    assert stored() == before
    outcomes = "select run_id, status, error_kind from kaltura.sync_run order by run_id"
    assert rows(url, outcomes) == [
        (1, "succeeded", None),
        (2, "refused", "refused"),
        (3, "dry_run", "dry_run"),
        (4, "failed", "service_unavailable"),
    ]
    seen = "select version, status from kaltura.upload_token_history order by version"
    assert rows(url, seen) == [(1, 0), (2, 3)]
    changes = "select version, from_status, to_status from kaltura.upload_token_status_history"
    assert rows(url, f"{changes} order by version") == [
        (1, None, "PENDING"),
        (2, "PENDING", "CLOSED"),
    ]
    done = alembic(url, "-x", "force=yes", "downgrade", "0001")
    assert done.returncode == 0, done.stderr
    assert stored() == before
    assert [row[1] for row in rows(url, outcomes)] == ["succeeded", *["failed"] * 3]
    left = """
        select relname from pg_class
        where relnamespace = 'kaltura'::regnamespace and relkind = 'v'
        union all
        select proname from pg_proc where pronamespace = 'kaltura'::regnamespace
    """
    assert rows(url, left) == []
    assert migrate(url) == ("0001", HEAD_REVISION)
    assert stored() == before


def test_a_new_revision_begins_with_the_rules(tmp_path: Path) -> None:
    shutil.copytree(migrations_directory(), tmp_path / "migrations")
    shutil.copy(REPOSITORY / "alembic.ini", tmp_path)
    following = f"{int(HEAD_REVISION) + 1:04}"
    made = subprocess.run(
        [sys.executable, "-m", "alembic", "revision", "-m", "more", "--rev-id", following],
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert made.returncode == 0, made.stderr
    name = f"{following}_more.py"
    text = (tmp_path / "migrations/versions" / name).read_text(encoding="utf-8")
    assert "lock_timeout" in text
    assert f'down_revision = "{HEAD_REVISION}"' in text.replace("'", '"')
    compile(text, name, "exec")


def test_a_downgrade_puts_the_view_back_that_it_found(database_url: str) -> None:
    run(
        database_url,
        "insert into kaltura.sync_run (partner_id, mode, status, finished_at, error_kind) "
        "values (101, 'full', 'dry_run', now(), 'dry_run')",
    )
    said = "select last_run_status from kaltura.sync_freshness"
    assert rows(database_url, said) == [(None,)]
    assert alembic(database_url, "-x", "force=yes", "downgrade", "0003").returncode == 0
    assert rows(database_url, said) == [(None,)]
    assert migrate(database_url) == ("0003", HEAD_REVISION)
    assert rows(database_url, said) == [(None,)]


def test_what_was_pruned_before_it_was_counted_counts_as_pruned(empty_database_url: str) -> None:
    url = empty_database_url
    assert alembic(url, "upgrade", "0005").returncode == 0
    run(
        url,
        # 1 has its pages, 2 has none, 3 has pages and its rejected rows were pruned, 4 is running.
        "insert into kaltura.sync_run (run_id, partner_id, walk_id, mode, status, started_at, "
        "published_at, pages, rejected) select run_id, 101, run_id, 'full', "
        "case run_id when 4 then 'running' else 'succeeded' end, '2026-01-01Z', now(), 1, 2 "
        "from generate_series(1, 4) as run_id",
        "insert into kaltura.sync_page (run_id, seq, page_index, page_size, filter, requested_at, "
        "received_at, rows, body_sha256) select run_id, 0, 1, 500, '{}', now(), now(), 2, "
        "sha256('') from unnest('{1,3}'::int[]) as run_id",
        "insert into kaltura.rejected_row (run_id, token_id, reason, payload) "
        "select 1, token_id, 'bad_time', cast(token_id as bytea) "
        "from unnest('{a,b}'::text[]) as token_id",
        "insert into kaltura.pruning (partner_id, kind, horizon, deleted, program_version) "
        "values (101, 'rejected', '2026-02-01Z', 2, '0.1')",
        "insert into kaltura.unobserved_token values (101, 'a', 1, 'rejected')",
    )
    assert migrate(url) == ("0005", HEAD_REVISION)
    counts = (
        "select pages_pruned, rejected_pruned, unobserved from kaltura.sync_run order by run_id"
    )
    expected = [(0, 0, 1), (1, 2, 0), (0, 2, 0), (0, 0, 0)]
    assert rows(url, counts) == expected
    # The loader deletes from a table without a key; a publication of all tables forbids that.
    identity = (
        "select relreplident::text from pg_class where oid = 'kaltura.rejected_row'::regclass"
    )
    assert rows(url, identity) == [("f",)]
    assert alembic(url, "-x", "force=yes", "downgrade", "0005").returncode == 0
    assert migrate(url) == ("0005", HEAD_REVISION)
    assert rows(url, counts) == expected
