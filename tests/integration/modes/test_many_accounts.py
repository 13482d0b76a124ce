"""50 accounts in one warehouse, each read in every mode, the last of them new."""

from __future__ import annotations

from collections import Counter
from datetime import UTC, datetime
from pathlib import Path

import pytest

from etl.process.progress import NoProgress
from etl.process.stop import Stop
from etl.run.backfill import Range, backfill_ids, backfill_range
from etl.run.plan import SyncOptions
from etl.settings.read import load_settings
from etl.simulator import SimulatorServer, generate_account
from etl.verify.checks import verify
from tests.support.job import Job, ended, listed, tell
from tests.support.model import Model
from tests.support.plans import measured

ACCOUNTS = 50
TOKENS = 2_000
FIRST = 1_000
"""Number of the first account."""
WORK_MAX = 1.5
"""How much more rows the statements of the last account may touch than those of the first."""


def read_in_every_mode(number: int, url: str, archive: Path) -> Counter[str]:
    """First load, incremental run, backfills by range and by ids, full run; the work of all."""
    source = generate_account(TOKENS, seed=number, partner_id=FIRST + number)
    with SimulatorServer(source) as server:
        job = Job.of(server, url, ETL_ABSENCE_GRACE="0s", ETL_ARCHIVE=str(archive))
        settings = load_settings(environment=job.environment()).checked()
        options = SyncOptions(mode="backfill")
        ids = [token.id for token in source.line]
        with measured() as work:
            assert job.run().inserted == TOKENS
            for token_id in ids[-200:]:
                source.change(token_id, {"fileName": "incremental.mp4"})
            assert job.run(options=SyncOptions(mode="incremental")).changed > 0
            for token_id in ids[:200]:
                source.change(token_id, {"fileName": "range.mp4"})
            wanted = Range(None, datetime.fromtimestamp(source.line[300].created_at, UTC))
            by_range = backfill_range(settings, options, wanted, stop=Stop(), progress=NoProgress())
            assert by_range.changed >= 200
            for token_id in ids[900:1_000]:
                source.change(token_id, {"fileName": "ids.mp4"})
            by_ids = backfill_ids(
                settings, options, ids[900:1_100], stop=Stop(), progress=NoProgress()
            )
            assert by_ids.changed == 100
            for token_id in ids[500:600]:
                source.delete(token_id)
            assert job.run().absent == 100
        model = Model()
        model.night(listed(server))
        current = {key: row for key, row in job.current().items() if row["is_listed"]}
        assert current.keys() == model.current().keys()
        assert {key: row["file_name"] for key, row in current.items()} == {
            key: row["file_name"] for key, row in model.current().items()
        }
    return work


@pytest.mark.campaign
@pytest.mark.timeout(7_200)
def test_50_accounts_in_every_mode(database_url: str, tmp_path: Path) -> None:
    works = [read_in_every_mode(number, database_url, tmp_path) for number in range(ACCOUNTS)]
    first, last = works[0].total(), works[-1].total()
    tell({"accounts": ACCOUNTS, "tokens": TOKENS, "work_first": first, "work_last": last})
    assert last <= first * WORK_MAX
    assert [each.name for each in verify(database_url) if not each.ok] == []

    job = Job("http://127.0.0.1:1", database_url, FIRST + ACCOUNTS - 1, "unused")
    replaying = job.start_command("replay", str(tmp_path), "--into-schema", "again")
    done = ended(replaying, timeout=3_600)
    assert done.code == 0, done.err
    assert [each.name for each in verify(database_url, "again") if not each.ok] == []
    runs = "select count(*) as n from {}.sync_run where status = 'succeeded'"
    assert job.query(runs.format("again")) == job.query(runs.format("kaltura"))
