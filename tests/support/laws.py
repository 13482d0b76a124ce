"""A state machine's world: a service that changes, and the laws that hold after every run.

The rules that run anything are in tests/campaigns/stateful.py.
"""

from __future__ import annotations

import random
import secrets
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Final

import psycopg
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    precondition,
    rule,
)
from psycopg import sql

from etl.coverage import Coverage
from etl.run.audit import REJECTED_ALWAYS_ALLOWED, absences_allowed
from etl.simulator import SimulatorServer
from etl.warehouse.load.vanished import LACKING_AT_LEAST
from tests.support.databases import copy_database, with_database
from tests.support.job import Job, listed
from tests.support.model import Row
from tests.support.refusals import (
    FIRST_SECOND,
    account_of_singles,
    let_hours_pass,
    staged,
)

TOKENS: Final = 140
PAGE_SIZE: Final = 12
"""So that a run has more pages than one batch takes.  A walk of pages of 5 or 6 rows may be refused
as incomplete although nothing is wrong."""
UNREADABLE_ALLOWED: Final = 2
ALL: Final = 10**6
PAGE_AGE_MAX: Final = timedelta(hours=6)
COUNT: Final = st.sampled_from([1, 5, 30])
SEED: Final = st.integers(0, 99)
PERSON: Final = st.sampled_from(["anna of the film club", "otto of the film club"])


@dataclass(frozen=True, slots=True)
class View:
    """What the service had at the time of one run: ids of tokens."""

    listed: frozenset[str]
    good: frozenset[str]
    """Those of them that can be read and loaded."""
    bad: frozenset[str]
    unreadable: frozenset[str]


@dataclass
class World:
    """What the examples share: a database server, and where processes write."""

    postgres_url: str
    template: str
    output: Path
    endings: dict[str, int] = field(default_factory=dict)
    """How often runs ended in which way: a campaign must meet all of them."""

    @contextmanager
    def database(self) -> Iterator[str]:
        """A migrated database of one example."""
        name = sql.Identifier(database := f"test_{secrets.token_hex(6)}")
        with closing(psycopg.connect(self.postgres_url, autocommit=True)) as connection:
            copy_database(connection, database, self.template)
            try:
                yield with_database(self.postgres_url, database)
            finally:
                connection.execute(sql.SQL("drop database {} with (force)").format(name))


