"""A second night, again and again: the scene of the campaigns in which one run is disturbed.

A warehouse holds a first night, and the account has lived on since.  Each case gets a copy of the
warehouse.  Whatever happens to its run, a reader sees the first night or the second, never anything
between; and a normal run afterwards leaves what an undisturbed one would have left.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, replace
from typing import Final

import psycopg

from etl.errors import EtlError
from etl.run.plan import SyncOptions
from etl.run.report import RunReport
from etl.simulator import SimulatorServer, generate_account
from etl.verify.checks import verify
from tests.campaigns.campaign import Ground
from tests.support.job import Job, listed
from tests.support.model import Key, Model, Row, assert_same
from tests.support.roles import own_database
from tests.support.service_faults import APP_TOKEN, APP_TOKEN_ID

TOKENS: Final = 420
PAGE_CAP: Final = 60
ACCOUNTS: Final = 3
"""Different accounts; a case has one of them."""
IN_A_ROW: Final = 16
"""So many seeds in a row have the same: a few cases, as of a slice, need not make them all."""
DELETED: Final = 25
VISIBLE: Final = ("upload_token", "upload_token_superseded")


@dataclass
class SecondNight:
    """A warehouse after the first night, the account as of the second, and both truths."""

    server: SimulatorServer
    job: Job
    """Of a warehouse that stays as it is: cases run in copies of it."""
    before: Model
    after: Model
    postgres_url: str

    @contextmanager
    def copy(self, **variables: str) -> Iterator[Job]:
        """The job with a copy of the warehouse, dropped afterwards."""
        template = self.job.database_url.rpartition("/")[2].partition("?")[0]
        with own_database(self.postgres_url, template) as url:
            try:
                yield replace(self.job, database_url=url, variables=self.job.variables | variables)
            finally:
                self.server.faults.clear()

    # --- what holds ------------------------------------------------------------------------------

    def assert_published(self, job: Job, unseen: Sequence[str] = ()) -> None:
        """The second night, as an undisturbed run leaves it, but for columns not seen."""
        assert_same(
            without(unseen, job.current()),
            without(unseen, self.after.current()),
        )
        assert_same(without(unseen, job.superseded()), without(unseen, self.after.superseded()))

    def assert_untouched(self, job: Job) -> None:
        """The first night."""
        assert_same(job.current(), self.before.current())
        assert_same(job.superseded(), self.before.superseded())

    def assert_one_of_both(self, job: Job) -> bool:
        """What a reader sees is what the ledger says; whether that is the second night."""
        with psycopg.connect(job.database_url) as connection:
            # One snapshot: the run may be at work still.
            connection.execute("set transaction isolation level repeatable read")
            runs = connection.execute(
                "select status, published_at is not null from kaltura.sync_run order by run_id"
            ).fetchall()
            visible = connection.execute(
                "select (select count(*) from kaltura.upload_token), "
                "(select count(*) from kaltura.upload_token_superseded)"
            ).fetchone()
        published = sum(status == "succeeded" for status, _ in runs)
        assert all((status == "succeeded") == stamped for status, stamped in runs), runs
        assert published in (1, 2), runs
        model = self.after if published == 2 else self.before
        assert visible == (len(model.current()), len(model.superseded()))
        return bool(published == 2)

    def assert_repaired(self, job: Job, unseen: Sequence[str] = ()) -> RunReport:
        """A clean run reaches the state of an undisturbed one; nothing is left behind.

        The checks look at all that was ever published, so they need to run here only: a disturbed
        run has published nothing, or exactly what is there now.
        """
        self.server.faults.clear()
        report = job.run()
        self.assert_published(job, unseen)
        assert_sound(job)
        (left,) = job.query("select count(*) as n from kaltura.upload_token_staging")
        assert left["n"] == 0
        assert [run["run_id"] for run in job.runs() if run["status"] == "running"] == []
        return report


def without(columns: Sequence[str], rows: Mapping[Key, Row]) -> Mapping[Key, Row]:
    """The rows without some of their columns."""
    if not columns:
        return rows
    return {
        key: {name: value for name, value in row.items() if name not in columns}
        for key, row in rows.items()
    }


def exit_of(job: Job, options: SyncOptions | None = None) -> tuple[int, EtlError | None]:
    """Exit code of a run, and its error.  An error that is none of ours is raised."""
    try:
        job.run(options=options)
    except EtlError as error:
        return error.exit_code, error
    return 0, None


def assert_sound(job: Job) -> None:
    """Every check of ``kaltura-etl verify`` passes."""
    breaches = [each for each in verify(job.database_url) if not each.ok]
    assert not breaches, [(each.name, each.rows[:2]) for each in breaches]


def visible(job: Job) -> dict[str, Row]:
    """A fingerprint of what analysts see, stamps included: equal if it is the same to the byte."""
    return {
        table: job.query(
            f"select count(*), md5(string_agg(each::text, '' order by each::text)) "  # noqa: S608
            f"from kaltura.{table} as each"
        )[0]
        for table in VISIBLE
    }


def expire_lease(job: Job) -> None:
    """Age the lease of a run that died by an hour; not that of one frozen in a transaction."""
    with (
        suppress(psycopg.errors.LockNotAvailable),
        closing(psycopg.connect(job.database_url)) as connection,
        connection.transaction(),
    ):
        connection.execute("set local lock_timeout = '500ms'")
        connection.execute(
            "update kaltura.sync_run set heartbeat_at = heartbeat_at - interval '1 hour' "
            "where status = 'running'"
        )


def others_connected(job: Job) -> int:
    """Backends of this database that are not this query's."""
    (others,) = job.query(
        "select count(*) as n from pg_stat_activity where datname = current_database() "
        "and pid <> pg_backend_pid() and backend_type = 'client backend'"
    )
    return int(others["n"])


def account_of(seed: int) -> int:
    """Which of the accounts a case has."""
    return seed // IN_A_ROW % ACCOUNTS


def second_night(ground: Ground, seed: int) -> SecondNight:
    """The scene for a case: one of a few accounts, kept for the next cases."""
    number = account_of(seed)
    return ground.keep(
        ("second night", number),
        lambda: make_second_night(ground.postgres_url, ground.template, number),
    )


@contextmanager
def make_second_night(postgres_url: str, template: str, number: int) -> Iterator[SecondNight]:
    """Live through a first night, and let two days pass."""
    account = generate_account(TOKENS, seed=number, open_share=0.3)
    with (
        own_database(postgres_url, template) as database_url,
        SimulatorServer(account, page_cap=PAGE_CAP, seed=number) as server,
    ):
        server.partner.app_tokens[APP_TOKEN_ID] = {
            "id": APP_TOKEN_ID,
            "token": APP_TOKEN,
            "hashType": "SHA1",
            "sessionType": 2,
            "sessionDuration": 3600,
        }
        job = Job.of(server, database_url, ETL_ABSENCE_GRACE="0s", ETL_CONCURRENCY="2")
        before, after = Model(), Model()
        for model in (before, after):
            model.night(listed(server))
        job.run()
        server.life().advance(48)
        for token in random.Random(number).sample(list(account.line), DELETED):
            account.delete(token.id)
        after.night(listed(server))
        scene = SecondNight(server, job, before, after, postgres_url)
        with scene.copy() as copy:
            copy.run()
            scene.assert_published(copy)
        yield scene
