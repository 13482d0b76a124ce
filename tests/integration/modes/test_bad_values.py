"""A value that cannot be used costs only itself; a field that vanishes from most rows, the run.

Each test has a night published before; after it, ``verify`` must find nothing wrong.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from typing import Any

import msgspec
import pytest

from etl.errors import DataRefused
from etl.process.progress import NoProgress
from etl.process.stop import Stop
from etl.run.backfill import Range, backfill_range
from etl.run.plan import SyncOptions
from etl.settings.read import load_settings
from etl.simulator import SimulatorServer
from etl.verify.checks import verify
from etl.verify.source import verify_source
from tests.support.job import Job, listed
from tests.support.refusals import FIRST_SECOND, account_of_singles, break_half_way, refuse, spoil

TOKENS = 400
PAGE_SIZE = 40
BAD = 63
"""Many more than the limit of rejected rows."""
Change = Mapping[str, Any]


@pytest.fixture
def server() -> Iterator[SimulatorServer]:
    with SimulatorServer(account_of_singles(TOKENS)) as running:
        for token in list(running.account.line):
            running.account.change(
                token.id, {"userId": "anna", "fileSize": "9", "note": 1}, touch=False
            )
        yield running


@pytest.fixture
def job(server: SimulatorServer, database_url: str) -> Iterator[Job]:
    job = Job.of(server, database_url, ETL_ABSENCE_GRACE="0s", ETL_PAGE_SIZE=str(PAGE_SIZE))
    job.run()
    yield job
    assert [result for result in verify(job.database_url) if not result.ok] == []


@pytest.fixture(params=["fingerprint", "full"])
def options(request: pytest.FixtureRequest) -> SyncOptions:
    """Both ways to compare."""
    return SyncOptions(compare=request.param)


def some(server: SimulatorServer, count: int = BAD) -> list[str]:
    """Ids from all over the list."""
    ids = [fields["id"] for fields in listed(server)]
    return ids[:: len(ids) // count][:count]


def send(server: SimulatorServer, token_ids: Iterable[str], change: Change) -> None:
    for token_id in token_ids:
        assert server.account.change(token_id, change, touch=False)


def rename(server: SimulatorServer, old: str, new: str, token_ids: Iterable[str] = ()) -> None:
    """The service calls a field of these tokens, or of all, by another name."""
    for token_id in [*token_ids] or [fields["id"] for fields in listed(server)]:
        (token,) = server.account.find(token_id)
        fields = server.account.fields(token)
        assert server.account.change(token_id, {old: ..., new: fields[old]}, touch=False)


def counts(report: Any) -> tuple[int, ...]:
    return report.changed, report.unchanged, report.rejected, report.partly_loaded


def unobserved(job: Job) -> list[tuple[str, str]]:
    rows = job.query(
        "select token_id, reason from kaltura.unobserved_token where run_id = %s order by token_id",
        job.last_run()["run_id"],
    )
    return [(row["token_id"], row["reason"]) for row in rows]


# --- single values --------------------------------------------------------------------------------


BAD_VALUES: list[tuple[Change, str]] = [
    ({"updatedAt": 0}, "updated_at_out_of_range"),
    ({"updatedAt": -62169984000}, "updated_at_zero_date"),
    ({"fileSize": "12 MB"}, "file_size_invalid"),
    ({"userId": ["anna"]}, "user_id_invalid"),
    ({"deep": msgspec.json.decode(b"[" * 70 + b"]" * 70)}, "extra_nested_too_deeply"),
    ({"fileName": ..., "FileName": "film.mp4"}, "file_name_other_case"),
]


def test_the_known_value_is_kept_and_the_row_as_it_was_sent(
    server: SimulatorServer, job: Job, options: SyncOptions
) -> None:
    before = job.everything()
    bad = dict(zip(some(server), BAD_VALUES * BAD, strict=False))
    for token_id, (change, _) in bad.items():
        send(server, [token_id], change)

    for _ in range(2):
        report = job.run(options=options)

        assert counts(report) == (0, TOKENS, 0, BAD)
        assert job.everything() == before
        assert unobserved(job) == []
        rejected = job.rejected(report.run_id)
        assert {row["token_id"]: (row["reason"], bytes(row["payload"])) for row in rejected} == {
            token_id: (reason, server.account.find(token_id)[0].body)
            for token_id, (_, reason) in bad.items()
        }


def test_what_else_the_row_tells_is_loaded(
    server: SimulatorServer, job: Job, options: SyncOptions
) -> None:
    bad = some(server)
    send(server, bad, {"updatedAt": 0, "status": 6})

    report = job.run(options=options)

    assert counts(report) == (BAD, TOKENS - BAD, 0, BAD)
    for token_id in bad:
        (row,) = job.query("select * from kaltura.upload_token where token_id = %s", token_id)
        assert row["changed_columns"] == ["status"]
        assert row["updated_at"] == row["created_at"]
    assert job.run(options=options).changed == 0


def test_an_unknown_token_is_loaded_without_the_value(
    server: SimulatorServer, job: Job, options: SyncOptions
) -> None:
    """But not without its status: nothing would be known of its state."""
    second = FIRST_SECOND + 7
    new = {"createdAt": second, "updatedAt": second, "fileName": "new.mp4"}
    server.account.insert({"id": "sized", **new, "fileSize": "big"})
    server.account.insert({"id": "closed", **new, "status": "closed"})

    report = job.run(options=options)

    assert (report.inserted, report.rejected, report.partly_loaded) == (1, 1, 1)
    row = job.current()["sized"]
    assert (row["file_size_bytes"], row["file_name"]) == (None, "new.mp4")
    assert "closed" not in job.current()
    assert counts(job.run(options=options)) == (0, TOKENS + 1, 1, 1)
    send(server, ["sized", "closed"], {"fileSize": "9", "status": 3})
    report = job.run(options=options)
    assert (report.inserted, *counts(report)) == (1, 1, TOKENS, 0, 0)
    assert job.current()["closed"]["version"] == 1


def test_unknown_tokens_without_a_status_are_limited(server: SimulatorServer, job: Job) -> None:
    for number in range(11):
        server.account.insert({"id": f"new{number}", "status": "closed"})

    assert "--accept-rejected 11" in refuse(job, "rejected")


def test_a_row_without_its_status_does_not_show_the_state_of_its_token(
    server: SimulatorServer, job: Job, options: SyncOptions
) -> None:
    """No version mixes the old status with what is new, and the run is no witness of the state."""
    before = job.everything()
    bad = some(server)
    send(server, bad, {"status": "closed", "updatedAt": FIRST_SECOND + 99_999})

    report = job.run(options=options)

    assert counts(report) == (0, TOKENS - BAD, BAD, 0)
    assert job.everything() == before
    assert unobserved(job) == [(token_id, "rejected") for token_id in sorted(bad)]
    send(server, bad, {"status": 6})
    assert counts(job.run(options=options)) == (BAD, TOKENS - BAD, 0, 0)


def test_a_token_that_comes_back_keeps_what_its_row_does_not_tell(
    server: SimulatorServer, job: Job
) -> None:
    (token_id,) = some(server, 1)
    server.account.delete(token_id)
    job.run()
    server.account.undelete(token_id)
    send(server, [token_id], {"fileName": False, "userId": {}})

    report = job.run()

    assert (report.relisted, report.partly_loaded) == (1, 1)
    row = job.current()[token_id]
    assert (row["file_name"], row["user_id"], row["is_listed"]) == ("film 0.mp4", "anna", True)
    assert row["changed_columns"] == ["is_listed"]


def test_a_look_up_keeps_it_too(server: SimulatorServer, job: Job) -> None:
    """A twin of an earlier second makes a token be looked up."""
    token_id = some(server, 2)[1]
    (token,) = server.account.find(token_id)
    send(server, [token_id], {"updatedAt": 0, "status": 6})
    twin = {"id": token_id, "createdAt": token.created_at - 7, "updatedAt": FIRST_SECOND}
    server.account.insert(twin)

    report = job.run()

    assert (report.changed, report.rejected) == (1, 1)
    row = job.current()[token_id]
    assert (row["status"], row["changed_columns"]) == (6, ["status"])


def test_verify_does_not_compare_what_a_row_does_not_tell(
    server: SimulatorServer, job: Job
) -> None:
    send(server, some(server), {"updatedAt": 0})
    settings = load_settings(environment=job.environment()).checked()

    found = verify_source(settings, sample=TOKENS, seed=1, stop=Stop())

    assert (found.outcomes["same"], found.outcomes["not_comparable"]) == (TOKENS - BAD, BAD)
    assert found.breaches == []


# --- the limit of rejected rows -------------------------------------------------------------------


def test_a_resumed_walk_that_the_limit_stops_can_be_published(
    server: SimulatorServer, job: Job
) -> None:
    rows = spoil(server, 40)
    # One request at a time: all pages before the one that fails are saved.
    alone = replace(job, variables=job.variables | {"ETL_CONCURRENCY": "1"})
    broken = break_half_way(server, alone, at=8)
    assert len(job.rejected(broken)) > 10

    ended = job.call("--accept-rejected", "40")

    assert ended.code == 0, ended.err
    assert (ended.report["rejected"], ended.report["resumed_from"]) == (len(rows), broken)
    assert job.last_run()["overrides"] == {"accept_rejected": 40}


# --- fields that vanish ---------------------------------------------------------------------------


def test_a_renamed_field_refuses_a_full_run(
    server: SimulatorServer, job: Job, options: SyncOptions
) -> None:
    for name in ("name", "FileName"):
        rename(server, "fileName", name)

        said = refuse(job, "field_vanished", options)

        assert f"{TOKENS} of {TOKENS} tokens have no value of fileName any more" in said
        assert "--accept-vanished-field fileName" in said
        assert job.last_run()["status"] == "refused"
        rename(server, name, "fileName")
    # It is back: nothing has happened.
    assert counts(job.run(options=options)) == (0, TOKENS, 0, 0)


def test_a_field_that_is_gone_can_be_accepted_once(server: SimulatorServer, job: Job) -> None:
    rename(server, "fileName", "name")
    rename(server, "fileSize", "size")
    assert "--accept-vanished-field fileName --accept-vanished-field fileSize" in refuse(
        job, "field_vanished"
    )
    with pytest.raises(DataRefused):
        job.run(options=SyncOptions(accept_vanished_fields=("fileName",)))

    ended = job.call(
        *("--accept-vanished-field", "fileSize", "--accept-vanished-field", "fileName")
    )

    assert ended.code == 0, ended.err
    assert ended.report["changed"] == TOKENS
    assert ended.report["vanished_fields"] == [
        {"field": field, "lacking": TOKENS, "of": TOKENS} for field in ("fileName", "fileSize")
    ]
    assert job.last_run()["overrides"] == {"accept_vanished_field": ["fileSize", "fileName"]}
    assert {row["file_name"] for row in job.current().values()} == {None}
    assert counts(job.run()) == (0, TOKENS, 0, 0)


def test_a_bad_value_in_most_rows_is_a_field_that_vanished(
    server: SimulatorServer, job: Job
) -> None:
    for key, value in (("updatedAt", 1_700_000_000_000), ("autoFinalize", "?"), ("status", "?")):
        was = {fields["id"]: fields[key] for fields in listed(server)}
        send(server, was, {key: value})
        assert f"--accept-vanished-field {key}" in refuse(job, "field_vanished")
        for token_id, usual in was.items():
            send(server, [token_id], {key: usual})


def test_a_first_run_that_can_use_no_value_of_a_field_is_refused(
    server: SimulatorServer, database_url: str
) -> None:
    send(server, some(server, TOKENS), {"updatedAt": 1_700_000_000_000})
    job = Job.of(server, database_url)

    assert "--accept-vanished-field updatedAt" in refuse(job, "field_vanished")

    report = job.run(options=SyncOptions(accept_vanished_fields=("updatedAt",)))
    assert (report.inserted, report.partly_loaded) == (TOKENS, TOKENS)
    assert {row["updated_at"] for row in job.current().values()} == {None}


def test_what_may_go_may_go(server: SimulatorServer, job: Job) -> None:
    """Users are deleted, volatile and unknown fields are no columns that make a version, and some
    tokens, or half of them, lose what they had."""
    ids = some(server, TOKENS)
    assert server.account.delete_user("anna") == TOKENS
    send(server, ids, {"autoFinalize": ...})
    rename(server, "note", "remark")
    rename(server, "fileName", "name", ids[::2])

    report = job.run()

    assert (report.status, report.changed, report.vanished_fields) == ("succeeded", TOKENS, [])
    assert {row["user_id"] for row in job.current().values()} == {"anna"}


def test_a_field_that_few_tokens_have_may_go(server: SimulatorServer, job: Job) -> None:
    ids = some(server, 99)
    send(server, ids, {"attachedObjectId": "0_entry"})
    job.run()
    send(server, ids, {"attachedObjectId": ...})

    assert job.run().changed == 99


def test_a_field_of_few_tokens_can_vanish_like_that_of_many(
    server: SimulatorServer, job: Job
) -> None:
    """The tokens that had it count, and not those that are gone."""
    ids = some(server, TOKENS)
    send(server, ids[:220], {"attachedObjectId": "0_entry"})
    job.run()
    for token_id in ids[:60]:
        server.account.delete(token_id)
    send(server, ids[60:161], {"attachedObjectId": ...})

    said = refuse(job, "field_vanished")

    assert "101 of 160 tokens have no value of attachedObjectId" in said


@pytest.mark.parametrize("name", ["name", "FileName"])
def test_an_incremental_run_warns(
    server: SimulatorServer, job: Job, caplog: pytest.LogCaptureFixture, name: str
) -> None:
    """It reads the newest tokens and the open ones, and may be wrong about the rest."""
    rename(server, "fileName", name)
    caplog.set_level(logging.WARNING)

    report = job.run(options=SyncOptions(mode="incremental"))

    (vanished,) = report.vanished_fields
    assert vanished["field"] == "fileName"
    assert 100 <= vanished["lacking"] == vanished["of"] < TOKENS
    assert "fileName has vanished from" in caplog.text
    kept = sum(row["file_name"] is not None for row in job.current().values())
    assert kept == (TOKENS if name == "FileName" else TOKENS - vanished["lacking"])


def test_a_backfill_is_refused_as_well(server: SimulatorServer, job: Job) -> None:
    rename(server, "fileName", "name")
    settings = load_settings(environment=job.environment()).checked()

    def backfill(options: SyncOptions) -> Any:
        return backfill_range(
            settings, options, Range(None, None), stop=Stop(), progress=NoProgress()
        )

    with pytest.raises(DataRefused) as refused:
        backfill(SyncOptions(mode="backfill"))
    assert refused.value.fields["reason"] == "field_vanished"
    accepted = SyncOptions(mode="backfill", accept_vanished_fields=("fileName",))
    assert backfill(accepted).changed == TOKENS


def test_a_field_does_not_vanish_from_more_tokens_than_were_looked_at(
    server: SimulatorServer, job: Job
) -> None:
    """The seconds beside an unreadable row are not covered, and their tokens were read."""
    ids = [fields["id"] for fields in listed(server)]
    send(server, ids, {"updatedAt": 1_700_000_000_000})
    server.configure(poison=[ids[100]])

    report = job.run(options=SyncOptions(accept_vanished_fields=("updatedAt",)))

    assert report.vanished_fields == [
        {"field": "updatedAt", "lacking": TOKENS - 1, "of": TOKENS - 1}
    ]
