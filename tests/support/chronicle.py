"""Nights of a simulated account, each compared with the truth.

``Chronicle`` lives through nights: the account lives on, a real run reads it, and the run is moved
to the simulated time.  Within a run the account's clock runs with the machine's, so what changes
while the run reads has a true time of its own as well.
"""

from __future__ import annotations

import random
import time
from collections import Counter
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any

import msgspec
import psycopg

from etl.coverage import EVERYTHING, Coverage
from etl.errors import DataRefused, ServiceUnavailable
from etl.process.progress import NoProgress
from etl.process.stop import Stop
from etl.run.plan import SyncOptions
from etl.run.report import RunReport
from etl.run.sync import sync
from etl.settings.read import load_settings
from etl.simulator import Churn, Life, SimulatorServer
from etl.simulator.faults import RequestInfo
from tests.support.job import Job
from tests.support.restamp import restamp_run
from tests.support.truth import TruthLog, decoded

NIGHT_SECONDS = 600
"""What a night takes of the account's time."""


@dataclass
class Night:
    """One published run, and what the account was while it read."""

    run_id: int
    mode: str
    published_at: datetime
    first_mark: int
    last_mark: int
    blind: set[str] = field(default_factory=set)
    """Tokens whose rows could not be read, or not be loaded, or not be settled."""
    began: float = 0.0
    """The account's time when its walk began."""
    reach: float = 0.0
    """An incremental run reads all tokens created after this."""
    coverage: Coverage = field(default_factory=Coverage)


