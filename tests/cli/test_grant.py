"""``grant`` as a program: what it prints, what it changes, how it says no; then ``check``."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.roles import Roles, roles_of

Run = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def roles(database_url: str) -> Iterator[Roles]:
    with roles_of(database_url) as made:
        for kind in ("loader", "analyst", "auditor"):
            made.names[kind] = made.create(prefix=kind)
        yield made


@pytest.fixture
def grant(run: Run, roles: Roles) -> Run:
    """``grant("--loader", "--apply")``: a kind becomes an option with the name of its role."""

    def call(*words: str) -> subprocess.CompletedProcess[str]:
        arguments: list[str] = []
        for word in words:
            name = roles.names.get(word.removeprefix("--"))
            arguments += [word] if name is None else [word, name]
        return run("grant", *arguments, DATABASE_URL=roles.owner_url)

    return call


def privileges(run: Run, url: str) -> dict[str, Any]:
    """What ``check`` says of the role of ``url``."""
    done = run("check", "--json", DATABASE_URL=url)
    (found,) = [p for p in json.loads(done.stdout)["parts"] if p["part"] == "privileges"]
    assert isinstance(found, dict)
    return found


def test_without_apply_it_prints_what_psql_takes_and_changes_nothing(
    grant: Run, roles: Roles
) -> None:
    before = roles.fingerprint()

    done = grant("--loader", "--analyst", "--auditor")

    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("-- Not executed (--apply does that):\nbegin;\n")
    assert done.stdout.endswith("\ncommit;\n")
    assert roles.fingerprint() == before
    roles.owner(done.stdout)
    applied = roles.fingerprint()
    assert applied != before
    assert grant("--loader", "--analyst", "--auditor", "--apply").returncode == 0
    assert roles.fingerprint() == applied


def test_the_result_as_json(grant: Run, roles: Roles) -> None:
    done = grant("--analyst", "--json")
    result = json.loads(done.stdout)

    names = ("status", "applied", "schema", "roles", "accounts", "warnings")
    assert {key: result[key] for key in names} == {
        "status": "succeeded",
        "applied": False,
        "schema": "kaltura",
        "roles": {"analyst": roles.names["analyst"]},
        "accounts": None,
        "warnings": [],
    }
    assert all(each.startswith(("revoke ", "grant ")) for each in result["statements"])
    applied = json.loads(grant("--analyst", "--json", "--apply").stdout)
    assert applied == result | {"applied": True}

    limited = json.loads(grant("--analyst", "--accounts", "102, 101", "--apply", "--json").stdout)
    assert limited["accounts"] == [101, 102]
    assert any(each.startswith("create policy ") for each in limited["statements"])
    lifted = json.loads(grant("--analyst", "--accounts", "all", "--apply", "--json").stdout)
    assert lifted["accounts"] is None
    assert any(each.startswith("drop policy ") for each in lifted["statements"])


def test_check_before_and_after(run: Run, grant: Run, roles: Roles) -> None:
    before = privileges(run, roles.url("loader"))
    assert (before["state"], before["exit_code"]) == ("failed", 77)
    assert "missing: USAGE on schema kaltura" in before["detail"]
    assert "kaltura-etl grant --loader ROLE --apply" in before["detail"]

    grant("--loader", "--analyst", "--apply")

    after = privileges(run, roles.url("loader"))
    assert (after["state"], after["exit_code"]) == ("ok", 0)
    owner = privileges(run, roles.owner_url)
    assert (owner["state"], owner["exit_code"]) == ("warning", 0)
    assert "is a superuser, so it could change the past" in owner["detail"]
    analyst = privileges(run, roles.url("analyst"))
    assert analyst["state"] == "failed"
    assert "INSERT on kaltura.upload_token" in analyst["detail"]

    roles.owner("create view kaltura.later with (security_invoker) as table kaltura.sync_run")

    later = privileges(run, roles.url("loader"))
    assert (later["state"], later["exit_code"]) == ("warning", 0)
    assert f"role {roles.names['analyst']} may not read later" in later["detail"]


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        ([], 2, "Name a role: --loader ROLE, --analyst ROLE or --auditor ROLE."),
        (["--loader", ""], 2, "must not be empty"),
        (["--loader", "nobody_here"], 78, 'create role "nobody_here" login'),
        (["--loader", "public"], 2, "Postgres' own"),
        (["--analyst", "one", "--accounts", "101,x"], 2, "must be a whole number"),
        (["--loader", "one", "--analyst", "one"], 2, "cannot be both"),
        (["--loader", "postgres", "--apply"], 78, "is a superuser: no grant can hold it back"),
    ],
)
def test_what_it_refuses(
    run: Run, database_url: str, arguments: list[str], code: int, said: str
) -> None:
    done = run("grant", *arguments, DATABASE_URL=database_url)
    assert (done.returncode, done.stdout) == (code, "")
    assert said in json.loads(done.stderr.splitlines()[-1])["event"]

    told = json.loads(run("grant", "--json", *arguments, DATABASE_URL=database_url).stdout)
    assert (told["status"], told["exit_code"]) == ("failed", code)
    assert said in told["error_message"]


def test_another_role_may_not_apply(run: Run, roles: Roles) -> None:
    done = run(
        "grant", "--analyst", roles.names["analyst"], "--apply", DATABASE_URL=roles.url("loader")
    )
    assert done.returncode == 77, done.stderr  # it may not even read the schema's version

    roles.grant_all("auditor")
    done = run(
        "grant", "--analyst", roles.names["analyst"], "--apply", DATABASE_URL=roles.url("auditor")
    )
    assert done.returncode == 77
    assert "does not own the tables of schema kaltura" in done.stderr


def test_where_there_is_no_warehouse(run: Run, clean_environment: dict[str, str]) -> None:
    done = run("grant", "--loader", "somebody", ETL_EMBEDDED="yes")

    assert done.returncode == 78
    assert "There is no warehouse yet" in done.stderr
    assert not Path(clean_environment["ETL_DATA_DIR"]).exists()
