"""What the tests of erasure share: Anna's nights, and who is erased."""

from __future__ import annotations

import pytest

from etl.errors import CredentialsRefused
from etl.simulator import SimulatorServer
from etl.tokens.digest import user_digest
from etl.verify.checks import verify
from etl.warehouse.privacy.erase import erase
from etl.warehouse.privacy.subject import Erased, Subject
from etl.warehouse.schema.database import open_database
from tests.support.job import Job

KEY = "an erasure key of some length, 40 chars.".replace(" ", "_")
ANNA = "anna o'Hara \"100%_é\\ 漢"
PAGE_CAP = 50
TOKENS = 1_200
SECRETS = [
    *(ANNA, "anna-first", "anna-renamed", "anna-staged", "anna-new", "anna-rejected"),
    *("anna-extra", "anna-extra-later", "anna-unlisted", "anna-passed-on", "anna-orphan"),
]
VERSIONS = ("upload_token", "upload_token_superseded")


def erased(
    job: Job,
    *,
    users: tuple[str, ...] = (),
    tokens: tuple[str, ...] = (),
    again: bool = False,
    key: str | None = KEY,
    apply: bool = True,
    lease_seconds: float = 900.0,
    url: str | None = None,
) -> list[Erased]:
    """Erase users and tokens of the job's account, or count what that would replace."""
    subjects = [Subject("user", each) for each in users]
    subjects += [Subject("token", each) for each in tokens]
    with open_database(url or job.database_url, "kaltura") as database:
        return erase(
            database,
            partner_id=job.partner_id,
            key=key,
            subjects=subjects,
            again=again,
            lease_seconds=lease_seconds,
            apply=apply,
        )


def assert_verified(job: Job) -> None:
    assert [result for result in verify(job.database_url) if not result.ok] == []


def digests_of(job: Job, tokens: tuple[str, ...]) -> set[str]:
    """What would confirm a guess of Anna's data: her own digest, and those of her tokens."""
    found = {str(user_digest(ANNA))}
    for table in ("upload_token", "upload_token_staging"):
        rows = job.query(
            f"select digest from kaltura.{table} where partner_id = %s "  # noqa: S608
            "and token_id = any(%s) and digest is not null",
            job.partner_id,
            list(tokens),
        )
        found |= {str(row["digest"]) for row in rows}
    return found


def assert_emptied(job: Job, tokens: tuple[str, ...]) -> None:
    """These tokens have pseudonyms and no digests, all others have theirs: until the next run."""
    for table in ("upload_token", "upload_token_staging"):
        rows = job.query(
            "select token_id, concat_ws(' ', user_id, file_name, extra) "  # noqa: S608
            "like '%%erased%%' "
            f"as is_erased, digest, user_digest from kaltura.{table} "
            "where partner_id = %s and status is not null",
            job.partner_id,
        )
        assert {row["token_id"] for row in rows if row["is_erased"]} <= {*tokens}
        assert {row["token_id"] for row in rows if row["digest"] is None} <= {*tokens}
        assert all(row["digest"] is row["user_digest"] is None for row in rows if row["is_erased"])


def others(job: Job, tokens: tuple[str, ...]) -> dict[str, list[str]]:
    """Every row of the other tokens, byte for byte."""
    return {
        table: [
            row["row"]
            for row in job.query(
                f"select t::text as row from kaltura.{table} as t "  # noqa: S608
                "where token_id is null or token_id <> all(%s) order by 1",
                list(tokens),
            )
        ]
        for table in (*VERSIONS, "rejected_row")
    }


def assert_untouched(job: Job, tokens: tuple[str, ...], kept: dict[str, list[str]]) -> None:
    """The others' rows are as they were; later runs may have rejected more."""
    now = others(job, tokens)
    assert {table: now[table] for table in VERSIONS} == {table: kept[table] for table in VERSIONS}
    assert set(now["rejected_row"]) >= set(kept["rejected_row"])


def insert(server: SimulatorServer, token_id: str, **fields: object) -> None:
    """A token somewhere in the middle of the list, unless told otherwise."""
    rows = server.account.line
    created = rows[len(rows) // 2].created_at + 1
    server.account.insert({"id": token_id, "createdAt": created, "userId": ANNA, **fields})


def live_through_some_nights(server: SimulatorServer, job: Job) -> None:
    """Anna uploads, renames, passes on, is rejected; her last night's walk fails half-way."""
    account = server.account
    insert(server, "a1", fileName="anna-first", note={"x": ["anna-extra", 1.50]})
    insert(server, "a2", fileName="anna-unlisted")
    insert(server, "a3", fileName="anna-passed-on")
    insert(server, "a4", fileName="anna-orphan", createdAt=account.line[3].created_at)
    insert(server, "a5", fileName=None)
    insert(server, "a6", fileName="", partnerId="anna-rejected")
    insert(server, "o1", userId="otto", fileName="otto.mp4", partnerId="ottos-rejected")
    insert(server, "o2", userId="otto", fileName="anna", note="otto's")
    assert job.run().rejected == 2
    account.change("a1", {"fileName": "anna-renamed", "note": {"x": ["anna-extra-later", 1.5]}})
    account.delete("a2")
    account.change("a3", {"userId": "otto"})
    account.change("a6", {"partnerId": "anna-rejected again"}, touch=False)
    account.change("o2", {"note": "otto's other"})
    job.run()
    account.change("a4", {"userId": ...}, touch=False)
    account.change("a1", {"status": 3})
    job.run()
    # The first pages are staged, then the service says no.
    insert(server, "a7", fileName="anna-staged", createdAt=account.line[5].created_at)
    account.change("a4", {"fileName": "anna-orphan, anna-staged"})
    server.faults.schedule("service-forbidden", where="list", at=(20,))
    with pytest.raises(CredentialsRefused):
        job.run()
    server.faults.clear()
    staged = job.query("select token_id from kaltura.upload_token_staging where kind = 'present'")
    assert {row["token_id"] for row in staged} == {"a4", "a7"}
