"""The asset of ``examples/dagster`` in Dagster itself."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.night import Night
from tests.support.tenants import tenants

RUNNER = Path(__file__).with_name("run_dagster.py")
GOOD, DOWN, LOCKED_OUT, REFUSED = "a01", "a02", "a03", "a04"

pytestmark = [pytest.mark.campaign, pytest.mark.timeout(900)]


@pytest.fixture
def night(database_url: str, tmp_path: Path) -> Iterator[Night]:
    with tenants(4, database_url, tmp_path) as many:
        yield Night(many, tmp_path)


def test_the_asset_in_dagster(dagster_programs: Path, night: Night) -> None:
    many = night.many
    night.write_settings(**{f"SECRET_{LOCKED_OUT}": "wrong"})
    many.faults = {many.partner(DOWN): "503-html", many.partner(REFUSED): "foreign-partner"}

    first = _materialize(dagster_programs, night, many.names)

    assert first[GOOD]["success"]
    assert first[GOOD]["metadata"]["inserted"] == 30
    assert night.runs(GOOD)[0]["label"] == first[GOOD]["label"]
    retries = {name: first[name]["retries"] for name in many.names}
    assert retries == {GOOD: 0, DOWN: 2, LOCKED_OUT: 0, REFUSED: 0}
    assert not any(first[name]["success"] for name in (DOWN, LOCKED_OUT, REFUSED))
    assert first[REFUSED]["failed"][0].startswith("exit code 65: ")
    assert first[LOCKED_OUT]["failed"][0].startswith("exit code 77: ")
    assert not first["check"]["passed"]
    assert first["check"]["hours"][DOWN] is None
    assert first["nightly"] == many.names

    night.write_settings()
    many.faults = {}
    second = _materialize(dagster_programs, night, [DOWN, LOCKED_OUT, REFUSED])

    assert all(second[name]["success"] for name in (DOWN, LOCKED_OUT, REFUSED))
    assert second["check"]["passed"]
    assert many.rows() == many.truth()


def _materialize(programs: Path, night: Night, accounts: list[str]) -> dict[str, Any]:
    done = subprocess.run(
        [programs / "python", RUNNER, json.dumps(accounts)],
        env={
            "PATH": os.environ.get("PATH", ""),
            "HOME": str(night.folder),
            "DAGSTER_DISABLE_TELEMETRY": "1",
            "PYTHONDONTWRITEBYTECODE": "1",
            **night.environment(),
        },
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout.splitlines()[-1])
    assert isinstance(told, dict)
    return told
