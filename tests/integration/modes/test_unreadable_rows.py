"""Rows of the list on which the service fails, night after night."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

import pytest

from etl.run.plan import SyncOptions
from etl.simulator import SimulatorServer, generate_account
from tests.support.job import Job, listed, requests_of

pytestmark = pytest.mark.usefixtures("no_retry_waits")

PLACES = (310, 777, 1_203)


@pytest.fixture
def server() -> Iterator[SimulatorServer]:
    """Three rows cannot be read, each the only one of its second."""
    with SimulatorServer(generate_account(2_000, seed=4)) as running:
        tokens = listed(running)
        in_second = Counter(fields["createdAt"] for fields in tokens)
        running.configure(
            poison=[
                next(f["id"] for f in tokens[place:] if in_second[f["createdAt"]] == 1)
                for place in PLACES
            ]
        )
        yield running


def test_the_next_night_goes_straight_to_the_rows_that_cannot_be_read(
    server: SimulatorServer, database_url: str
) -> None:
    """Although tokens before two of them have gone.  The page that fails is asked for four times:
    it is sent three times, and once without autoFinalize."""
    job = Job.of(server, database_url, ETL_ABSENCE_GRACE="0s")
    sent = []
    for poison in (True, True, False):
        if not poison:
            server.configure(poison=[])
        mark = len(server.service.log)
        report = job.run()
        assert report.unreadable == (len(PLACES) if poison else 0)
        sent.append(requests_of(server, mark))
        for fields in listed(server)[400:410]:
            server.account.delete(fields["id"])
    holes = [run["holes"] for run in job.runs()]
    assert holes[0] == holes[1]
    assert [hole["tokens"] for hole in holes[0]] == [1, 1, 1]
    first, again = ((requests - sent[-1]) / len(PLACES) for requests in sent[:2])
    assert first > 14
    assert again <= 10


@pytest.mark.parametrize("compare", ["fingerprint", "full"])
def test_tokens_in_the_second_of_an_unreadable_one_are_counted_as_read(
    database_url: str, compare: str
) -> None:
    """Whether they are as known or have changed: only the latter were counted."""
    account = generate_account(54, seed=2)
    with SimulatorServer(account) as server:
        pattern = listed(server)[27]
        for number in range(6):
            account.insert(pattern | {"id": f"tied{number}"})
        job = Job.of(server, database_url)
        job.run()
        server.configure(poison=["tied3"])
        server.account.change("tied4", {"fileName": "renamed"})
        counts = []
        for _ in range(2):
            report = job.run(options=SyncOptions(compare=compare))
            counts.append((report.changed, report.unchanged, report.tokens_read))
            assert (report.unreadable, report.absent) == (1, 0)
    assert counts == [(1, 58, 59), (0, 59, 59)]
