"""``verify --source``: the warehouse against a service that lives on."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import psycopg
import pytest

from etl.errors import ConfigurationError, UsageError
from etl.process.stop import Stop
from etl.settings.read import load_settings
from etl.simulator import SimulatorServer, generate_account
from etl.tokens.pseudonyms import Suppression
from etl.tokens.token import COMPARED
from etl.verify import source
from etl.verify.source import SourceComparison, verify_source
from etl.warehouse.privacy.erase import erase, load_suppression
from etl.warehouse.privacy.subject import Subject
from etl.warehouse.schema.database import open_database
from tests.support import forked
from tests.support.job import Job
from tests.support.restamp import restamp_run

TOKENS = 300
NOTHING = dict.fromkeys(("same", "moved_on", "gone", "relisted", "not_comparable", "breach"), 0)


@dataclass
class World:
    """An account, and a warehouse that knew it an hour ago."""

    server: SimulatorServer
    job: Job

    def write(self, statement: str) -> None:
        """As the owner of the tables: the program has no such power."""
        self.job.query(statement)

    def compare(
        self, sample: int = 2 * TOKENS, seed: int | None = 1, **more: str
    ) -> SourceComparison:
        settings = load_settings(environment=self.job.environment(**more)).checked()
        return verify_source(settings, sample=sample, seed=seed, stop=Stop())

    def tokens(self, count: int, is_listed: bool = True) -> list[str]:
        rows = self.job.query(
            "select token_id from kaltura.upload_token where is_listed = %s "
            "order by token_id limit %s",
            is_listed,
            count,
        )
        return [row["token_id"] for row in rows]


@pytest.fixture
def world(database_url: str) -> Iterator[World]:
    """Synchronised twice, with 20 absences, by an account whose time goes on."""
    account = generate_account(TOKENS, seed=5)
    with SimulatorServer(account) as server:
        job = Job.of(server, database_url, ETL_ABSENCE_GRACE="0s")
        for hours in (25, 1):
            for token in [account.line[at] for at in range(0, 200, 10) if hours == 1]:
                account.delete(token.id)
            now = datetime.fromtimestamp(account.clock(), UTC)
            with psycopg.connect(database_url, autocommit=True) as connection:
                restamp_run(connection, job.run().run_id, now - timedelta(hours=hours))
        yield World(server, job)


def erase_user(world: World, user_id: str, key: str) -> None:
    with open_database(world.job.database_url, "kaltura") as database:
        erase(
            database,
            partner_id=world.job.partner_id,
            key=key,
            subjects=[Subject("user", user_id)],
            lease_seconds=60,
            apply=True,
        )


def outcomes(compared: SourceComparison) -> dict[str, int]:
    return NOTHING | dict(compared.outcomes)


def test_what_did_not_change_is_the_same(world: World) -> None:
    compared = world.compare()
    assert (compared.listed, compared.absent) == (TOKENS - 20, 20)
    assert outcomes(compared) == NOTHING | {"same": TOKENS}
    assert compared.check().ok


def test_half_of_a_sample_is_absent_and_a_seed_repeats_it(world: World) -> None:
    before = len(world.server.service.log)
    compared = world.compare(sample=30, seed=7)
    assert (compared.listed, compared.absent) == (15, 15)
    world.compare(sample=30, seed=7)
    world.compare(sample=30, seed=8)
    log = list(world.server.service.log)[before:]
    asked = [str(each.filter) for each in log if each.position == "idIn"]
    assert asked[0] == asked[1] != asked[2]


def test_what_changed_since_the_last_run_is_no_breach(world: World) -> None:
    account = world.server.account
    ids = world.tokens(9)
    account.change(ids[0], {"status": 3, "attachedObjectId": "0_new"})
    account.change(ids[1], {"fileName": None})
    account.change(ids[2], {"aNewKey": {"a": [1]}})
    account.delete(ids[3])
    # The volatile columns, and a user who was deleted: nothing that a run would write.
    account.change(ids[4], {"autoFinalize": True, "uploadUrl": "https://x"}, touch=False)
    account.change(ids[5], {"userId": ...}, touch=False)
    account.insert({"id": "new"})
    (absent,) = world.tokens(1, is_listed=False)
    account.undelete(absent)
    account.change(absent, {"status": 3})
    compared = world.compare()
    assert outcomes(compared) == NOTHING | {
        "same": TOKENS - 5,
        "moved_on": 3,
        "gone": 1,
        "relisted": 1,
    }
    assert compared.check().ok


TAMPERED = {
    "user_id": ("'mallory'", "userId"),
    "status": ("5", "status"),
    "file_name": ("'other'", "fileName"),
    "file_size_bytes": ("77", "fileSize"),
    "uploaded_size_bytes": ("77", "uploadedFileSize"),
    "created_at": ("created_at - interval '1 s'", "createdAt"),
    "updated_at": ("updated_at - interval '1 s'", "updatedAt"),
    "attached_object_type": ("'other'", "attachedObjectType"),
    "attached_object_id": ("'other'", "attachedObjectId"),
    "extra": ("'{\"a\": 1}'", "extra"),
}
"""A wrong value of each column that is compared, and the key that tells the right one."""


def test_a_column_that_was_tampered_with_is_a_breach(world: World) -> None:
    ids = world.job.query(
        "select token_id from kaltura.upload_token where is_listed and user_id is not null "
        "and status = 3 order by token_id limit 10"
    )
    tampered = dict(zip((row["token_id"] for row in ids), TAMPERED, strict=True))
    assert sorted(TAMPERED) == sorted(COMPARED)
    for token_id, column in tampered.items():
        world.write(
            f"update kaltura.upload_token set {column} = {TAMPERED[column][0]} "  # noqa: S608
            f"where token_id = '{token_id}'"
        )
    breaches = world.compare().check().rows
    assert {row["token_id"]: row["columns"] for row in breaches} == {
        token_id: [column] for token_id, column in tampered.items()
    }
    for row in breaches:
        (column,) = row["columns"]
        (token,) = world.server.account.find(row["token_id"])
        served = world.server.account.fields(token).get(TAMPERED[column][1])
        told = row["served"][column]
        assert str(told.timestamp() if column.endswith("_at") else told) in (
            str(served),
            f"{served}.0",
        )
        assert row["stored"][column] != told


def test_a_change_that_a_later_run_ought_to_have_seen_is_a_breach(world: World) -> None:
    """The version is a day old, but the run of an hour ago looked again."""
    account = world.server.account
    (token_id,) = world.tokens(1)
    account.change(token_id, {"status": 4, "updatedAt": int(account.clock()) - 2 * 3_600})
    compared = world.compare()
    assert [row["breach"] for row in compared.check().rows] == ["differs"]
    # A run that did not see the token is no witness.
    world.write(
        f"insert into kaltura.unobserved_token select partner_id, '{token_id}', "  # noqa: S608
        "max(run_id), 'rejected' from kaltura.sync_run group by 1"
    )
    assert outcomes(world.compare())["moved_on"] == 1


def test_a_token_called_absent_must_not_be_listed(world: World) -> None:
    (token_id,) = world.tokens(1, is_listed=False)
    world.server.account.undelete(token_id)
    (breach,) = world.compare().check().rows
    assert (breach["token_id"], breach["columns"]) == (token_id, ["is_listed"])
    assert (breach["stored"], breach["served"]) == ({"is_listed": False}, {"is_listed": True})


def test_what_a_run_writes_after_the_answer_is_no_breach(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between the service's answer and the comparison a run publishes, and a user is erased."""
    account = world.server.account
    changed, deleted = world.tokens(2)
    (user,) = world.job.query(
        "select user_id, count(*) as tokens from kaltura.upload_token where user_id <> '' "
        "and is_listed group by user_id order by 2, 1 limit 1"
    )
    key = "0123456789abcdef" * 4

    def meanwhile(*arguments: object) -> Suppression | None:
        monkeypatch.undo()
        account.change(changed, {"status": 4})
        account.delete(deleted)
        world.job.run(ETL_ERASURE_KEY=key)
        known = load_suppression(*arguments)  # type: ignore[arg-type]
        erase_user(world, user["user_id"], key)
        return known

    monkeypatch.setattr(source, "load_suppression", meanwhile)
    asked = len(world.server.service.log)
    compared = world.compare(ETL_ERASURE_KEY=key)
    assert outcomes(compared) == NOTHING | {"same": TOKENS}
    lookups = [each for each in list(world.server.service.log)[asked:] if each.position == "idIn"]
    again = str((lookups[-1].filter or {})["idIn"]).split(",")
    assert {changed, deleted} < set(again)
    assert len(again) == 2 + user["tokens"]


