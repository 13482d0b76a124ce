"""A second with more tokens than a page, some of which come and go between any two requests."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict

import pytest

from etl.cli.tables import report_tables, text_of
from etl.simulator import SimulatorServer, generate_account
from etl.simulator.faults import RequestInfo
from tests.support.job import Job, listed
from tests.support.model import Row

PAGE_SIZE = 20
TOKENS = 60
BUSY = 50


@pytest.fixture
def server() -> Iterator[SimulatorServer]:
    account = generate_account(TOKENS, seed=2)
    with SimulatorServer(account) as running:
        middle = listed(running)[TOKENS // 2]
        for number in range(BUSY):
            account.insert(middle | {"id": f"busy{number:03}"})
        yield running


def keep_busy(server: SimulatorServer) -> None:
    """Before each reply a token of the second goes and another one comes."""
    pattern: Row = next(f for f in listed(server) if f["id"] == "busy000")
    changes = 0

    def change(info: RequestInfo) -> None:
        nonlocal changes
        if info.action == "list":
            server.account.insert(pattern | {"id": f"more{changes:04}"})
            if changes:
                server.account.delete(f"more{changes - 1:04}")
            changes += 1

    server.faults.decide_by = change


def test_it_is_a_hole_and_its_known_tokens_are_looked_up_by_id(
    server: SimulatorServer, database_url: str
) -> None:
    job = Job.of(
        server,
        database_url,
        ETL_PAGE_SIZE=str(PAGE_SIZE),
        ETL_CONCURRENCY="1",
        ETL_ABSENCE_GRACE="0s",
    )
    job.run()
    elsewhere = listed(server)[3]["id"]
    server.account.delete("busy007")
    for token_id in ("busy008", elsewhere):
        server.account.change(token_id, {"fileName": "renamed"})
    keep_busy(server)
    mark = len(server.service.log)

    report = job.run()

    (hole,) = [hole for hole in report.holes if hole["tokens"]]
    assert (hole["reason"], hole["tokens"], report.unreadable) == ("tie_group", 1, 1)
    summary = text_of(report_tables(asdict(report)), width=100, terminal=False)
    assert "seconds changing 1" in " ".join(summary.split())
    assert (report.status, report.absent) == ("succeeded", 1)
    current = job.current()
    assert not current["busy007"]["is_listed"]
    for token_id in ("busy008", elsewhere):
        assert current[token_id]["file_name"] == "renamed"
    asked = {
        token_id
        for record in list(server.service.log)[mark:]
        if record.position == "idIn"
        for token_id in (record.filter or {})["idIn"].split(",")
    }
    assert {f"busy{number:03}" for number in range(BUSY)} <= asked
