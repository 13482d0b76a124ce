"""``check``: proves each part against a stand-in for the service, and shows no secret."""

from __future__ import annotations

import base64
import json
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import quote

import pytest

from etl.simulator import SimulatorServer, generate_account

Run = Callable[..., "subprocess.CompletedProcess[str]"]
SECRET = "canary0123456789abcdef0123456789"


@pytest.fixture(scope="module")
def server() -> Iterator[SimulatorServer]:
    account = generate_account(200, seed=1, partner_id=102)
    with SimulatorServer(account, admin_secret=SECRET) as running:
        yield running


def parts_of(done: subprocess.CompletedProcess[str]) -> dict[str, dict[str, object]]:
    return {part["part"]: part for part in json.loads(done.stdout)["parts"]}


def test_proves_service_and_session(
    run: Run, server: SimulatorServer, clean_environment: dict[str, str]
) -> None:
    done = run(
        "check",
        "--json",
        KALTURA_SERVICE_URL=server.url,
        KALTURA_PARTNER_ID="102",
        KALTURA_ADMIN_SECRET=SECRET,
        ETL_EMBEDDED="yes",
    )

    parts = parts_of(done)
    assert done.returncode == 0, done
    assert {name: part["state"] for name, part in parts.items()} == {
        "settings": "ok",
        "service reachable": "ok",
        "session valid, of admin type": "ok",
        "database reachable": "skipped",
        "connection encrypted": "skipped",
        "database writable": "skipped",
        "database clock": "skipped",
        "schema version": "skipped",
        "schema objects": "skipped",
        "privileges": "skipped",
        "retention": "skipped",
        "tables": "skipped",
    }
    assert "200 tokens" in str(parts["session valid, of admin type"]["detail"])
    assert not Path(clean_environment["ETL_DATA_DIR"]).exists()


@pytest.mark.parametrize(
    ("variables", "code", "part"),
    [
        ({"KALTURA_PARTNER_ID": "103"}, 77, "session valid, of admin type"),
        ({"KALTURA_ADMIN_SECRET": "wrong-wrong"}, 77, "session valid, of admin type"),
        (
            {"KALTURA_SERVICE_URL": "http://127.0.0.1:1", "ETL_RETRY_ATTEMPTS": "1"},
            69,
            "service reachable",
        ),
        ({"KALTURA_KS": "k"}, 78, "settings"),
        ({"KALTURA_PARTNER_ID": "x"}, 78, "settings"),
    ],
)
def test_the_first_part_that_fails_gives_the_exit_code(
    run: Run, server: SimulatorServer, variables: dict[str, str], code: int, part: str
) -> None:
    environment = {
        "KALTURA_SERVICE_URL": server.url,
        "KALTURA_PARTNER_ID": "102",
        "KALTURA_ADMIN_SECRET": SECRET,
        "ETL_EMBEDDED": "yes",
    } | variables
    done = run("check", "--json", **environment)

    failed = [name for name, found in parts_of(done).items() if found["state"] == "failed"]
    assert done.returncode == code
    assert failed == [part]
    assert SECRET not in done.stdout + done.stderr


def test_each_setting_is_shown_with_its_source_and_secrets_as_stars(
    run: Run, tmp_path: Path
) -> None:
    variables = tmp_path / "variables"
    variables.touch(mode=0o600)
    variables.write_text(f"KALTURA_KS={SECRET}\n")
    done = run(
        "check",
        "--json",
        "--partner-id",
        "7",
        VARIABLE_FILE=str(variables),
        DATABASE_URL=f"postgresql://u:{SECRET}@127.0.0.1:1/d",
        ETL_RETRY_ATTEMPTS="1",
        KALTURA_SERVICE_URL="http://127.0.0.1:1",
    )

    rows = {
        row["name"]: (row["value"], row["source"]) for row in json.loads(done.stdout)["settings"]
    }
    assert rows["KALTURA_KS"] == ("***", f"file {variables}")
    assert rows["KALTURA_PARTNER_ID"] == ("7", "flag --partner-id")
    assert rows["DATABASE_URL"] == ("postgresql://u:***@127.0.0.1:1/d", "environment")
    assert rows["ETL_PAGE_SIZE"] == ("500", "default")


@pytest.mark.parametrize("command", ["check", "sync"])
@pytest.mark.parametrize("log_format", ["json", "text"])
def test_no_secret_gets_out_at_debug(
    run: Run, server: SimulatorServer, command: str, log_format: str
) -> None:
    everything = ""
    for name in ("KALTURA_ADMIN_SECRET", "KALTURA_KS", "KALTURA_APP_TOKEN", "DATABASE_URL"):
        given = {
            "KALTURA_APP_TOKEN_ID": "0_abc" if name == "KALTURA_APP_TOKEN" else "",
            name: f"postgresql://u:{SECRET}@127.0.0.1:1/d" if name == "DATABASE_URL" else SECRET,
            # Nothing is to be published, should the secret be right.
            "DATABASE_URL": f"postgresql://u:{SECRET}@127.0.0.1:1/d",
        }
        done = run(
            command,
            "--verbose",
            KALTURA_SERVICE_URL=server.url,
            KALTURA_PARTNER_ID="102",
            ETL_LOG_FORMAT=log_format,
            ETL_RETRY_ATTEMPTS="1",
            **given,
        )
        assert done.returncode != 0
        everything += done.stdout + done.stderr

    whole = base64.b64encode(SECRET.encode()).decode()
    for form in (SECRET, SECRET[6:22], quote(SECRET), whole[:-4], SECRET.encode().hex(), "djJ8"):
        assert form not in everything
