"""``kaltura-etl psql``: the warehouse of the settings, and no password where others can see it."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import psycopg
import pytest

from etl.settings.values import without_passwords
from tests.support import forked
from tests.support.pgbouncer import pgbouncer

Run = Callable[..., "subprocess.CompletedProcess[str]"]
WHERE = ("-XAt", "-c", "select current_database(), current_setting('search_path')")


def _database(url: str) -> str:
    return psycopg.conninfo.conninfo_to_dict(url)["dbname"] or ""  # type: ignore[return-value]


def _variable_file(folder: Path, **variables: str) -> str:
    path = folder / "account.env"
    path.write_text("".join(f"{name}={value}\n" for name, value in variables.items()))
    path.chmod(0o600)
    return str(path)


def test_it_opens_the_warehouse_of_the_variable_file(
    run: Run, empty_database_url: str, tmp_path: Path
) -> None:
    variables = _variable_file(tmp_path, DATABASE_URL=empty_database_url, ETL_SCHEMA="own_one")
    done = run("psql", *WHERE, VARIABLE_FILE=variables)

    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == f"{_database(empty_database_url)}|own_one,public\n"


def test_it_opens_the_embedded_postgres_of_the_variable_file(
    run: Run,
    clean_environment: dict[str, str],
    postgres_url: str,
    postgres_major: str,
    tmp_path: Path,
) -> None:
    """That of the tests themselves, which runs already."""
    folder = Path(os.environ["ETL_TEST_RUN_DIR"]) / postgres_major
    assert str(folder).replace("/", "%2F") in postgres_url
    del clean_environment["ETL_DATA_DIR"]
    own = {"PG_BIN": "/usr/lib/postgresql/15/bin"} if postgres_major == "15" else {}
    variables = _variable_file(tmp_path, ETL_DATA_DIR=str(folder), ETL_EMBEDDED="yes")
    done = run("psql", *WHERE, VARIABLE_FILE=variables, **own)

    assert (done.returncode, done.stdout) == (0, "postgres|kaltura,public\n"), done.stderr


def test_an_option_names_the_schema_and_the_rest_is_for_psql(
    run: Run, empty_database_url: str
) -> None:
    arguments = ("--schema", "kaltura_demo", "-q", "-v", "x=1", *WHERE, "-c", "\\echo :x")
    done = run("psql", *arguments, DATABASE_URL=empty_database_url)

    assert done.stdout == f"{_database(empty_database_url)}|kaltura_demo,public\n1\n"


def test_no_password_is_on_the_command_line(run: Run, empty_database_url: str) -> None:
    url = empty_database_url.replace("://postgres@", "://postgres:can%2Fary@")
    assert "can%2Fary" in url
    seen = "\\! tr '\\0' ' ' </proc/$PPID/cmdline; echo; echo $PGPASSWORD"
    done = run("psql", "-X", "-c", seen, DATABASE_URL=url)

    command, password = done.stdout.splitlines()
    assert "--dbname postgresql://postgres@" in command
    assert "can" not in command.replace(seen, "")
    assert password == "can/ary"


@pytest.mark.parametrize(
    ("url", "address", "password", "options"),
    [
        ("postgresql://u:p%40@h:1/d", "postgresql://u@h:1/d", "p@", None),
        ("postgresql://u@h/d?password=q&x=1", "postgresql://u@h/d?x=1", "q", None),
        ("postgresql://u:p@h/d?password=q&sslpassword=r", "postgresql://u@h/d", "q", None),
        (
            "postgresql:///d?host=%2Frun&options=-c%20a%3Db",
            "postgresql:///d?host=%2Frun",
            None,
            "-c a=b",
        ),
        ("postgresql://h/d", "postgresql://h/d", None, None),
        ("postgresql://u:@a:1,b:2/d", "postgresql://u@a:1,b:2/d", None, None),
    ],
)
def test_what_goes_to_the_environment(
    url: str, address: str, password: str | None, options: str | None
) -> None:
    assert without_passwords(url) == (address, password, options)


@pytest.mark.parametrize("options", ["", "-c work_mem=5MB"])
def test_options_of_the_address_or_of_the_environment_are_kept(
    options: str, run: Run, empty_database_url: str
) -> None:
    show = ("-XAt", "-c", "select current_setting('work_mem'), current_setting('search_path')")
    url = empty_database_url + ("&options=-c%20work_mem%3D6MB" if not options else "")
    done = run("psql", *show, DATABASE_URL=url, PGOPTIONS=options)

    assert done.stdout == ("5MB" if options else "6MB") + "|kaltura,public\n"


@pytest.mark.pgbouncer
def test_a_pooler_that_takes_no_search_path_is_used_without(
    run: Run, database_url: str, pgbouncer_program: str, private_folder: Path
) -> None:
    with pgbouncer(pgbouncer_program, private_folder, database_url) as through:
        show = ("-XAt", "-c", "select current_database(), count(*) from kaltura.sync_run")
        done = run("psql", *show, DATABASE_URL=through)

    assert (done.returncode, done.stdout) == (0, f"{_database(database_url)}|0\n")
    assert "write kaltura.upload_token" in done.stderr


def test_it_reads_standard_input_and_ends_as_psql_ends(
    clean_environment: dict[str, str], empty_database_url: str
) -> None:
    done = forked.call(
        *("psql", "-XAtq", "-v", "ON_ERROR_STOP=1"),
        env=clean_environment | {"DATABASE_URL": empty_database_url},
        typed="select 7;\nselect 1/0;\nselect 8;\n",
    )

    assert (done.returncode, done.stdout) == (3, "7\n")
    assert "division by zero" in done.stderr


def test_a_signal_reaches_the_shell(
    clean_environment: dict[str, str], empty_database_url: str
) -> None:
    with forked.start(
        *("psql", "-X", "-c", "select pg_sleep(60)"),
        env=clean_environment | {"DATABASE_URL": empty_database_url},
    ) as process:
        asleep = "select 1 from pg_stat_activity where query = 'select pg_sleep(60)'"
        with psycopg.connect(empty_database_url, autocommit=True) as connection:
            while connection.execute(asleep).fetchone() is None:
                time.sleep(0.02)
        process.send_signal(signal.SIGTERM)

    assert process.returncode == 128 + signal.SIGTERM


def test_without_psql_on_path_it_uses_that_of_the_embedded_postgres(
    run: Run, empty_database_url: str
) -> None:
    done = run("psql", *WHERE, DATABASE_URL=empty_database_url, PATH="/nonexistent")

    assert done.returncode == 0, done.stderr


def test_without_any_psql_it_says_what_to_install(
    run: Run, empty_database_url: str, tmp_path: Path
) -> None:
    for name in ("postgres", "initdb", "pg_ctl"):
        (tmp_path / name).touch(mode=0o755)
    done = run("psql", DATABASE_URL=empty_database_url, PATH="/nonexistent", PG_BIN=str(tmp_path))

    assert (done.returncode, done.stdout) == (78, "")
    assert "There is no psql program on this machine: install" in done.stderr


def test_it_makes_no_warehouse(run: Run, clean_environment: dict[str, str]) -> None:
    done = run("psql", *WHERE, ETL_EMBEDDED="yes")

    assert done.returncode == 78
    assert "There is no warehouse yet" in done.stderr
    assert not Path(clean_environment["ETL_DATA_DIR"]).exists()
