"""Any order of hidden tokens, bad rows, refused, broken and killed runs: the laws hold throughout.

A state machine of Hypothesis drives a real service and real runs.  Nothing changes in the service
while a run is at work, so what the service lists at the time of a run is known exactly.
"""

from __future__ import annotations

import os
import random
import secrets
import signal
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

import psycopg
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    precondition,
    rule,
    run_state_machine_as_test,
)
from psycopg import sql

from etl.coverage import Coverage
from etl.errors import EtlError
from etl.process.progress import NoProgress
from etl.process.stop import Stop
from etl.run.audit import REJECTED_ALWAYS_ALLOWED, absences_allowed
from etl.run.backfill import Range, backfill_range
from etl.run.plan import SyncOptions
from etl.run.sync import sync
from etl.settings.read import load_settings
from etl.simulator import SimulatorServer
from etl.simulator.faults import RequestInfo
from etl.verify.checks import verify
from tests.conftest import with_database
from tests.support.job import Job, listed, wait_until
from tests.support.refusals import (
    FIRST_SECOND,
    account_of_singles,
    let_hours_pass,
    no_room_for_publishing,
    staged,
)
from tests.support.warm import Warm, warm

TOKENS: Final = 140
PAGE_SIZE: Final = 12
"""So that a run has more pages than one batch takes.  A walk of pages of 5 or 6 rows may be refused
as incomplete although nothing is wrong."""
REQUESTS: Final = 24
"""About as many as a full run sends."""
UNREADABLE_ALLOWED: Final = 2
ALL: Final = 10**6
PAGE_AGE_MAX: Final = timedelta(hours=6)
LEASE_HOURS: Final = 0.5
"""Longer than a lease lasts."""
MODES: Final = st.sampled_from(["full", "full", "incremental"])
ACCEPT: Final = st.sampled_from([None, ALL])
COUNT: Final = st.sampled_from([1, 5, 30])
SEED: Final = st.integers(0, 99)
REQUEST: Final = st.integers(1, REQUESTS)


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
    """What the examples share: a database server, and a process that starts runs."""

    postgres_url: str
    template: str
    starter: Warm
    output: Path
    endings: dict[str, int] = field(default_factory=dict)
    """How often runs ended in which way: a campaign must meet all of them."""

    @contextmanager
    def database(self) -> Iterator[str]:
        """A migrated database of one example."""
        name = sql.Identifier(database := f"test_{secrets.token_hex(6)}")
        with closing(psycopg.connect(self.postgres_url, autocommit=True)) as connection:
            connection.execute(
                sql.SQL("create database {} template {}").format(
                    name, sql.Identifier(self.template)
                )
            )
            try:
                yield with_database(self.postgres_url, database)
            finally:
                connection.execute(sql.SQL("drop database {} with (force)").format(name))


