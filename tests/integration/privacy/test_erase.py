"""Erased people are nowhere in the warehouse, do not come back, and no other rows change."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import msgspec
import psycopg
import pytest

from etl.errors import (
    UsageError,
)
from etl.run.plan import SyncOptions
from etl.simulator import SimulatorServer, generate_account
from etl.tokens.decode import decode_rows
from etl.tokens.pseudonyms import Pseudonyms
from tests.support.erasure import (
    ANNA,
    KEY,
    PAGE_CAP,
    SECRETS,
    TOKENS,
    VERSIONS,
    assert_emptied,
    assert_untouched,
    assert_verified,
    digests_of,
    erased,
    insert,
    live_through_some_nights,
    others,
)
from tests.support.job import ROOT, Job
from tests.support.searching import fingerprint, search


@pytest.fixture
def server() -> Iterator[SimulatorServer]:
    account = generate_account(TOKENS, seed=41)
    with SimulatorServer(account, page_cap=PAGE_CAP) as running:
        yield running


@pytest.fixture
def job(server: SimulatorServer, database_url: str) -> Job:
    return Job.of(
        server, database_url, ETL_ABSENCE_GRACE="0s", ETL_ERASURE_KEY=KEY, ETL_RETRY_ATTEMPTS="1"
    )


def test_a_user_is_erased_everywhere_and_stays_erased(server: SimulatorServer, job: Job) -> None:
    live_through_some_nights(server, job)
    tokens = tuple(f"a{number}" for number in range(1, 8))
    before, kept = job.everything(), others(job, tokens)
    # A digest of a name would confirm a guess of it.  That of a5 has none in it: it stays the same.
    digests = digests_of(job, tuple({*tokens} - {"a5"}))
    secrets = [*SECRETS, *digests]
    assert {needle for needle, _, _ in search(job.database_url, secrets)} == {*secrets} - {
        "anna-new"
    }
    # Of a1 to a4 as they are known, of a4 and a7 as they are staged, and of her.
    assert len(digests) == 4 + 2 + 1
    # In each run that came to it: the last one failed after or before.
    rejected = len(job.query("select 1 from kaltura.rejected_row where token_id = 'a6'"))
    assert rejected in (3, 4)
    assert_verified(job)

    (report,) = erased(job, users=(ANNA,))

    assert search(job.database_url, secrets) == set()
    assert_emptied(job, tokens)
    assert report.tokens == 7
    rows = {table: replaced.rows for table, replaced in report.tables.items()}
    # Of a3 both versions, its later owner kept; of a5 nothing but the user.
    assert rows == {
        "upload_token": 5,
        "upload_token_superseded": 4,
        "upload_token_staging": 2,
        "rejected_row": rejected,
    }
    assert others(job, tokens) == kept
    assert_verified(job)
    assert job.query("select user_id from kaltura.upload_token where token_id = 'a3'") == [
        {"user_id": "otto"}
    ]
    assert_erasure_is_recorded(job, rows)
    assert_same_but_for_personal_data(before, job.everything())

    # The failed walk is gone on with, from the pages that it had read.
    after = job.run()
    assert after.resumed_from is not None
    assert (after.inserted, after.changed) == (1, 1)
    assert search(job.database_url, secrets) == set()
    assert_untouched(job, tokens, kept)
    assert_verified(job)

    # A quiet night writes nothing, once the digests of the pseudonyms are there; a full walk from
    # the start, as well.
    quiet = job.everything()
    for options in (SyncOptions(), SyncOptions(resume=False)):
        night = job.run(options=options)
        assert (night.inserted, night.changed, night.absent, night.relisted) == (0, 0, 0, 0)
    assert job.everything() == quiet
    filled, *later = [run["digests_filled"] for run in job.runs()[-3:]]
    assert filled > 0
    assert later == [0, 0]
    assert job.query("select 1 from kaltura.upload_token where digest is null") == []
    assert search(job.database_url, secrets) == set()

    # What she does now comes in without her.
    insert(server, "a8", fileName="anna-new", note="anna-new")
    server.account.change("a3", {"fileName": "anna-passed-on as anna-new"})
    server.account.undelete("a2")
    night = job.run()
    assert (night.inserted, night.changed, night.relisted) == (1, 1, 1)
    server.account.delete_user(ANNA)
    server.account.change("a8", {"fileName": "anna-new again"})
    assert job.run().changed == 1
    assert job.run().changed == 0
    assert search(job.database_url, secrets) == set()
    assert_verified(job)
    (new,) = job.query("select * from kaltura.upload_token where token_id = 'a8'")
    names = Pseudonyms(KEY, job.partner_id)
    assert new["user_id"] == names.of_user(ANNA)
    assert new["file_name"] == names.of_file_name("a8", "anna-new again")
    assert new["extra"].keys() == {"erased"}
    # The service writes whole seconds: both changes may fall in one.
    assert set(new["changed_columns"]) - {"updated_at"} == {"file_name"}


def assert_erasure_is_recorded(job: Job, rows: dict[str, int]) -> None:
    (record,) = job.query("select * from kaltura.erasure")
    names = Pseudonyms(KEY, job.partner_id)
    assert record["kind"] == "user"
    assert bytes(record["subject_hash"]) == names.subject_hash("user", ANNA)
    assert record["versions"] == rows["upload_token"] + rows["upload_token_superseded"]
    staged, rejected = rows["upload_token_staging"], rows["rejected_row"]
    assert (record["staged"], record["rejected"]) == (staged, rejected)


def assert_same_but_for_personal_data(before: Any, after: Any) -> None:
    personal = ("user_id", "file_name", "extra")
    for old, new in zip(before, after, strict=True):
        assert old.keys() == new.keys()
        for key, version in old.items():
            assert {k: v for k, v in version.items() if k not in personal} == {
                k: v for k, v in new[key].items() if k not in personal
            }
            for name in personal:
                assert (version[name] in (None, "")) == (new[key][name] in (None, ""))


def test_erasing_again_changes_nothing(server: SimulatorServer, job: Job) -> None:
    live_through_some_nights(server, job)
    erased(job, users=(ANNA,))
    once = fingerprint(job.database_url)

    (again,) = erased(job, users=(ANNA,))

    assert {replaced.rows for replaced in again.tables.values()} == {0}
    # Of a rejected row nothing is left that says whose it was.
    assert again.tokens == 6
    twice = fingerprint(job.database_url)
    assert {name for name in once if once[name] != twice[name]} == {"erasure"}
    assert len(job.query("select * from kaltura.erasure")) == 2
    pseudonym = Pseudonyms(KEY, job.partner_id).of_user(ANNA)
    with pytest.raises(UsageError, match="already erased"):
        erased(job, users=(pseudonym,))


def test_a_dry_run_counts_the_same_and_changes_nothing(server: SimulatorServer, job: Job) -> None:
    live_through_some_nights(server, job)
    before = fingerprint(job.database_url)

    told = erased(job, users=(ANNA, "nobody"), tokens=("o2",), apply=False)

    assert fingerprint(job.database_url) == before
    assert erased(job, users=(ANNA, "nobody"), tokens=("o2",)) == told
    assert told[1].tokens == 0


def test_a_token_is_erased_for_any_owner(server: SimulatorServer, job: Job) -> None:
    live_through_some_nights(server, job)
    kept = others(job, ("o2", "later"))

    (report,) = erased(job, tokens=("o2",))
    (unknown,) = erased(job, tokens=("later",))

    assert report.tables["upload_token"].values == 3
    assert report.tables["upload_token_superseded"].values == 3
    assert unknown.tables["upload_token"].rows == 0
    assert others(job, ("o2", "later")) == kept
    assert_verified(job)
    insert(server, "later", userId="otto", fileName="not yet seen")
    server.account.change("o2", {"userId": "berta", "fileName": "berta's"})
    job.run()
    assert search(job.database_url, ["otto's", "not yet seen", "berta"]) == set()
    rows = job.query("select user_id from kaltura.upload_token where token_id in ('o2', 'later')")
    assert all(row["user_id"].startswith("erased:") for row in rows)
    assert_verified(job)


def test_another_spelling_is_told_and_stays(server: SimulatorServer, job: Job) -> None:
    insert(server, "x1", userId="Berta")
    insert(server, "x2", userId="berta")
    job.run()
    (report,) = erased(job, users=("berta",))
    assert (report.tokens, report.similar_ids) == (1, 1)
    assert job.query("select user_id from kaltura.upload_token where token_id = 'x1'") == [
        {"user_id": "Berta"}
    ]


ODD_IDS = [
    "x' or '1'='1",
    "%",
    "_",
    "\\",
    '"; drop table kaltura.upload_token; --',
    "  two  spaces ",
    "line\nbreak\ttab",
    "\U0001f389 né 漢字 \u202e",
    "0",
    "null",
    "*",
    "--apply",
    "{}",
    "x" * 300,
]


def test_odd_user_ids(server: SimulatorServer, job: Job) -> None:
    for number, user_id in enumerate(ODD_IDS):
        insert(server, f"odd{number}", userId=user_id, fileName=f"of odd {number}")
    job.run()
    kept = others(job, tuple(f"odd{number}" for number in range(len(ODD_IDS))))

    reports = erased(job, users=tuple(ODD_IDS))

    assert [report.tokens for report in reports] == [1] * len(ODD_IDS)
    assert (
        search(job.database_url, ["of odd", *(each for each in ODD_IDS if len(each) > 6)]) == set()
    )
    assert others(job, tuple(f"odd{number}" for number in range(len(ODD_IDS)))) == kept
    rows = job.query("select user_id, file_name from kaltura.upload_token where token_id ~ '^odd'")
    assert all(value.startswith("erased:") for row in rows for value in row.values())
    assert job.run().changed == 0
    assert_verified(job)


def test_an_erased_name_that_kaltura_sends_as_null_later(server: SimulatorServer, job: Job) -> None:
    """A value that disappears and comes back is still known: the earlier versions tell."""
    insert(server, "a1", fileName="anna-first")
    job.run()
    erased(job, users=(ANNA,))
    server.account.change("a1", {"userId": "otto", "fileName": None})
    job.run()
    server.account.change("a1", {"fileName": "anna-first"})
    job.run()
    assert search(job.database_url, [ANNA, "anna-first"]) == set()
    current = job.query("select user_id, file_name from kaltura.upload_token where token_id = 'a1'")
    assert current == [
        {
            "user_id": "otto",
            "file_name": Pseudonyms(KEY, job.partner_id).of_file_name("a1", "anna-first"),
        }
    ]
    assert_verified(job)


@pytest.mark.postgres15
def test_the_marked_tokens_are_found_by_index(server: SimulatorServer, job: Job) -> None:
    job.run()
    erased(job, users=(server.account.line[7].user_id or "",))
    with psycopg.connect(job.database_url) as connection:
        connection.execute("set enable_seqscan = off")
        plan = connection.execute(
            "explain (format json) select token_id from kaltura.upload_token "
            "where partner_id = 102 and (starts_with(user_id, 'erased:') "
            "or starts_with(file_name, 'erased:') or extra ? 'erased')"
        ).fetchone()
    assert plan is not None
    assert "ix_upload_token_marked" in json.dumps(plan[0])


LISTED = (
    "partner_id, kind, subject_hash, key_check, erased_at, versions, staged, rejected, "
    "program_version"
)


def copy_out(connection: psycopg.Connection[Any], statement: str) -> bytes:
    with connection.cursor().copy(statement.encode()) as copy:
        return b"".join(map(bytes, copy))


def test_docs_name_what_is_listed() -> None:
    assert (ROOT / "docs" / "howto" / "erase.md").read_text().count(LISTED) == 2


def test_who_comes_back_with_a_backup_is_erased_again(server: SimulatorServer, job: Job) -> None:
    live_through_some_nights(server, job)
    with psycopg.connect(job.database_url, autocommit=True) as connection:
        connection.execute("create schema backup")
        for table in (*VERSIONS, "upload_token_staging", "rejected_row"):
            connection.execute(f"create table backup.{table} as table kaltura.{table}".encode())
        erased(job, users=(ANNA,), tokens=("o2", "never seen"))
        once = job.everything()
        listed = copy_out(
            connection,
            f"copy (select {LISTED} from kaltura.erasure) to stdout csv",  # noqa: S608
        )
        connection.execute("delete from kaltura.erasure")
        for table in (*VERSIONS, "upload_token_staging", "rejected_row"):
            connection.execute(f"delete from kaltura.{table}".encode())  # noqa: S608
            connection.execute(
                f"insert into kaltura.{table} select * from backup.{table}".encode()  # noqa: S608
            )
        with connection.cursor().copy(
            f"copy kaltura.erasure ({LISTED}) from stdin csv".encode()
        ) as copy:
            copy.write(listed)
    assert search(job.database_url, SECRETS) != set()
    told = erased(job, again=True, apply=False)

    assert erased(job, again=True) == told

    assert sorted(each.kind for each in told) == ["token", "user"]
    assert search(job.database_url, [*SECRETS, "otto's"]) == set()
    assert job.everything() == once
    assert_verified(job)


EXTRAS = [
    '{"n": 1.0}',
    '{"n": 1.50e2, "m": -0.0, "k": 1E-30}',
    '{"n": 123456789012345678901234567890.000100}',
    '{"bb": 1, "a": {"z": [], "y": {}}, "": null}',
    '{"t": "\\u00e9 \\ud83c\\udf89 \\/ \\\\ \\" \\u0001 \u2028 \U0001f389"}',
    '{"nul": "a\\u0000b", "half": "\\ud83c"}',
    '{"deep": [[[[[[[[[[1.00]]]]]]]]]]}',
    '{"t": [true, false, null, "true", "1", 1, 10e-1]}',
    '{"erased": "0123456789abcdef0123456789abcdef"}',
]


def test_extra_has_one_pseudonym_as_it_comes_and_as_it_is_stored(job: Job) -> None:
    """Else the night after an erasure would write a version for each of them."""
    names = Pseudonyms(KEY, job.partner_id)
    for text in EXTRAS:
        row = msgspec.Raw(
            b'{"id":"t","partnerId":102,"createdAt":1700000000,"status":0,' + text[1:].encode()
        )
        decoded = decode_rows([row], partner_id=102, now=datetime.now(UTC))
        (token,) = decoded.tokens
        assert token.extra is not None
        (stored,) = job.query("select %s::jsonb::text as extra", token.extra.decode())
        made = names.of_extra("t", token.extra)
        assert made == names.of_extra("t", stored["extra"].encode()), text
        assert made != token.extra
        (again,) = job.query("select %s::jsonb::text as extra", made.decode())
        assert names.of_extra("t", again["extra"].encode()) == again["extra"].encode()
