"""A warehouse moves to another server, and a dump is restored, as docs/howto/upgrade.md says."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg import sql

from etl.embedded.binaries import find_binaries
from etl.verify.checks import verify
from etl.warehouse.schema.revision import migrate
from tests.conftest import POSTGRES_15
from tests.support.corruptions import build_healthy

ROOT = Path(__file__).resolve().parents[3]
NOT_COPIED = {"alembic_version", "upload_token_status"}


@pytest.fixture
def filled_url(database_url: str) -> str:
    with psycopg.connect(database_url) as connection:
        connection.execute("set search_path = kaltura")
        build_healthy(connection)
        connection.execute(
            "select setval(pg_get_serial_sequence('sync_run', 'run_id'), max(run_id)) from sync_run"
        )
    return database_url


def program(
    name: str, *arguments: str, schema: str = "kaltura", folder: Path | None = None
) -> tuple[int, str, str]:
    done = subprocess.run(
        [str((folder or find_binaries()) / name), *arguments],
        env={"PATH": os.environ["PATH"], "PGOPTIONS": f"-c search_path={schema}"},
        cwd=ROOT,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    return done.returncode, done.stdout, done.stderr


def contents(url: str, schema: str = "kaltura") -> dict[str, list[Any]]:
    """The rows of every table but those that migrate fills, in no order."""
    with psycopg.connect(url) as connection:
        tables = connection.execute(
            "select relname from pg_class where relnamespace = %s::regnamespace and relkind = 'r'",
            [schema],
        ).fetchall()
        return {
            name: sorted(
                str(row)
                for (row,) in connection.execute(
                    sql.SQL("select to_jsonb(each) from {} as each").format(
                        sql.Identifier(schema, name)
                    )
                )
            )
            for (name,) in tables
            if name not in NOT_COPIED
        }


@pytest.mark.postgres15
def test_all_rows_move_to_a_migrated_schema_at_once_or_not_at_all(
    filled_url: str, empty_database_url: str, tmp_path: Path
) -> None:
    other = "moved"
    migrate(empty_database_url, other)
    code, rows, err = program("psql", "-XqAt", "-f", "sql/ops/rows.psql", "-d", filled_url)
    assert (code, err) == (0, "")
    file = tmp_path / "rows.sql"
    file.write_text(rows, encoding="utf-8")
    command = ("psql", "-Xq1", "-v", "ON_ERROR_STOP=1", "-f", str(file), "-d", empty_database_url)

    assert program(*command, schema=other) == (0, "", "")

    moved = contents(empty_database_url, other)
    assert moved == contents(filled_url)
    assert sum(map(len, moved.values())) > 20
    assert [each.name for each in verify(empty_database_url, other) if not each.ok] == []
    with psycopg.connect(empty_database_url) as connection:
        (next_id,) = connection.execute(
            "select nextval(pg_get_serial_sequence('moved.sync_run', 'run_id')), "
            "max(run_id) + 1 from moved.sync_run"
        ).fetchall()
    assert next_id[0] == next_id[1]

    code, _, err = program(*command, schema=other)
    assert code != 0
    assert "duplicate key" in err
    assert contents(empty_database_url, other) == moved


def test_a_dump_is_restored_where_no_schema_is_yet(
    filled_url: str, empty_database_url: str, tmp_path: Path, postgres_major: str
) -> None:
    # A newer pg_restore writes settings that an older server refuses.
    of_server = POSTGRES_15 if postgres_major == "15" else None
    dump = str(tmp_path / "history.dump")
    made = ("--format=custom", "--schema=kaltura", f"--file={dump}", filled_url)
    restore = (
        "pg_restore",
        "--exit-on-error",
        "--no-owner",
        "--no-privileges",
        "-d",
        empty_database_url,
        dump,
    )
    assert program("pg_dump", *made, folder=of_server)[0] == 0
    migrate(empty_database_url)

    code, _, err = program(*restore, folder=of_server)
    assert code != 0
    assert "already exists" in err

    with psycopg.connect(empty_database_url) as connection:
        connection.execute("drop schema kaltura cascade")
    assert program(*restore, folder=of_server)[::2] == (0, "")
    assert contents(empty_database_url) == contents(filled_url)
    assert [each.name for each in verify(empty_database_url) if not each.ok] == []
