"""The truth about a simulated account, and nights that are compared with it.

``TruthLog`` knows to the microsecond when each token was in which state, by the account's own
clock.  ``Chronicle`` lives through nights: the account lives on, a real run reads it, and the run
is moved to the simulated time.  Within a run the account's clock runs with the machine's, so what
changes while the run reads has a true time of its own as well.
"""

from __future__ import annotations

import random
import time
from bisect import bisect_right
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any, NamedTuple

import msgspec
import psycopg
from etl.run.options import SyncOptions

from etl.coverage import EVERYTHING, Coverage
from etl.errors import DataRefused, ServiceUnavailable
from etl.process.progress import NoProgress
from etl.process.stop import Stop
from etl.run.engine import RunReport
from etl.run.sync import sync_full
from etl.settings.read import load_settings
from etl.simulator import Churn, Life, SimulatorServer
from etl.simulator.faults import RequestInfo
from tests.support.job import Job
from tests.support.model import VALUES, VOLATILE, columns_of
from tests.support.restamp import restamp_run

COLUMNS = tuple(name for name in VALUES if name not in VOLATILE)
NOT_LISTED = "NOT_LISTED"
OPEN = (0, 1, 2)
NIGHT_SECONDS = 600
"""What a night takes of the account's time."""
Label = int | str | None
"""What the history of statuses tells apart: a status code (None: the service sent none), or
``NOT_LISTED``."""


class State(NamedTuple):
    """From mutation ``since`` on; ``body`` is None while the token is not listed."""

    since: int
    body: bytes | None


class Transition(NamedTuple):
    at: float
    """Unix seconds by the account's clock."""
    label: Label


class TruthLog:
    """Notes the account's own time of every mutation.  Make it before anything happens."""

    def __init__(self, server: SimulatorServer) -> None:
        self.account = server.account
        self.times: list[float] = []
        number_mutation = self.account._next_mutation

        def noted() -> int:
            self.times.append(self.account.clock())
            return number_mutation()

        assert self.account.mark == 0
        self.account._next_mutation = noted  # type: ignore[method-assign]

    def timelines(self) -> dict[str, list[State]]:
        """For each token ever listed its states, oldest first."""
        bodies: dict[str, list[tuple[int, bytes]]] = {}
        for change in self.account.superseded:
            bodies.setdefault(change.token_id, []).append((change.until, change.body))
        stretches: dict[str, list[tuple[int, int | None, bytes]]] = {}
        for token in self.account.line:
            stretches.setdefault(token.id, []).append((token.listed_since, None, token.body))
        for past in self.account.departed:
            known = stretches.setdefault(past.token.id, [])
            known.append((past.since, past.until, past.token.body))
        return {
            token_id: list(_states(sorted(known), sorted(bodies.get(token_id, []))))
            for token_id, known in stretches.items()
        }

    def transitions(self, states: list[State]) -> list[Transition]:
        """When the status or the presence changed."""
        found: list[Transition] = []
        for since, body in states:
            fields = None if body is None else decoded(body)
            label: Label = NOT_LISTED if fields is None else fields["status"]
            if found and found[-1].label == label:
                continue
            if since:
                at = self.times[since - 1]
            else:
                assert fields is not None
                at = fields["createdAt"] if label == 0 else fields["updatedAt"]
            found.append(Transition(at, label))
        return found


def _states(
    stretches: list[tuple[int, int | None, bytes]], bodies: list[tuple[int, bytes]]
) -> Iterator[State]:
    for since, until, last_body in stretches:
        start = since
        for end, body in bodies:
            if since < end and (until is None or end < until):
                yield State(start, body)
                start = end
        yield State(start, last_body)
        if until is not None:
            yield State(until, None)


_DECODED: dict[bytes, dict[str, Any]] = {}


def decoded(body: bytes) -> dict[str, Any]:
    """A token's JSON object; decoded once."""
    if body not in _DECODED:
        _DECODED[body] = msgspec.json.decode(body, type=dict[str, Any])
    return _DECODED[body]


