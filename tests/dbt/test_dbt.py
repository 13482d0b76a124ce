"""dbt itself reads ``sql/dbt/models/sources.yml``, on a warehouse that real runs have filled.

It connects as an analyst, with the rights that ``grant`` gives and a schema of its own.
"""

from __future__ import annotations

import json
import os
import secrets
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

import psycopg
import pytest
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict

from etl.simulator import SimulatorServer, generate_account
from etl.warehouse.access.grants import grant
from tests.support.job import Job
from tests.support.model import Row

ROOT = Path(__file__).resolve().parents[2]
PROJECT = Path(__file__).with_name("project")
RUNNER = Path(__file__).with_name("run_dbt.py")
UNKNOWN_STATUS = "source_relationships_kaltura_upload_token_status"

# dbt is slow to start, and on a busy machine more so; installing it comes on top.
pytestmark = [pytest.mark.campaign, pytest.mark.dbt, pytest.mark.timeout(900)]


class Dbt(Protocol):
    """``dbt(["parse"], ["test"])``: what became of each command."""

    def __call__(self, *commands: list[str]) -> list[Row]: ...


@pytest.fixture
def analyst(database_url: str) -> Iterator[str]:
    """A role with an analyst's rights and a schema for its models."""
    role = f"analyst_{secrets.token_hex(4)}"
    name = sql.Identifier(role)
    with psycopg.connect(database_url, autocommit=True) as connection:
        connection.execute(sql.SQL("create role {} login").format(name))
        connection.execute(sql.SQL("create schema analytics authorization {}").format(name))
        grant(database_url, "kaltura", {"analyst": role}, apply=True)
        yield role
        connection.execute(sql.SQL("drop owned by {} cascade").format(name))
        connection.execute(sql.SQL("drop role {}").format(name))


@pytest.fixture
def dbt(dbt_python: Path, database_url: str, analyst: str, tmp_path: Path) -> Dbt:
    project = tmp_path / "project"
    shutil.copytree(PROJECT, project)
    shutil.copy(ROOT / "sql" / "dbt" / "models" / "sources.yml", project / "models")
    where = conninfo_to_dict(database_url)

    def call(*commands: list[str]) -> list[Row]:
        done = subprocess.run(
            [str(dbt_python), str(RUNNER), json.dumps(commands)],
            env={
                "PATH": os.environ.get("PATH", ""),
                "HOME": str(tmp_path),
                "DO_NOT_TRACK": "1",
                "DBT_HOST": str(where["host"]),
                "DBT_USER": analyst,
                "DBT_DATABASE": str(where["dbname"]),
            },
            cwd=project,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=240,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        told = json.loads(done.stdout.splitlines()[-1])
        assert isinstance(told, list)
        return told

    return call


def test_dbt_parses_tests_and_builds_on_the_sources(dbt: Dbt, database_url: str) -> None:
    account = generate_account(400, seed=11)
    with SimulatorServer(account, seed=11) as server:
        job, life = Job.of(server, database_url), server.life()
        for _ in range(4):
            job.run()
            life.advance(24)
            life.delete_some_user()

    parse, freshness, run, tests = dbt(["parse"], ["source", "freshness"], ["run"], ["test"])

    for command in (parse, freshness, run, tests):
        assert command["success"], command
        assert command["deprecations"] == []
    assert freshness["statuses"] == {"pass": 2}
    assert run["statuses"] == {"success": 2}
    # Codes that Kaltura does not document are worth a warning, and the only one.
    assert all(UNKNOWN_STATUS in name for name in tests["not_passed"])
    assert tests["statuses"]["pass"] > 100
    (built,) = job.query("select count(*) from analytics.current_upload_tokens")
    (listed,) = job.query("select count(*) from kaltura.upload_token where is_listed")
    assert built["count"] == listed["count"] > 0

    # Two nights without a run.
    with psycopg.connect(database_url) as connection:
        connection.execute(
            "update kaltura.sync_run set published_at = published_at - interval '51 hours'"
        )
    (stale,) = dbt(["source", "freshness"])

    assert not stale["success"]
    assert stale["statuses"] == {"error": 2}
