"""One command on real input: the recorded account, read over HTTP, published, and left alone."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from etl.simulator import SimulatorServer, account_from_file
from tests.support.job import ACCOUNT_102, Job, listed, tell, wait_until
from tests.support.model import VALUES, assert_same, columns_of
from tests.support.pgbouncer import pgbouncer
from tests.support.wal import install_wal_inspect, wal_of_tables, wal_position

ZERO_DATE = "0_54a07a7b489ceda16fceaf83bb66450e"
TWIN = "0_cb6fd55bd6476978f72f8c50fbf96ff7"
LEFT_ALONE = ("upload_token", "upload_token_superseded", "upload_token_staging")


@pytest.fixture
def account_102(tmp_path: Path) -> Iterator[SimulatorServer]:
    """The whole account of partner 102 as a live server listed it: 1,751 rows, 1,750 ids."""
    path = tmp_path / "account-102.json"
    path.write_bytes(gzip.decompress(ACCOUNT_102.read_bytes()))
    with SimulatorServer(account_from_file(path)) as server:
        yield server


def assert_every_row_is_accounted_for(job: Job, server: SimulatorServer) -> None:
    served = listed(server)
    assert len(served) == 1751

    run_id = job.last_run()["run_id"]
    rejected = {
        (row["token_id"], row["created_second"]): row["reason"] for row in job.rejected(run_id)
    }
    older_twin = min(fields["createdAt"] for fields in served if fields["id"] == TWIN)
    assert rejected == {
        (ZERO_DATE, -62169966238): "created_at_zero_date",
        (TWIN, older_twin): "duplicate_id",
    }

    expected = {
        fields["id"]: columns_of(fields)
        for fields in served
        if (fields["id"], fields["createdAt"]) not in rejected
    }
    found = {
        token_id: {name: row[name] for name in VALUES} for token_id, row in job.current().items()
    }
    assert_same(found, expected)
    assert len(found) + len(rejected) == 1751


@pytest.mark.postgres15
def test_the_recorded_account_is_published_and_a_second_run_writes_nothing(
    account_102: SimulatorServer, database_url: str
) -> None:
    job = Job.of(account_102, database_url)
    for table in LEFT_ALONE:  # its vacuum would count dead rows away
        job.query(f"alter table kaltura.{table} set (autovacuum_enabled = off)")
    first = job.call()
    assert first.code == 0, first.err
    assert_every_row_is_accounted_for(job, account_102)
    assert first.report["inserted"] == 1749
    assert first.report["coverage"] == "{(,)}"
    tells_wal = install_wal_inspect(job.query)
    before, rows = _quiet_writes(job), _row_versions(job)
    start = wal_position(job.query)

    second = job.call()

    assert second.code == 0, second.err
    wal = wal_of_tables(job.query, start) if tells_wal else None
    counts = {name: second.report[name] for name in ("inserted", "changed", "absent", "relisted")}
    assert counts == dict.fromkeys(counts, 0)
    # The zero date is read and not loaded; the older twin likewise.
    assert (second.report["unchanged"], second.report["rejected"]) == (1749, 2)
    assert_every_row_is_accounted_for(job, account_102)
    assert _row_versions(job) == rows
    after = _quiet_writes(job)
    for table in LEFT_ALONE:
        assert after[table] == before[table], table
    assert after["upload_token"]["dead"] == after["upload_token_superseded"]["dead"] == 0
    if wal is not None:
        assert not wal.keys() & set(LEFT_ALONE)
        tell(wal)


@pytest.mark.pgbouncer
def test_the_recorded_account_through_pgbouncer(
    account_102: SimulatorServer, database_url: str, pgbouncer_program: str, private_folder: Path
) -> None:
    direct = Job.of(account_102, database_url)
    with pgbouncer(pgbouncer_program, private_folder, database_url) as url:
        job = Job.of(account_102, url)
        first = job.call()
        assert first.code == 0, first.err
        assert_every_row_is_accounted_for(direct, account_102)
        rows = _row_versions(direct)

        second = job.call()

    assert second.code == 0, second.err
    assert _row_versions(direct) == rows
    assert second.report["unchanged"] == 1749


def test_a_name_that_cannot_be_stored_is_mended_and_not_refused(
    account_102: SimulatorServer, database_url: str
) -> None:
    names = ["nul \0", "half \ud83d", "\udcff", "emoji 😀", "", " ", "a" * 5000, None]
    for number, name in enumerate(names):
        # The simulator writes surrogates as a server does: as an escape in the JSON.
        text = "null" if name is None else json.dumps(name)
        body = (
            f'{{"id":"odd{number}","partnerId":102,"status":3,"fileName":{text},'
            f'"createdAt":{1_700_000_000 + number},"objectType":"KalturaUploadToken"}}'
        )
        account_102.account.insert_raw(f"odd{number}", 1_700_000_000 + number, body.encode())

    Job.of(account_102, database_url).run()

    current = Job.of(account_102, database_url).current()
    found = [current[f"odd{number}"]["file_name"] for number in range(len(names))]
    assert found == ["nul �", "half �", "�", "emoji 😀", "", " ", "a" * 5000, None]


def _row_versions(job: Job) -> list[tuple[Any, ...]]:
    """Where each row lies and who wrote it: not one of them may be written again."""
    return [
        tuple(row.values())
        for table in LEFT_ALONE
        for row in job.query(f"select '{table}', ctid, xmin from kaltura.{table} order by ctid")  # noqa: S608
    ]


def _quiet_writes(job: Job) -> dict[str, dict[str, int]]:
    """The statistics when the program's connections are gone: they tell as they go."""
    others = (
        "select count(*) as n from pg_stat_activity where datname = current_database() "
        "and pid <> pg_backend_pid() and backend_type = 'client backend'"
    )
    wait_until(lambda: job.query(others)[0]["n"] == 0)
    return job.writes()