def during(states: list[State], first_mark: int, last_mark: int) -> list[bytes | None]:
    """The states that a token had between two marks; None also for a token not yet there."""
    marks = [state.since for state in states]
    begin, end = bisect_right(marks, first_mark), bisect_right(marks, last_mark)
    some = [state.body for state in states[max(begin - 1, 0) : end]]
    return some if begin else [None, *some]


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
        with closing(Stop()) as stop:
            return sync_full(settings, SyncOptions(mode=mode), stop=stop, progress=NoProgress())

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
                if name not in ("valid_to", "is_current", "superseded_by_run_id")
            )
            for row in rows
        }
        assert {key: versions.get(key) for key in self.kept} == self.kept
        self.kept = versions

    # ---- the whole ----------------------------------------------------------------------------

    def wrong_states(self) -> list[str]:
        """Compare ``upload_token_as_of`` each night with the truth of that night, every token."""
        timelines = self.truth.timelines()
        before: dict[str, dict[str, Any]] = {}
        wrong = []
        for number, night in enumerate(self.nights):
            now = self.as_of(night.published_at)
            for token_id in timelines.keys() | now.keys():
                row, known = now.get(token_id), before.get(token_id)
                states = during(timelines[token_id], night.first_mark, night.last_mark)
                true = any(_same(row, body) for body in states)
                stale = _values(row) == _values(known)
                if token_id in night.blind:
                    right = stale
                elif _in_reach(known, states, night):
                    right = true
                else:
                    right = true or stale
                if not right:
                    wrong.append(
                        f"night {number} ({night.mode}), {token_id}: {row} is not {states}"
                    )
                self.figures["states compared"] += 1
            before = now
        return wrong

    def as_of(self, at: datetime) -> dict[str, dict[str, Any]]:
        """The tokens that were listed, by id."""
        rows = self.job.query("select * from kaltura.upload_token_as_of(%s) where is_listed", at)
        return {row["token_id"]: row for row in rows}

    def status_changes(self) -> list[dict[str, Any]]:
        """``upload_token_status_history`` in the order of each token's versions."""
        return self.job.query(
            "select * from kaltura.upload_token_status_history order by token_id, version"
        )

    def judge(self, changes: Iterable[dict[str, Any]]) -> tuple[list[str], list[Estimate]]:
        """Rows whose interval does not hold the true moment, and how far off estimates are."""
        timelines = self.truth.timelines()
        wrong, estimates = [], []
        for row in changes:
            label = NOT_LISTED if row["to_status"] == NOT_LISTED else row["to_status_code"]
            after, before, guess = (
                row[name].timestamp()
                for name in ("happened_after", "happened_before", "happened_at")
            )
            entered = [
                each.at
                for each in self.truth.transitions(timelines[row["token_id"]])
                if each.label == label and each.at <= before
            ]
            if not entered or entered[-1] < after or not after <= guess <= before:
                wrong.append(f"{row}: true moments {entered}")
                continue
            estimates.append(
                Estimate(
                    row["change_kind"],
                    abs(guess - entered[-1]),
                    row["valid_from"].timestamp() - entered[-1],
                    before - after,
                )
            )
        return wrong, estimates

    def missing_changes(self, changes: Iterable[dict[str, Any]]) -> list[str]:
        """Compare the rows with what the nights knew: one for each change, and no other."""
        found: dict[str, list[tuple[datetime, Label, Label]]] = {}
        for row in changes:
            labels = [
                NOT_LISTED if row[f"{side}_status"] == NOT_LISTED else row[f"{side}_status_code"]
                for side in ("from", "to")
            ]
            found.setdefault(row["token_id"], []).append((row["valid_from"], *labels))
        expected: dict[str, list[tuple[datetime, Label, Label]]] = {}
        last: dict[str, Label] = {}
        for night in self.nights:
            now = self.as_of(night.published_at)
            for token_id in last.keys() | now.keys():
                label: Label = now[token_id]["status"] if token_id in now else NOT_LISTED
                if token_id not in last or last[token_id] != label:
                    change = (night.published_at, last.get(token_id), label)
                    expected.setdefault(token_id, []).append(change)
                last[token_id] = label
        return [
            f"{token_id}: {found.get(token_id)} instead of {expected.get(token_id)}"
            for token_id in found.keys() | expected.keys()
            if found.get(token_id) != expected.get(token_id)
        ]


class Estimate(NamedTuple):
    """Seconds."""

    kind: str
    error: float
    """Of ``happened_at``."""
    late: float
    """How much later than the true moment the run published it."""
    width: float
    """Of the interval."""


def quantile(values: Iterable[float], share: float) -> float:
    """The value that this share of the values does not exceed."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def _values(row: dict[str, Any] | None) -> dict[str, Any] | None:
    return None if row is None else {name: row[name] for name in COLUMNS}


def _same(row: dict[str, Any] | None, body: bytes | None) -> bool:
    """Whether the row says what the service said; a user who was deleted is still named."""
    if row is None or body is None:
        return row is None and body is None
    expected = columns_of(decoded(body))
    return all(
        row[name] == expected[name] or (name == "user_id" and expected[name] is None)
        for name in COLUMNS
    )


def _in_reach(known: dict[str, Any] | None, states: list[bytes | None], night: Night) -> bool:
    """Whether the run must have seen the token as it was.

    A full run sees all but what lies between the neighbours of a row that could not be read; an
    incremental one what is new, open, or known as open.
    """
    fields = [decoded(body) for body in states if body is not None]
    if night.mode == "full":
        seconds = [each["createdAt"] for each in fields]
        seconds += [int(known["created_at"].timestamp())] if known else []
        return all(night.coverage.contains(second) for second in seconds)
    if known is not None and known["status"] in OPEN:
        return True
    return len(fields) == len(states) and all(
        each["status"] in OPEN or each["createdAt"] > night.reach for each in fields
    )
