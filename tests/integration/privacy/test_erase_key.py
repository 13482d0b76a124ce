"""The key of the erased: the setting's, or one that the warehouse makes and keeps."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import psycopg
import pytest

from etl.errors import ConfigurationError, EtlError
from etl.process.stop import Stop
from etl.settings.read import load_settings
from etl.simulator import SimulatorServer, generate_account
from etl.tokens.pseudonyms import Pseudonyms
from etl.verify.source import verify_source
from tests.support.erasure import ANNA, KEY, assert_verified, erased, insert
from tests.support.job import Job
from tests.support.roles import roles_of
from tests.support.searching import fingerprint, search


@pytest.fixture
def server() -> Iterator[SimulatorServer]:
    with SimulatorServer(generate_account(60, seed=44)) as running:
        insert(running, "a1", fileName="anna-first")
        insert(running, "o1", userId="otto", fileName="otto-first")
        yield running


@pytest.fixture
def job(server: SimulatorServer, database_url: str) -> Job:
    """A first night, without ETL_ERASURE_KEY."""
    job = Job.of(server, database_url)
    job.run()
    return job


def kept_keys(job: Job) -> dict[int, str]:
    rows = job.query("select partner_id, key from kaltura.erasure_key")
    return {row["partner_id"]: row["key"] for row in rows}


def user_of(job: Job, token_id: str) -> str:
    (row,) = job.query("select user_id from kaltura.upload_token where token_id = %s", token_id)
    return str(row["user_id"])


def test_the_first_erasure_makes_a_key_that_all_later_ones_use(
    server: SimulatorServer, job: Job, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    (report,) = erased(job, users=(ANNA,), key=None)

    (key,) = kept_keys(job).values()
    assert len(bytes.fromhex(key)) == 32
    assert "table erasure_key" in caplog.text
    assert key not in caplog.text
    names = Pseudonyms(key, job.partner_id)
    assert report.subject_hash == names.subject_hash("user", ANNA).hex()[:16]
    assert user_of(job, "a1") == names.of_user(ANNA)

    caplog.clear()
    erased(job, users=("otto",), key=None)
    assert kept_keys(job) == {job.partner_id: key}
    assert user_of(job, "o1") == names.of_user("otto")
    assert "erasure_key" not in caplog.text

    # The next nights, of which one brings something new, and a comparison with the service.
    assert job.run().changed == 0
    insert(server, "a2", fileName="anna-new")
    assert job.run().inserted == 1
    assert search(job.database_url, [ANNA, "anna-first", "anna-new", "otto"]) == set()
    assert_verified(job)
    settings = load_settings(environment=job.environment()).checked()
    compared = verify_source(settings, sample=1_000, seed=1, stop=Stop())
    assert compared.outcomes["same"] == 63


def test_counting_needs_no_key_and_makes_none(job: Job) -> None:
    before = fingerprint(job.database_url)

    (told,) = erased(job, users=(ANNA,), key=None, apply=False)

    assert fingerprint(job.database_url) == before
    assert told.subject_hash is None
    (done,) = erased(job, users=(ANNA,), key=None)
    assert (done.tokens, done.tables) == (told.tokens, told.tables)
    # As soon as there is a key, it tells under which hash a user is listed.
    (again,) = erased(job, users=(ANNA,), key=None, apply=False)
    assert again.subject_hash == done.subject_hash


def test_an_empty_list_to_erase_again_makes_no_key(job: Job) -> None:
    assert erased(job, again=True, key=None) == []
    assert kept_keys(job) == {}


def test_with_the_setting_no_key_is_kept(job: Job) -> None:
    erased(job, users=(ANNA,), key=KEY)
    assert kept_keys(job) == {}
    with pytest.raises(ConfigurationError, match="warehouse does not keep") as caught:
        erased(job, users=("otto",), key=None)
    assert caught.value.exit_code == 78
    # A key that came there later, of other erasures, is told from the one that is missing.
    job.query("insert into kaltura.erasure_key (partner_id, key) values (102, %s)", "k" * 32)
    with pytest.raises(ConfigurationError, match="key in table erasure_key is not the key"):
        job.run()
    assert job.run(ETL_ERASURE_KEY=KEY).changed == 0


def test_the_setting_must_be_the_key_that_is_kept(job: Job) -> None:
    erased(job, users=(ANNA,), key=None)
    (key,) = kept_keys(job).values()
    for call in (
        lambda: job.run(ETL_ERASURE_KEY=KEY),
        lambda: erased(job, users=("otto",), key=KEY),
        lambda: erased(job, users=("otto",), key=KEY, apply=False),
    ):
        with pytest.raises(ConfigurationError, match=r"ETL_ERASURE_KEY is not .* or none") as told:
            call()
        assert key not in told.value.message
    assert user_of(job, "o1") == "otto"

    # As docs/howto/erase.md says, it can move out of the warehouse.
    assert job.run(ETL_ERASURE_KEY=key).changed == 0
    job.query("delete from kaltura.erasure_key")
    assert job.run(ETL_ERASURE_KEY=key).changed == 0
    erased(job, users=("otto",), key=key)
    assert kept_keys(job) == {}
    with pytest.raises(ConfigurationError, match="ETL_ERASURE_KEY is not set"):
        job.run()


def test_each_account_has_a_key_of_its_own(job: Job) -> None:
    with SimulatorServer(generate_account(5, seed=1, partner_id=103)) as other:
        there = Job.of(other, job.database_url)
        there.run()
        for each in (job, there):
            erased(each, users=(ANNA,), key=None)
        keys = kept_keys(job)
        assert keys.keys() == {102, 103}
        assert keys[102] != keys[103]
        assert job.run().changed == there.run().changed == 0


def test_an_erasure_that_fails_leaves_no_key(job: Job) -> None:
    with psycopg.connect(job.database_url, autocommit=True) as connection:
        connection.execute("alter table kaltura.erasure add constraint full_up check (false)")
    with pytest.raises(EtlError):
        erased(job, users=(ANNA,), key=None)
    assert kept_keys(job) == {}
    assert user_of(job, "a1") == ANNA


def test_a_loader_finds_the_key_and_an_analyst_does_not(job: Job) -> None:
    erased(job, users=(ANNA,), key=None)
    with roles_of(job.database_url) as roles:
        roles.grant_all()
        loader = Job(job.url, roles.url("loader"), job.partner_id, job.admin_secret)
        assert loader.run().changed == 0
        assert roles.refusal("loader", "update erasure_key set key = repeat('k', 32)") == "42501"
        assert roles.refusal("analyst", "select key from erasure_key") == "42501"
