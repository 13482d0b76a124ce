"""A replayed archive is the warehouse that it came from, byte for byte, at every prefix."""

from __future__ import annotations

import random
import zlib
from collections import Counter
from dataclasses import replace
from pathlib import Path
from urllib.parse import urlsplit

import msgspec
import pytest

from etl.run.plan import SyncOptions
from etl.simulator import SimulatorServer, generate_account
from tests.support.archive import (
    Life,
    archived,
    assert_same_dump,
    assert_verified,
    check,
    copied_database,
    dump,
    keeping,
    replay_into,
)
from tests.support.databases import with_database
from tests.support.job import Job, tell

NIGHTS = 6
FAULTS = ("bom", "more-rows", "total-wrong", "total-missing", "unordered-page")


class Dumps:
    """A dump for each published run, compressed: there are hundreds of megabytes of them."""

    def __init__(self) -> None:
        self._packed: dict[int, bytes] = {}

    def add(self, run_id: int, database_url: str) -> None:
        self._packed[run_id] = zlib.compress(msgspec.msgpack.encode(dump(database_url)), 1)

    def run_ids(self) -> list[int]:
        return list(self._packed)

    def of(self, run_id: int) -> dict[str, bytes]:
        return msgspec.msgpack.decode(zlib.decompress(self._packed[run_id]), type=dict[str, bytes])


def live_archived(
    database_url: str,
    archive: Path,
    *,
    tokens: int,
    nights: int,
    page_cap: int,
    seed: int,
    faults: tuple[str, ...] = FAULTS,
) -> Dumps:
    """Nights of an account with all that can happen; the dump after each published run."""
    dumps = Dumps()
    account = generate_account(tokens, seed=seed)
    rng = random.Random(seed)
    with SimulatorServer(account, page_cap=page_cap, seed=seed, shuffle_ties=True) as server:
        job = archived(server, database_url, archive)
        life = Life(server)
        for night in range(nights):
            if night:
                server.faults.schedule(faults, where="list", rate=0.1)
            if night % 3 == 1:
                life.fail_after(rng.randrange(10, tokens // page_cap))
            report = life.night(job, seed * 1_000 + night)
            server.faults.clear()
            dumps.add(report.run_id, database_url)
            if night % 2:
                report = life.some_run(job, seed + night // 2)
                dumps.add(report.run_id, database_url)
            if rng.random() < 0.3:
                # A dry run takes a number, and leaves nothing in the archive.
                job.run(options=SyncOptions(dry_run=True))
            if rng.random() < 0.3:
                report = job.run()  # nothing happened
                dumps.add(report.run_id, database_url)
    return dumps


def assert_replayed_at_every_prefix(
    database_url: str, template_url: str, archive: Path, dumps: Dumps
) -> None:
    empty = urlsplit(template_url).path[1:]
    original = Job("http://127.0.0.1:9", database_url, 102, "no-service", {})
    with copied_database(template_url, empty) as url:
        job = replace(original, database_url=url)
        for run_id in dumps.run_ids():
            report = replay_into(job, [archive], "kaltura", until=run_id)
            assert [run.run_id for run in report.runs] == [run_id]
            assert_same_dump(dump(url), dumps.of(run_id))
        assert_verified(url)
    # At once, from nothing.
    with copied_database(template_url, empty) as url:
        report = replay_into(replace(original, database_url=url), [archive], "kaltura")
        assert [run.run_id for run in report.runs] == dumps.run_ids()
        assert not any(run.differs for run in report.runs)
        assert_same_dump(dump(url), dump(database_url))
    found = check(original, archive)
    assert (found.equal, found.notes) == (True, [])


@pytest.fixture
def template_url(postgres_url: str, template_database: str) -> str:
    """An empty, migrated warehouse, to be copied."""
    return with_database(postgres_url, template_database)


def tell_what_happened(database_url: str) -> None:
    """Figures of the nights; there must have been runs of all modes, and resumed ones."""
    job = Job("http://127.0.0.1:9", database_url, 102, "no-service", {})
    runs = [run for run in job.runs() if run["published_at"] is not None]
    modes = Counter(run["mode"] for run in runs)
    (compared,) = job.query("select array_agg(distinct compared_by) as by from kaltura.sync_page")
    assert {*compared["by"]} == {None, "columns", "fingerprint"}
    resumed = sum(run["walk_id"] != run["run_id"] for run in runs)
    sizes = {name: len(body) for name, body in dump(database_url).items()}
    tell({"published": modes, "resumed": resumed, "bytes": sizes})
    assert modes.keys() == {"full", "incremental", "backfill"}
    assert resumed


def test_nights_come_back_byte_for_byte(
    database_url: str, template_url: str, tmp_path: Path
) -> None:
    archive = tmp_path / "archive"
    dumps = live_archived(database_url, archive, tokens=700, nights=NIGHTS, page_cap=50, seed=3)
    assert_verified(database_url)
    tell_what_happened(database_url)

    assert_replayed_at_every_prefix(database_url, template_url, archive, dumps)


def test_a_check_does_not_ask_for_digests(
    database_url: str, template_url: str, tmp_path: Path
) -> None:
    """They may be missing, as after an erasure; whether they are right is asked by verify."""
    with keeping(database_url, template_url, tmp_path / "archive") as kept:
        for seed in (1, 2):
            kept.life.night(kept.job, seed)
        kept.job.query("update kaltura.upload_token set digest = null where status = 3")
        found = check(kept.job, kept.archive)
    assert (found.equal, found.notes) == (True, [])


@pytest.mark.campaign
@pytest.mark.timeout(3_600)
def test_sixty_nights_come_back_byte_for_byte(
    database_url: str, template_url: str, tmp_path: Path
) -> None:
    archive = tmp_path / "archive"
    dumps = live_archived(
        database_url,
        archive,
        tokens=3_000,
        nights=60,
        page_cap=100,
        seed=7,
        faults=(*FAULTS, "truncated-json"),
    )
    assert_verified(database_url)
    tell_what_happened(database_url)

    assert_replayed_at_every_prefix(database_url, template_url, archive, dumps)