@dataclass
class Chronicle:
    """Nights of one account in one warehouse."""

    server: SimulatorServer
    job: Job
    seed: int
    nights: list[Night] = field(default_factory=list)
    figures: Counter[str] = field(default_factory=Counter)

    def __post_init__(self) -> None:
        self.truth = TruthLog(self.server)
        self.account = self.server.account
        # Busier than by default: it is changes of known tokens that a history is made of.
        self.life = Life(
            self.account,
            seed=self.seed,
            uploads_per_day=len(self.account) * 0.05,
            deletions_per_day=len(self.account) * 0.03,
        )
        self.rng = random.Random(f"{self.seed}/chronicle")
        self.kept: dict[tuple[str, int], tuple[Any, ...]] = {}

    # ---- nights -------------------------------------------------------------------------------

    def live(self, hours: float) -> None:
        """Let the account live."""
        self.life.advance(hours)
        if self.rng.random() < 0.2:
            self.life.delete_some_user()

    def night(
        self,
        *,
        mode: str = "full",
        churn: float = 0,
        rejected: int = 0,
        poisoned: int = 0,
        broken: bool = False,
        grace_hours: float = 0,
    ) -> Night:
        """One run that publishes.

        Args:
            mode: what to read.
            churn: deletions, insertions and changes after each request.
            rejected: so many tokens come in a form that cannot be loaded.
            poisoned: so many tokens make their page fail.
            broken: a first run fails half-way, the account moves, and the next one resumes it.
            grace_hours: tokens younger than this are not called absent.
        """
        mark, begin, real = self.account.mark, self.life.now, time.time()
        self.account.clock = lambda: begin + (time.time() - real)
        odd = self._changed_lately(rejected)
        plain = {token_id: self._swap_body(token_id) for token_id in odd}
        self.account.poison.update(self._changed_lately(poisoned, alone=True))
        known_runs = {run["run_id"] for run in self.job.runs()}
        try:
            if broken:
                self._fail_half_way()
                self._move_some(40)
            if grace_hours:
                self._delete_young(5)
            if churn:
                # Of its own for each night: the same one would insert the same ids again.
                seed = self.seed * 1_000 + len(self.nights)
                self.server.service.churn = Churn(
                    delete=churn, insert=churn, change=churn, mode="hostile", seed=seed
                )
            grace_seconds = grace_hours and grace_hours * 3_600 + time.time() - begin
            try:
                report = self._run(mode, grace_seconds)
            except DataRefused:
                # The list moved faster than it could be read: tried again when it is quieter.
                if not churn:
                    raise
                self.server.service.churn = None
                self.figures["refused under churn"] += 1
                report = self._run(mode, grace_seconds)
        finally:
            self.server.service.churn = None
        last_mark = self.account.mark
        for token_id, body in plain.items():
            (token,) = self.account.find(token_id)
            token.body = body
        shift = timedelta(seconds=begin - real)
        with psycopg.connect(self.job.database_url, autocommit=True) as connection:
            for run in self.job.runs():
                if run["run_id"] not in known_runs:
                    restamp_run(connection, run["run_id"], run["started_at"] + shift)
        # Not the time that the run took, so that a seed gives the same life on any machine.
        self.life.now = begin + NIGHT_SECONDS
        assert self.account.clock() < self.life.now
        self.account.clock = lambda: self.life.now
        run = self.job.last_run()
        assert run["run_id"] == report.run_id
        assert report.resumed_from is not None or not broken, report
        night = Night(report.run_id, run["mode"], run["published_at"], mark, last_mark, began=begin)
        night.reach = self.nights[-1].began if self.nights else 0
        night.coverage = Coverage.from_sql(run["certificate"])
        assert mode == night.mode
        assert mode != "full" or poisoned or night.coverage.contains_span(EVERYTHING)
        night.blind = self._unobserved(night, set(odd)) | set(self.account.poison)
        self.account.poison.clear()
        self.nights.append(night)
        self.figures["nights"] += 1
        self.figures["mutations"] = last_mark
        self._check_the_night(night)
        return night

    def _run(self, mode: str, grace_seconds: float) -> RunReport:
        settings = replace(
            load_settings(environment=self.job.environment()).checked(),
            # Longer than the setting allows: the account's time is months ago.
            absence_grace=timedelta(seconds=grace_seconds),
        )
        return sync(settings, SyncOptions(mode=mode), stop=Stop(), progress=NoProgress())

    def _changed_lately(self, count: int, *, alone: bool = False) -> list[str]:
        """Known tokens that changed since the last night: those whose blindness matters most.

        ``alone``: the only one of its second.  Tied rows change places from page to page, so one
        that fails cannot be stepped around.
        """
        if not count:
            return []
        mark = self.nights[-1].last_mark
        seconds = Counter(token.created_at for token in self.account.line)
        chosen: dict[str, bool] = {}
        for change in self.account.superseded:
            for token in self.account.find(change.token_id):
                if change.until > mark >= token.listed_since and not (
                    alone and seconds[token.created_at] > 1
                ):
                    moved = decoded(change.body)["status"] != token.status
                    chosen[token.id] = chosen.get(token.id, False) or moved
        tokens = self.rng.sample(sorted(chosen), len(chosen))
        return sorted(tokens, key=lambda token_id: not chosen[token_id])[:count]

    def _swap_body(self, token_id: str) -> bytes:
        """Send a status that is none: the truth stays what it is."""
        (token,) = self.account.find(token_id)
        body = token.body
        token.body = msgspec.json.encode(decoded(body) | {"status": "none"})
        return body

    def _fail_half_way(self) -> None:
        """A run that fails once it has saved some pages, so that there is a walk to resume."""

        def fail_later(info: RequestInfo) -> str | None:
            saved = self.job.query(
                "select run_id from kaltura.sync_run where status = 'running' and pages > 0"
            )
            return "503-html" if saved and info.position == "list" else None

        self.server.faults.decide_by = fail_later
        try:
            self.job.run(ETL_RETRY_ATTEMPTS="1", ETL_CONCURRENCY="1")
        except ServiceUnavailable:
            pass
        else:
            raise AssertionError("the run did not fail")
        finally:
            self.server.faults.clear()

    def _move_some(self, count: int) -> None:
        """After the run that failed and before the one that resumes it."""
        tokens = [token.id for token in self.account.line]
        for token_id in self.rng.sample(tokens, count):
            if self.rng.random() < 0.1:
                self.account.delete(token_id)
            else:
                self.account.change(token_id, {"status": self.rng.randrange(1, 5)})

    def _delete_young(self, count: int) -> None:
        """Known tokens that are too young to be called absent."""
        last = self.nights[-1]
        young = [
            token.id
            for token in self.account.line
            if token.created_at > last.began - 20 * 3_600 and token.listed_since <= last.last_mark
        ]
        for token_id in self.rng.sample(young, min(count, len(young))):
            self.account.delete(token_id)

    def _unobserved(self, night: Night, odd: set[str]) -> set[str]:
        """What the warehouse says that the run did not see; it may not say it of others."""
        rows = self.job.query(
            "select token_id, reason from kaltura.unobserved_token where run_id = %s", night.run_id
        )
        rejected = {row["token_id"] for row in rows if row["reason"] == "rejected"}
        pending = {row["token_id"] for row in rows if row["reason"] == "pending"}
        assert rejected <= odd
        listed = dict(self.account.listed_throughout(night.first_mark, night.last_mark))
        assert not pending & listed.keys()
        self.figures["rejected"] += len(rejected)
        self.figures["pending"] += len(pending)
        return rejected | pending | odd

    # ---- after each night ---------------------------------------------------------------------

    def _check_the_night(self, night: Night) -> None:
        """O1, O2 and O4: nothing lost, no false absence, the past as it was."""
        throughout = {
            token_id
            for token_id, _ in self.account.listed_throughout(night.first_mark, night.last_mark)
        }
        rows = self.job.query("select * from kaltura.upload_token_history")
        current = {row["token_id"]: row for row in rows if row["is_current"]}
        listed = {token_id for token_id, row in current.items() if row["is_listed"]}
        absent = {
            token_id
            for token_id, row in current.items()
            if row["change_kind"] == "absent" and row["run_id"] == night.run_id
        }
        assert not throughout & absent
        if night.mode == "full":
            assert throughout - listed <= night.blind
        self.figures["absences"] += len(absent)
        versions = {
            (row["token_id"], row["version"]): tuple(
                str(value)
                for name, value in sorted(row.items())
                if name not in ("valid_to", "valid_period", "is_current", "superseded_by_run_id")
            )
            for row in rows
        }
        assert {key: versions.get(key) for key in self.kept} == self.kept
        self.kept = versions
