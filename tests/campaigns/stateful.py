"""Any order of hidden tokens, bad rows, refused, broken and killed runs: the laws hold throughout.

A state machine of Hypothesis drives a real service and real runs.  Nothing changes in the service
while a run is at work, so what the service lists at the time of a run is known exactly.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from datetime import UTC, datetime
from typing import Final

from hypothesis import HealthCheck, Phase, seed, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    initialize,
    precondition,
    rule,
    run_state_machine_as_test,
)

from etl.archive.account import erase_account
from etl.errors import EtlError
from etl.process.progress import NoProgress
from etl.process.stop import Stop
from etl.run.audit import REJECTED_ALWAYS_ALLOWED
from etl.run.backfill import Range, backfill_range
from etl.run.plan import SyncOptions
from etl.run.sync import sync
from etl.settings.read import load_settings
from etl.simulator.faults import RequestInfo
from etl.verify.checks import verify
from etl.warehouse.schema.database import open_database
from etl.warehouse.schema.revision import migrate
from tests.campaigns.campaign import SCHEMA, Campaign, Ending, Ground
from tests.campaigns.migrations import REVISIONS, downgrade
from tests.support.erasure import erased
from tests.support.job import running, wait_until
from tests.support.laws import ALL, PERSON, SEED, Laws, World
from tests.support.refusals import (
    FIRST_SECOND,
    let_hours_pass,
    no_room_for_publishing,
)

LIVES: Final = 6
STEPS: Final = 12
REQUESTS: Final = 24
"""About as many as a full run sends."""
LEASE_HOURS: Final = 0.5
"""Longer than a lease lasts."""
MODES: Final = st.sampled_from(["full", "full", "incremental"])
ACCEPT: Final = st.sampled_from([None, ALL])
REQUEST: Final = st.integers(1, REQUESTS)


class Nights(Laws):
    """Rules that run the job in all ways, between the changes of its account."""

    def teardown(self) -> None:
        try:
            if self.laws_held:
                self.mend_everything()
                self._run("full", ALL)
                assert [each for each in verify(self.job.database_url) if not each.ok] == []
        finally:
            self.server.close()
            self.database.__exit__(None, None, None)

    @initialize()
    def first_night(self) -> None:
        self._run("full", None)

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
        assert self.views_of(self.last_run()) == [self.view()]

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
        """The same, but the process dies before it can update the ledger."""
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
        """Many rows cannot be loaded when a run reads them that is refused or breaks."""
        if seed % 2:
            self.spoil(30, seed)
        else:
            self.add_bad(30)
        self.run_broken(mode, request)
        self.mend(ALL, seed)

    # Its waits between two attempts at an unreadable row are real.
    @precondition(lambda self: not self.unreadable)
    @rule(mode=MODES, request=REQUEST)
    def run_killed(self, mode: str, request: int) -> None:
        """A process that gets SIGKILL as it sends its so-many-th request."""
        before, known = self.attempts(), self.known()
        with (
            self._killing_at(request) as started,
            running(
                *("sync", "--json", "--mode", mode, "--accept-absences", str(ALL)),
                env=self.job.environment(),
                output=self.world.output,
            ) as process,
        ):
            started(process.pid)
            code = process.wait()
        wait_until(self.is_alone)
        assert self.attempts() > before, self.world.output.read_text()
        self.look(known, code=f"exit {code}")
        let_hours_pass(self.job, LEASE_HOURS)

    # --- other commands ----------------------------------------------------------------------

    @rule(count=st.sampled_from([1, 5]), seed=SEED)
    def erase_tokens(self, count: int, seed: int) -> None:
        """Some of the tokens that are stored."""
        chosen = self._some(self.known(), count, seed)
        files = {self.file_of(token_id) for token_id in chosen}
        erased(self.job, tokens=tuple(chosen), key=None)
        self.erased |= files
        self.expect_no_erased()

    @rule(person=PERSON)
    def erase_person(self, person: str) -> None:
        """A user; the files of theirs have had other owners, and may get others again."""
        erased(self.job, users=(person,), key=None)
        self.erased.add(person)
        self.expect_no_erased()

    @precondition(lambda self: self.erased)  # else it would begin anew too often
    @rule()
    def erase_account(self) -> None:
        """The account leaves with all that was erased in it, and comes back with the next run."""
        with open_database(self.job.database_url, SCHEMA) as database:
            erase_account(
                database,
                None,
                partner_id=self.job.partner_id,
                lease_seconds=900,
                apply=True,
                stop=Stop(),
            )
        self.erased.clear()
        assert self.known() == frozenset()

    @rule(revision=st.sampled_from(REVISIONS[-2:]))
    def migrate(self, revision: str) -> None:
        """Back to an earlier revision, and forward again."""
        before = self.job.everything()
        downgrade(self.job.database_url, revision)
        migrate(self.job.database_url)
        assert self.job.everything() == before

    # --- how ---------------------------------------------------------------------------------

    @staticmethod
    def file_of(token_id: str) -> str:
        kind, number = token_id.split("_")
        return f"{'new ' if kind == '1' else ''}film {int(number)}.mp4"

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
        before, known, view = self.attempts(), self.known(), self.view()
        options = SyncOptions(mode=mode, accept_absences=accept, resume=resume, dry_run=dry_run)
        error = self._attempt(options, part)
        assert self.attempts() > before
        run = self.look(known)
        if interrupted:
            return
        if self.is_publishable(view, known, accept):
            assert run["status"] == ("dry_run" if dry_run else "succeeded"), repr(error)
        elif run["status"] not in ("succeeded", "dry_run"):
            assert run["status"] == "refused", repr(error)
        too_many = len(self.rejected(view)) > REJECTED_ALWAYS_ALLOWED
        must_be_refused = too_many and not view.unreadable
        if mode == "full" and len(self.views_of(run)) == 1 and must_be_refused:
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

    def _interrupted(self, mode: str, trouble: AbstractContextManager[None], *, dies: bool) -> None:
        with trouble:
            self._run(mode, ALL, interrupted=True)
        run = self.last_run()
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


def live(world: World, number: int, *, lives: int, steps: int) -> None:
    """So many lives of so many steps, chosen by a seed."""

    @seed(number)
    class InWorld(Nights):
        def __init__(self) -> None:
            super().__init__(world)

    run_state_machine_as_test(
        InWorld,
        settings=settings(
            max_examples=lives,
            stateful_step_count=steps,
            deadline=None,
            database=None,
            phases=[Phase.generate],
            suppress_health_check=list(HealthCheck),
        ),
    )


def run_case(ground: Ground, number: int) -> Ending:
    def make() -> World:
        return World(ground.postgres_url, ground.template, ground.folder / "output")

    world = ground.keep("world", lambda: nullcontext(make()))
    before = dict(world.endings)
    live(world, number, lives=LIVES, steps=STEPS)
    runs = {
        name: count - before.get(name, 0)
        for name, count in world.endings.items()
        if count > before.get(name, 0)
    }
    return Ending(f"{LIVES} lives", "held", runs)


STATEFUL: Final = Campaign(
    name="stateful",
    promise="Tokens may be hidden and come back, rows become unreadable and be mended, runs be "
    "refused, accepted, resumed, killed, dry, incremental or of a range, tokens, people and the "
    "account be erased, the schema be migrated, in any order: no token is called absent that the "
    "service lists, what is published is what the service had, and what was erased is nowhere.",
    run=run_case,
    in_slice=1,
    in_all=40,
    stuck_seconds=600,
)