class Nights(RuleBasedStateMachine):
    """One account and its warehouse.  Rules change the one or run the other."""

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
        self.views: dict[int, View] = {}
        self.created = 0
        self.laws_held = False
        """False as well before the first run: there is nothing to end with then."""

    def teardown(self) -> None:
        try:
            if self.laws_held:
                self._mend_everything()
                self._run("full", ALL)
                assert [each for each in verify(self.job.database_url) if not each.ok] == []
        finally:
            self.server.close()
            self.database.__exit__(None, None, None)

    # --- the service -------------------------------------------------------------------------

    @initialize()
    def first_night(self) -> None:
        self._run("full", None)

    @rule(count=st.sampled_from([1, 5, 30, 60]), seed=SEED)
    def hide(self, count: int, seed: int) -> None:
        """Tokens vanish, to come back perhaps."""
        for token_id in self._some(self._view().listed, count, seed):
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
        for token_id in self._some(self._view().good, count, seed):
            assert self.server.account.delete(token_id)

    @rule(count=COUNT)
    def add(self, count: int) -> None:
        """Tokens are made, newer than all others."""
        for _ in range(count):
            second = FIRST_SECOND + 60 * (TOKENS + self.created)
            self.server.account.insert(
                {"id": f"1_{self.created:04d}", "createdAt": second, "updatedAt": second}
            )
            self.created += 1

    @rule(count=st.sampled_from([1, 5, 30]), seed=SEED)
    def spoil(self, count: int, seed: int) -> None:
        """Rows can no longer be loaded."""
        for token_id in self._some(self._view().good, count, seed):
            (token,) = self.server.account.find(token_id)
            self.bad[token_id] = token.status
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
        self.unreadable = self._some(self._view().good, count, seed)
        self.server.configure(poison=self.unreadable)

    @precondition(lambda self: self.unreadable)
    @rule()
    def make_readable(self) -> None:
        """All pages can be read again."""
        self.unreadable = []
        self.server.configure(poison=[])

    @rule(hours=st.sampled_from([1, 4, 7]))
    def wait(self, hours: int) -> None:
        """Nobody does anything for hours."""
        let_hours_pass(self.job, hours)

    # --- runs --------------------------------------------------------------------------------

    @rule(accept=ACCEPT)
    def run_full(self, accept: int | None) -> None:
        self._run("full", accept)

    @rule(accept=ACCEPT)
    def run_incremental(self, accept: int | None) -> None:
        self._run("incremental", accept)

    @rule(accept=ACCEPT)
    def run_from_the_beginning(self, accept: int | None) -> None:
        self._run("full", accept, resume=False)
        assert self._views_of(self.job.last_run()) == [self._view()]

    @rule(accept=ACCEPT, part=st.sampled_from([(0, 70), (50, 90)]))
    def run_backfill(self, accept: int | None, part: tuple[int, int]) -> None:
        self._run("backfill", accept, part=part)

    @rule(mode=MODES, accept=ACCEPT)
    def run_dry(self, mode: str, accept: int | None) -> None:
        self._run(mode, accept, dry_run=True)

    @rule(mode=MODES, request=REQUEST)
    def run_broken(self, mode: str, request: int) -> None:
        """A run whose so-many-th request is refused."""
        self._interrupted(mode, self._breaking_at(request), dies=False)

    @rule(mode=MODES, request=REQUEST)
    def run_dying(self, mode: str, request: int) -> None:
        """The same, but nobody is left to tell the ledger."""
        self._interrupted(mode, self._breaking_at(request), dies=True)

    @rule(mode=MODES, dies=st.booleans())
    def run_not_published(self, mode: str, dies: bool) -> None:
        """A run that ends when everything is confirmed, just before it is published."""
        self._interrupted(mode, no_room_for_publishing(self.job), dies=dies)

    # Rules that are several in one: chance alone rarely brings them together.
    @rule(count=st.sampled_from([5, 60]), seed=SEED, mode=MODES, published=st.booleans())
    def hide_for_one_run(self, count: int, seed: int, mode: str, published: bool) -> None:
        """Tokens are hidden from one run, which is refused or ends just before it is published."""
        self.hide(count, seed)
        if published:
            self._run(mode, None)
        else:
            self.run_not_published(mode, dies=False)
        self.show(ALL, seed)

    @rule(seed=SEED, mode=MODES, request=REQUEST)
    def spoil_for_one_run(self, seed: int, mode: str, request: int) -> None:
        """Too many rows cannot be loaded when a run reads them that is refused or breaks."""
        self.spoil(30, seed)
        self.run_broken(mode, request)
        self.mend(ALL, seed)

    # Its waits between two attempts at an unreadable row are real.
    @precondition(lambda self: not self.unreadable)
    @rule(mode=MODES, request=REQUEST)
    def run_killed(self, mode: str, request: int) -> None:
        """A process that gets SIGKILL as it sends its so-many-th request."""
        before, known = self._last_run_id(), self._known()
        with self._killing_at(request) as started:
            pid = self.world.starter.start(
                self.job.environment(),
                *("sync", "--json", "--mode", mode, "--accept-absences", str(ALL)),
                output=self.world.output,
            )
            started(pid)
            code = self.world.starter.wait(pid)
        wait_until(self._is_alone)
        assert self._last_run_id() > before, self.world.output.read_text()
        self._look(known, code=f"exit {code}")
        let_hours_pass(self.job, LEASE_HOURS)

    # --- how ---------------------------------------------------------------------------------

    def _run(
        self,
        mode: str,
        accept: int | None,
        *,
        resume: bool = True,
        dry_run: bool = False,
        part: tuple[int, int] | None = None,
        interrupted: bool = False,
    ) -> None:
        before, known, view = self._last_run_id(), self._known(), self._view()
        options = SyncOptions(mode=mode, accept_absences=accept, resume=resume, dry_run=dry_run)
        error = self._attempt(options, part)
        assert self._last_run_id() > before
        run = self._look(known)
        if interrupted:
            return
        if self._is_publishable(view, known, accept):
            assert run["status"] == ("dry_run" if dry_run else "succeeded"), repr(error)
        elif run["status"] not in ("succeeded", "dry_run"):
            assert run["status"] == "refused", repr(error)
        must_be_refused = len(view.bad) > REJECTED_ALWAYS_ALLOWED and not view.unreadable
        if mode == "full" and len(self._views_of(run)) == 1 and must_be_refused:
            assert run["published_at"] is None

    def _attempt(self, options: SyncOptions, part: tuple[int, int] | None) -> EtlError | None:
        """Run; what it raises is returned."""
        chosen = load_settings(environment=self.job.environment()).checked()
        stop = Stop()
        try:
            if part is None:
                sync(chosen, options, stop=stop, progress=NoProgress())
            else:
                begin, end = (
                    datetime.fromtimestamp(FIRST_SECOND + 60 * number, UTC) for number in part
                )
                wanted = Range(begin, end)
                backfill_range(chosen, options, wanted, stop=stop, progress=NoProgress())
        except EtlError as error:
            return error
        else:
            return None

    def _interrupted(self, mode: str, trouble: Any, *, dies: bool) -> None:
        with trouble:
            self._run(mode, ALL, interrupted=True)
        run = self.job.last_run()
        if dies and run["status"] == "failed":
            # What a process leaves behind that is killed instead of failing.
            self.job.query(
                "update kaltura.sync_run set status = 'running', finished_at = null, "
                "error_kind = null, error_message = null where run_id = %s",
                run["run_id"],
            )
            let_hours_pass(self.job, LEASE_HOURS)

    @contextmanager
    def _breaking_at(self, request: int) -> Iterator[None]:
        counted = 0

        def decide(info: RequestInfo) -> str | None:
            nonlocal counted
            counted += info.action == "list"
            return "service-forbidden" if counted == request and info.action == "list" else None

        self.server.faults.decide_by = decide
        try:
            yield
        finally:
            self.server.faults.clear()

    @contextmanager
    def _killing_at(self, request: int) -> Iterator[Callable[[int], None]]:
        """Yield a function that takes the number of the process."""
        counted, pids, is_started = 0, list[int](), threading.Event()

        def started(pid: int) -> None:
            pids.append(pid)
            is_started.set()

        def decide(info: RequestInfo) -> None:
            nonlocal counted
            counted += info.action == "list"
            if counted == request and info.action == "list" and is_started.wait(30):
                with suppress(ProcessLookupError):
                    os.kill(pids[0], signal.SIGKILL)

        self.server.faults.decide_by = decide
        try:
            yield started
        finally:
            self.server.faults.clear()

    def _mend_everything(self) -> None:
        self.make_readable()
        self.show(ALL, 0)
        self.mend(ALL, 0)

    # --- what holds --------------------------------------------------------------------------

    def _look(self, known: frozenset[str], code: str = "") -> dict[str, Any]:
        """The laws that hold after every run; returns its row of the ledger."""
        self.laws_held = False
        run, view = self.job.last_run(), self._view()
        self.views[run["run_id"]] = view
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
        self._expect_a_truthful_ledger()
        self.laws_held = True
        return run

    def _expect_the_list(self, run: dict[str, Any], known: frozenset[str]) -> None:
        """The warehouse lists what could be read, and keeps what could not."""
        views = self._views_of(run)
        now = self._known()
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

    def _is_publishable(self, view: View, known: frozenset[str], accept: int | None) -> bool:
        """Whether a run that reads all of this itself must be published."""
        absent = len(known - view.listed)
        return (
            len(view.bad) <= REJECTED_ALWAYS_ALLOWED
            and len(view.unreadable) <= UNREADABLE_ALLOWED
            and absent <= max(absences_allowed(len(known), len(known)), accept or 0)
        )

    # --- what is -----------------------------------------------------------------------------

    def _view(self) -> View:
        ids = frozenset(fields["id"] for fields in listed(self.server))
        bad, unreadable = ids & frozenset(self.bad), ids & frozenset(self.unreadable)
        return View(ids, ids - bad - unreadable, bad - unreadable, unreadable)

    def _views_of(self, run: dict[str, Any]) -> Sequence[View]:
        """What the service had at the times of the runs of this run's walk."""
        return [
            self.views[each["run_id"]]
            for each in self.job.runs()
            if each["walk_id"] == run["walk_id"]
        ]

    def _known(self) -> frozenset[str]:
        """The tokens that the warehouse lists."""
        rows = self.job.query("select token_id from kaltura.upload_token where is_listed")
        return frozenset(row["token_id"] for row in rows)

    def _ever(self) -> list[str]:
        old = [f"0_{number:04d}" for number in range(TOKENS)]
        return old + [f"1_{number:04d}" for number in range(self.created)]

    def _last_run_id(self) -> int:
        (row,) = self.job.query("select coalesce(max(run_id), 0) as last from kaltura.sync_run")
        return int(row["last"])

    def _is_alone(self) -> bool:
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


@pytest.fixture
def world(postgres_url: str, template_database: str, tmp_path: Path) -> Iterator[World]:
    with warm() as starter:
        yield World(postgres_url, template_database, starter, tmp_path / "output")


def live(world: World, *, examples: int, steps: int) -> None:
    """So many examples of so many steps."""
    run_state_machine_as_test(  # type: ignore[no-untyped-call]
        lambda: Nights(world),
        settings=settings(
            max_examples=examples,
            stateful_step_count=steps,
            deadline=None,
            print_blob=True,
            suppress_health_check=list(HealthCheck),
        ),
    )


def test_the_laws_hold_whatever_happens_to_runs(world: World) -> None:
    live(world, examples=6, steps=12)


@pytest.mark.campaign
@pytest.mark.timeout(3_600)
def test_the_laws_hold_in_a_thousand_lives(world: World) -> None:
    live(world, examples=1_000, steps=25)
    for ending in ("succeeded", "refused", "failed", "running", "dry_run"):
        assert any(each.startswith(ending) for each in world.endings), world.endings