class Laws(RuleBasedStateMachine):
    """One account and its warehouse.  The rules here change the account; ``look`` asserts laws."""

    def __init__(self, world: World) -> None:
        super().__init__()
        self.world = world
        self.server = SimulatorServer(account_of_singles(TOKENS))
        self.database = world.database()
        self.server.start()
        self.job = Job.of(
            self.server,
            self.database.__enter__(),
            ETL_ABSENCE_GRACE="0s",
            ETL_PAGE_SIZE=str(PAGE_SIZE),
            ETL_MAX_UNREADABLE=str(UNREADABLE_ALLOWED),
            ETL_RESUME_WINDOW="1d",
            ETL_CONCURRENCY="2",
        )
        self.hidden: list[str] = []
        self.bad: dict[str, int] = {}
        """The status that each shall have when it is mended."""
        self.unreadable: list[str] = []
        self.views: dict[int, list[View]] = {}
        self.created = 0
        self.erased: set[str] = set()
        """Names of people and files that were erased; they have blanks, so rows quote them."""
        self.laws_held = False
        """False as well before the first run: there is nothing to end with then."""

    # --- the service -------------------------------------------------------------------------

    @rule(count=st.sampled_from([1, 5, 30, 60]), seed=SEED)
    def hide(self, count: int, seed: int) -> None:
        """Tokens vanish, to come back perhaps."""
        for token_id in self._some(self.view().listed, count, seed):
            assert self.server.account.delete(token_id)
            self.hidden.append(token_id)

    @precondition(lambda self: self.hidden)
    @rule(count=st.sampled_from([1, ALL]), seed=SEED)
    def show(self, count: int, seed: int) -> None:
        """Hidden tokens come back as they were."""
        for token_id in self._some(self.hidden, count, seed):
            assert self.server.account.undelete(token_id)
            self.hidden.remove(token_id)

    @rule(count=st.sampled_from([1, 5]), seed=SEED)
    def delete(self, count: int, seed: int) -> None:
        """Tokens go for good."""
        for token_id in self._some(self.view().good, count, seed):
            assert self.server.account.delete(token_id)

    @rule(count=COUNT)
    def add(self, count: int) -> None:
        """Tokens are made, newer than all others."""
        for _ in range(count):
            second = FIRST_SECOND + 60 * (TOKENS + self.created)
            self.server.account.insert(
                {
                    "id": f"1_{self.created:04d}",
                    "createdAt": second,
                    "updatedAt": second,
                    "fileName": f"new film {self.created}.mp4",
                }
            )
            self.created += 1

    @rule(count=st.sampled_from([1, 5, 30]), seed=SEED)
    def spoil(self, count: int, seed: int) -> None:
        """Rows can no longer be loaded."""
        for token_id in self._some(self.view().good, count, seed):
            (token,) = self.server.account.find(token_id)
            self.bad[token_id] = token.status
            assert self.server.account.change(token_id, {"status": "often"}, touch=False)

    @rule(count=COUNT)
    def add_bad(self, count: int) -> None:
        """Tokens are made whose rows cannot be loaded: unlike known ones, they have no values."""
        first = self.created
        self.add(count)
        for number in range(first, self.created):
            token_id = f"1_{number:04d}"
            self.bad[token_id] = 0
            assert self.server.account.change(token_id, {"status": "often"}, touch=False)

    @precondition(lambda self: self.bad)
    @rule(count=st.sampled_from([1, ALL]), seed=SEED)
    def mend(self, count: int, seed: int) -> None:
        """Rows can be loaded again."""
        for token_id in self._some(self.bad.keys() - set(self.hidden), count, seed):
            status = self.bad.pop(token_id)
            assert self.server.account.change(token_id, {"status": status}, touch=False)

    @rule(count=st.sampled_from([1, 1, 3]), seed=SEED)
    def make_unreadable(self, count: int, seed: int) -> None:
        """Every page with one of these fails."""
        self.unreadable = self._some(self.view().good, count, seed)
        self.server.configure(poison=self.unreadable)

    @rule(count=st.sampled_from([1, 5]), seed=SEED, person=PERSON)
    def give(self, count: int, seed: int, person: str) -> None:
        """Tokens get another owner."""
        for token_id in self._some(self.view().good, count, seed):
            assert self.server.account.change(token_id, {"userId": person})

    @precondition(lambda self: self.unreadable)
    @rule()
    def make_readable(self) -> None:
        """All pages can be read again."""
        self.unreadable = []
        self.server.configure(poison=[])

    @rule(hours=st.sampled_from([1, 4, 7]))
    def wait(self, hours: int) -> None:
        """Hours pass without a run or a change."""
        let_hours_pass(self.job, hours)

    def mend_everything(self) -> None:
        self.make_readable()
        self.show(ALL, 0)
        self.mend(ALL, 0)

    # --- what holds --------------------------------------------------------------------------

    def look(self, known: frozenset[str], code: str = "") -> Row:
        """The laws that hold after every run; returns its row of the ledger."""
        self.laws_held = False
        run, view = self.last_run(), self.view()
        self.views.setdefault(run["run_id"], []).append(view)
        ending = f"{run['status']} {run['error_kind'] or code}"
        self.world.endings[ending] = self.world.endings.get(ending, 0) + 1
        written = self.job.query(
            "select token_id, change_kind from kaltura.upload_token where run_id = %s",
            run["run_id"],
        )
        # No token is called absent that the service lists.
        absent = {row["token_id"] for row in written if row["change_kind"] == "absent"}
        assert absent & view.listed == set()
        # What was not published changes nothing.
        assert run["status"] == "succeeded" or not written
        if run["status"] == "succeeded" and run["mode"] == "full":
            self._expect_the_list(run, known)
        if run["status"] not in ("running", "failed", "abandoned"):
            assert staged(self.job) == 0
        self.expect_no_erased()
        self._expect_a_truthful_ledger()
        self.laws_held = True
        return run

    def _expect_the_list(self, run: Row, known: frozenset[str]) -> None:
        """The warehouse lists what could be read, and keeps what could not."""
        views = self.views_of(run)
        now = self.known()
        # What lies in a second that cannot be read is neither found nor lost.
        holes = Coverage.from_sql("{" + ",".join(hole["span"] for hole in run["holes"]) + "}")
        in_holes = {token_id for token_id in self._ever() if holes.contains(_second(token_id))}
        always_good = frozenset.intersection(*[view.good for view in views])
        once_good = frozenset.union(*[view.good for view in views])
        kept = known & frozenset.union(*[view.bad | view.unreadable for view in views])
        assert always_good - in_holes <= now
        assert now <= once_good | kept | (known & in_holes)
        assert kept & views[-1].listed <= now

    def _expect_a_truthful_ledger(self) -> None:
        wrong = self.job.query(
            "select run.run_id, origin.status from kaltura.sync_run run "
            "join kaltura.sync_run origin on origin.run_id = run.resumed_from "
            "where origin.status not in ('failed', 'abandoned')"
        )
        assert wrong == []
        pages = self.job.query(
            "select run.run_id, published_at, run.oldest_page_at as told, "
            "min(page.requested_at) as oldest "
            "from kaltura.sync_run run join kaltura.sync_page page using (run_id) "
            "where published_at is not null group by run.run_id order by run.run_id desc limit 1"
        )
        for run in pages:
            assert run["oldest"] >= run["published_at"] - PAGE_AGE_MAX
            assert run["told"] == run["oldest"]

    def expect_no_erased(self) -> None:
        """What was erased is in no table, whatever the service has sent since."""
        if not self.erased:
            return
        found = self.job.query(
            "select place, each from ("
            "select 'upload_token' as place, t::text as each from kaltura.upload_token as t "
            "union all select 'upload_token_superseded', t::text "
            "from kaltura.upload_token_superseded as t "
            "union all select 'upload_token_staging', t::text "
            "from kaltura.upload_token_staging as t "
            "union all select 'rejected_row', convert_from(payload, 'UTF8') "
            "from kaltura.rejected_row) as written (place, each) where each like any (%s)",
            [f'%"{each}"%' for each in sorted(self.erased)],
        )
        assert found == [], found[:2]

    def is_publishable(self, view: View, known: frozenset[str], accept: int | None) -> bool:
        """Whether a run that reads all of this itself must be published."""
        absent = len(known - view.listed)
        return (
            len(self.rejected(view)) <= REJECTED_ALWAYS_ALLOWED
            and len(view.bad) < LACKING_AT_LEAST
            and len(view.unreadable) <= UNREADABLE_ALLOWED
            and absent <= max(absences_allowed(len(known), len(known)), accept or 0)
        )

    # --- what is -----------------------------------------------------------------------------

    def view(self) -> View:
        ids = frozenset(fields["id"] for fields in listed(self.server))
        bad, unreadable = ids & frozenset(self.bad), ids & frozenset(self.unreadable)
        return View(ids, ids - bad - unreadable, bad - unreadable, unreadable)

    def views_of(self, run: Row) -> Sequence[View]:
        """What the service had at the times of the runs of this run's walk."""
        return [
            view
            for each in self.job.runs()
            if each["walk_id"] == run["walk_id"]
            for view in self.views.get(each["run_id"], ())
        ]

    def known(self) -> frozenset[str]:
        """The tokens that the warehouse lists."""
        rows = self.job.query("select token_id from kaltura.upload_token where is_listed")
        return frozenset(row["token_id"] for row in rows)

    def rejected(self, view: View) -> frozenset[str]:
        """The rows that count against the limit; a token that is stored keeps what is known."""
        rows = self.job.query("select token_id from kaltura.upload_token")
        return view.bad - {row["token_id"] for row in rows}

    def _ever(self) -> list[str]:
        old = [f"0_{number:04d}" for number in range(TOKENS)]
        return old + [f"1_{number:04d}" for number in range(self.created)]

    def last_run(self) -> Row:
        """The ledger's last row; spare ones stand for nothing."""
        return [run for run in self.job.runs() if run["attempts"]][-1]

    def attempts(self) -> int:
        """How often a run was started; equal failures are counted in one row."""
        (row,) = self.job.query("select coalesce(sum(attempts), 0) as n from kaltura.sync_run")
        return int(row["n"])

    def is_alone(self) -> bool:
        (others,) = self.job.query(
            "select count(*) as n from pg_stat_activity where datname = current_database() "
            "and pid <> pg_backend_pid() and backend_type = 'client backend'"
        )
        return int(others["n"]) == 0

    @staticmethod
    def _some(ids: Iterable[str], count: int, seed: int) -> list[str]:
        ordered = sorted(ids)
        return random.Random(seed).sample(ordered, min(count, len(ordered)))


def _second(token_id: str) -> int:
    kind, number = token_id.split("_")
    return FIRST_SECOND + 60 * (int(number) + (TOKENS if kind == "1" else 0))
