"""``--requests-per-second`` is the limit of the whole job, however many accounts it reads."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path

import pytest

from tests.support import forked
from tests.support.tenants import tenants

PER_SECOND = 100
TURNS_TO_STANDARD_OUTPUT = """
import json
from etl.kaltura.request_rate import RequestRate
take_turn = RequestRate.take_turn
def told(rate, now):
    turn = take_turn(rate, now)
    print(json.dumps({"turn": turn}), flush=True)
    return turn
RequestRate.take_turn = told
from etl.cli import main
main()
"""


@pytest.mark.parametrize("command", [["sync"], ["backfill", "--from", "2020-01-01"]])
def test_the_accounts_of_a_job_share_it(
    command: list[str],
    database_url: str,
    clean_environment: dict[str, str],
    tmp_path: Path,
) -> None:
    with tenants(3, database_url, tmp_path) as many:
        job = forked.call(
            *(*command, "--all", "--json", "--requests-per-second", str(PER_SECOND)),
            env=clean_environment | many.environment(),
            code=TURNS_TO_STANDARD_OUTPUT,
        )
        sent = len(many.server.service.log)
    assert job.returncode == 0, job.stderr
    *told, report = job.stdout.splitlines()
    turns = sorted(json.loads(line)["turn"] for line in told)

    assert len(json.loads(report)["accounts"]) == 3
    assert len(turns) == sent
    assert all(one - other >= 0.99 / PER_SECOND for other, one in pairwise(turns))