def test_a_mass_of_tokens_that_are_gone_is_a_breach(world: World) -> None:
    for token_id in world.tokens(100):
        world.server.account.delete(token_id)
    compared = world.compare()
    assert compared.outcomes["gone"] == 100
    (breach,) = compared.check().rows
    assert (breach["gone"], breach["listed"]) == (100, TOKENS - 20)


def test_rows_that_cannot_be_compared_cost_only_themselves(world: World) -> None:
    account = world.server.account
    poisoned, odd = world.tokens(2)
    account.poison.add(poisoned)
    account.change(odd, {"status": "no number"}, touch=False)
    compared = world.compare(ETL_RETRY_TOTAL_SECONDS="2", ETL_RETRY_ATTEMPTS="1")
    assert outcomes(compared) == NOTHING | {"same": TOKENS - 2, "not_comparable": 2}


def test_who_was_erased_is_compared_by_pseudonym(world: World) -> None:
    (row,) = world.job.query(
        "select user_id from kaltura.upload_token where is_listed and user_id is not null "
        "order by token_id limit 1"
    )
    key = "0123456789abcdef" * 4
    erase_user(world, row["user_id"], key)
    assert world.job.query(
        "select 1 from kaltura.upload_token where starts_with(user_id, 'erased:')"
    )
    assert outcomes(world.compare(ETL_ERASURE_KEY=key)) == NOTHING | {"same": TOKENS}
    with pytest.raises(ConfigurationError):
        world.compare()


def call(world: World, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    environment = forked.environment(**world.job.environment(**variables))
    return forked.call("verify", *arguments, env=environment)


def test_the_command_says_what_it_compared(world: World) -> None:
    done = call(world, "--source", "40", "--seed", "3", "--json")
    report = json.loads(done.stdout)
    assert (done.returncode, report["status"]) == (0, "succeeded")
    assert report["source"] == {"seed": 3, "listed": 20, "absent": 20} | NOTHING | {"same": 40}
    assert report["checks"][-1]["name"] == "source"

    world.write("update kaltura.upload_token set file_name = 'other' where is_listed")
    done = call(world, "--source", "40", "--seed", "3")
    assert done.returncode == 65
    assert "source: Sampled tokens" in done.stdout


def test_the_command_needs_the_service_only_when_it_asks_it(world: World) -> None:
    nothing = {"KALTURA_ADMIN_SECRET": "", "KALTURA_PARTNER_ID": ""}
    assert call(world, "--json", **nothing).returncode == 0
    assert call(world, "--source", "5", "--json", **nothing).returncode == 78
    done = call(world, "--seed", "5", "--json")
    assert done.returncode == UsageError.exit_code
