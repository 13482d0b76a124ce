"""A warehouse of five nights, made once: names that somebody chose to do harm are among them."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import psycopg
import pytest

from etl.simulator import Life, SimulatorServer, generate_account
from tests.support import forked
from tests.support.job import Job
from tests.support.report_sample import HOSTILE
from tests.support.restamp import restamp_run
from tests.support.roles import own_database

NIGHTS = 5
TOKENS = 300
VANISHED = ("0_vanished_1", "0_vanished_2")
Report = Callable[..., "subprocess.CompletedProcess[str]"]


@dataclass(frozen=True)
class Lived:
    """The account that lived: where it is, and when each night was."""

    url: str
    partner_id: int
    nights: list[datetime]


@pytest.fixture(scope="session")
def lived(postgres_url: str, template_database: str) -> Iterator[Lived]:
    """Read-only for the tests: it is shared."""
    last = datetime.now(UTC).replace(microsecond=0) - timedelta(hours=3)
    nights = [last - timedelta(days=number) for number in reversed(range(NIGHTS))]
    account = generate_account(TOKENS, seed=11, now=int(nights[0].timestamp()), open_share=0.1)
    with (
        own_database(postgres_url, template_database) as url,
        SimulatorServer(account) as server,
        closing(psycopg.connect(url, autocommit=True)) as connection,
    ):
        # Nothing old is deleted or touched by chance: these tests look for certain old tokens.
        job, life = (
            Job.of(server, url),
            Life(account, seed=11, uploads_per_day=100, deletions_per_day=0),
        )
        for number, night in enumerate(nights):
            if number:
                life.advance(24)
            if number == 1:
                created = int(nights[0].timestamp())
                for age, text in enumerate(HOSTILE.values()):
                    # Stuck only since the last night: they are at the head of the list.
                    account.insert(
                        {
                            "id": f"0_hostile_{age}",
                            "fileName": text,
                            "userId": text,
                            "fileSize": 10**9,
                            "uploadedFileSize": 10**7 * age,
                            "status": 1,
                            "createdAt": created + 2 * 86_400 - 1_000 - age,
                            "updatedAt": created + 3 * 86_400 - 1_000,
                        }
                    )
                for token_id in VANISHED:
                    account.insert({"id": token_id, "status": 1, "createdAt": created})
            if number == 3:
                for token_id in VANISHED:
                    account.delete(token_id)
            report = job.run(ETL_ABSENCE_GRACE="0s")
            restamp_run(connection, report.run_id, night)
        yield Lived(url, account.partner_id, nights)


@pytest.fixture(scope="session")
def report(lived: Lived) -> Report:
    """``kaltura-etl report`` as a process of its own, on that warehouse unless told otherwise."""

    def call(*arguments: str, code: str = "", **variables: str) -> subprocess.CompletedProcess[str]:
        environment = forked.environment(DATABASE_URL=lived.url) | variables
        program = f"{code}\nfrom etl.cli import main\nmain()" if code else None
        return forked.call("report", *arguments, env=environment, code=program)

    return call


@pytest.fixture(scope="session")
def page(report: Report, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page of that warehouse, as the command writes it; the tests leave it as it is."""
    path = tmp_path_factory.mktemp("report") / "report.html"
    done = report("--output", str(path))
    assert done.returncode == 0, done.stderr
    return path
