"""A world whose truth is known: tokens that change at random, and runs that look at them.

It writes what the loader would have written (ledger, versions, unobserved tokens) straight into the
tables, from its own plain reading of the rules: so the views are compared with the truth, not with
the program.  Nights pass as fast as rows can be inserted, and every kind of run takes part: full
ones, with holes, of a range, incremental, resumed, with rows that could not be loaded.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Any

import psycopg

from tests.support.moments import fill_moments

PARTNER = 101
BEGIN = datetime(2026, 3, 1, tzinfo=UTC)
OPEN = (0, 1, 2)
ENDS = (3, 3, 3, 3, 4, 5, 6, 77, None)
SECOND = timedelta(seconds=1)
VERSION_COLUMNS = (
    *("partner_id", "token_id", "status", "created_at", "updated_at", "is_listed", "version"),
    *("change_kind", "changed_columns", "valid_from", "observed_at", "last_listed_at"),
    *("absence_confirmed_at", "run_id"),
)


@dataclass(frozen=True)
class State:
    """What the service shows of a token from ``since`` on; not listed: nothing."""

    since: datetime
    status: int | None
    listed: bool = True


@dataclass
class Life:
    """One token's truth."""

    token_id: str
    created_at: datetime
    states: list[State]

    def at(self, moment: datetime) -> State | None:
        """The state at a moment; None before it was made."""
        return next((state for state in reversed(self.states) if state.since <= moment), None)

    def second(self) -> int:
        return int(self.created_at.timestamp())


def live(rng: random.Random, token_id: str, begin: datetime) -> Life:
    """A token made at ``begin`` (to the microsecond; created_at is cut to the second)."""
    created_at = begin.replace(microsecond=0)
    moment, states = begin, [State(begin, 0)]
    for status in (1, 2, rng.choice(ENDS), rng.choice(ENDS)):
        moment += timedelta(seconds=rng.expovariate(1 / (86_400 * rng.choice((0.02, 0.5, 2)))))
        if rng.random() < 0.7:
            states.append(State(moment, status))
    if rng.random() < 0.4:
        moment += timedelta(seconds=rng.expovariate(1 / (86_400 * 2)))
        last = states[-1].status
        states.append(State(moment, last, listed=False))
        if rng.random() < 0.3:
            moment += timedelta(seconds=rng.expovariate(1 / (86_400 * 2)))
            states.append(State(moment, rng.choice((last, 3))))
    return Life(token_id, created_at, states)


@dataclass
class Run:
    """A published run; ``began`` is the beginning of its walk, in an earlier run if resumed."""

    run_id: int
    began: datetime
    published_at: datetime
    coverage: tuple[int | None, int | None] | None
    hole: int | None = None
    reads_open: bool = False

    def covers(self, second: int) -> bool:
        if self.coverage is None or second == self.hole:
            return False
        low, high = self.coverage
        return (low is None or second >= low) and (high is None or second < high)

    def sql(self) -> str:
        if self.coverage is None:
            return "{}"
        low, high = ("" if bound is None else str(bound) for bound in self.coverage)
        if self.hole is not None:
            return f"{{(,{self.hole}),[{self.hole + 1},)}}"
        return f"{{[{low},{high})}}" if low else f"{{(,{high})}}"


@dataclass
class World:
    """Lives, the runs that looked, and every version that these published."""

    rng: random.Random
    lives: list[Life] = field(default_factory=list)
    runs: list[Run] = field(default_factory=list)
    versions: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    seen_at: dict[tuple[str, int], datetime] = field(default_factory=dict)
    """The moment of the snapshot that a version shows."""
    unobserved: list[tuple[str, int]] = field(default_factory=list)
    ledger: list[dict[str, Any]] = field(default_factory=list)

    def pass_days(self, days: int, tokens: int) -> None:
        for number in range(tokens):
            begin = BEGIN + timedelta(seconds=self.rng.uniform(-86_400, 86_400 * days * 0.8))
            self.lives.append(live(self.rng, f"0_{number:04}", begin))
        now, run_id = BEGIN, 0
        while now < BEGIN + timedelta(days=days):
            run_id += 1
            began = now
            if self.rng.random() < 0.2:  # a run that died, and the one that resumes its walk
                self._write_run(run_id, now, None, status="failed")
                now += timedelta(minutes=self.rng.uniform(1, 120))
                run_id += 1
            ends = now + timedelta(minutes=self.rng.uniform(0.1, 40))
            self._publish(self._run(run_id, began, ends), now)
            now = ends + timedelta(hours=self.rng.choice((0.05, 0.5, 6, 20)))

    def _run(self, run_id: int, began: datetime, published_at: datetime) -> Run:
        second = int(began.timestamp())
        kind = self.rng.random()
        run = Run(run_id, began, published_at, (None, None))
        if kind < 0.2:
            run.hole = self.rng.choice(self.lives).second()
        elif kind < 0.6:
            run.coverage, run.reads_open = (second - 7_200, None), True
        elif kind < 0.75:
            low = second - self.rng.randrange(86_400 * 6)
            run.coverage = (low, low + self.rng.randrange(86_400 * 3))
        return run

    def _publish(self, run: Run, started_at: datetime) -> None:
        rejected = 0
        for life in self.lives:
            # The page was made at ``moment``, and its reply had arrived some time later.
            moment = run.began + (run.published_at - run.began) * self.rng.random() * 0.9
            received_at = moment + (run.published_at - moment) * self.rng.random()
            known = self.versions.get(life.token_id, [])
            state = life.at(moment)
            if state is None:
                continue
            last = known[-1] if known else None
            known_listed = last is not None and last["is_listed"]
            known_open = known_listed and last is not None and last["status"] in OPEN
            covers = run.covers(life.second())
            shown = state.listed and (covers or (run.reads_open and state.status in OPEN))
            looked_up = (covers and known_listed) or (run.reads_open and known_open)
            if not shown and not looked_up:
                continue
            if shown and self.rng.random() < 0.02:
                rejected += 1
                if known_listed:
                    self.unobserved.append((life.token_id, run.run_id))
            elif not state.listed and self.rng.random() < 0.1:
                self.unobserved.append((life.token_id, run.run_id))  # pending
            else:
                self._see(life, state, run, moment, received_at)
        self.runs.append(run)
        self._write_run(run.run_id, started_at, run, rejected=rejected)

    def _see(
        self, life: Life, state: State, run: Run, moment: datetime, received_at: datetime
    ) -> None:
        known = self.versions.setdefault(life.token_id, [])
        last = known[-1] if known else None
        updated_at = max(
            (each.since for each in life.states if each.since <= moment and each.listed),
        ).replace(microsecond=0)
        row: dict[str, Any] = dict.fromkeys(VERSION_COLUMNS) | {
            "partner_id": PARTNER,
            "token_id": life.token_id,
            "status": state.status,
            "created_at": life.created_at,
            "updated_at": updated_at,
            "is_listed": state.listed,
            "version": len(known) + 1,
            "change_kind": "first_seen",
            "valid_from": run.published_at,
            "observed_at": received_at,
            "run_id": run.run_id,
        }
        if last is None:
            if not state.listed:
                return
        elif not state.listed:
            if not last["is_listed"]:
                return
            row |= {name: last[name] for name in ("status", "updated_at")}
            row |= {"change_kind": "absent", "changed_columns": ["is_listed"]}
            row |= {"last_listed_at": last["observed_at"], "absence_confirmed_at": received_at}
        else:
            names = ("is_listed", "status", "updated_at")
            changed = [name for name in names if row[name] != last[name]]
            if not changed:
                return
            kind = "changed" if last["is_listed"] else "relisted"
            row |= {"change_kind": kind, "changed_columns": changed}
        known.append(row)
        self.seen_at[life.token_id, row["version"]] = moment

    def _write_run(
        self, run_id: int, started_at: datetime, run: Run | None, **values: object
    ) -> None:
        walk_id = run_id
        if run is not None and run.began != started_at:
            walk_id = run_id - 1
        defaults: dict[str, object] = {
            "run_id": run_id,
            "partner_id": PARTNER,
            "walk_id": walk_id,
            "resumed_from": None if walk_id == run_id else walk_id,
            "mode": "full",
            "status": "succeeded",
            "started_at": started_at,
            "finished_at": None if run is None else run.published_at,
            "published_at": None if run is None else run.published_at,
            "coverage": "{}" if run is None else run.sql(),
            "open_coverage": "{(,)}" if run is not None and run.reads_open else "{}",
            "rejected": 0,
        }
        if run is not None and run.reads_open:
            defaults["mode"] = "incremental"
        self.ledger.append(defaults | values)

    def write(self, connection: psycopg.Connection[Any], *, moments: bool = True) -> None:
        """Insert it all; the search_path decides where.  A schema before 0010 keeps no moments."""
        insert(connection, "sync_run", self.ledger)
        for known in self.versions.values():
            superseded = [
                earlier | {"valid_to": later["valid_from"], "superseded_by_run_id": later["run_id"]}
                for earlier, later in pairwise(known)
            ]
            insert(connection, "upload_token_superseded", superseded)
            insert(connection, "upload_token", known[-1:])
        missed = [
            {"partner_id": PARTNER, "token_id": token, "run_id": run_id, "reason": "pending"}
            for token, run_id in self.unobserved
        ]
        insert(connection, "unobserved_token", missed)
        if moments:
            fill_moments(connection)


def insert(connection: psycopg.Connection[Any], table: str, rows: list[dict[str, Any]]) -> None:
    """Insert dicts of the same keys."""
    if rows:
        names = ", ".join(rows[0])
        marks = ", ".join(["%s"] * len(rows[0]))
        with connection.cursor() as cursor:
            cursor.executemany(
                f"insert into {table} ({names}) values ({marks})".encode(),  # noqa: S608
                [list(row.values()) for row in rows],
            )
