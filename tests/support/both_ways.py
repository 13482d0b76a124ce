"""The same runs over the same pages in two warehouses, which compare them in two ways.

``live_both_ways`` lives through runs of a restless account: whatever a run comes to, the two must
stage, count, look up and publish the same.  A difference fails with the seed.
"""

from __future__ import annotations

import copy
import random
from collections import Counter, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, Final, TypeVar

import psycopg
from psycopg.rows import dict_row

from etl.coverage import EVERYTHING, POSITIVE_INFINITY, Span
from etl.errors import LeaseHeld, ServiceUnavailable
from etl.run.fetch import suppress
from etl.tokens.page import Page
from etl.walk import Lookup, PageRequest, PageRows, Request, Walk, WalkStuck
from etl.warehouse.ledger.ending import fail_run
from etl.warehouse.ledger.lease import open_run
from etl.warehouse.ledger.run import OpenRun
from etl.warehouse.load.compare import JSON_ROWS_MAX
from etl.warehouse.load.digests import fill_digests, wrong_digests, wrong_fingerprints
from etl.warehouse.load.missing import missing_tokens
from etl.warehouse.load.publish import publish
from etl.warehouse.load.resolve import audit_counts
from etl.warehouse.load.staging import stage_batch, stage_lookup
from etl.warehouse.privacy.erase import erase, load_suppression
from etl.warehouse.privacy.subject import Subject
from etl.warehouse.schema.database import Database
from tests.support.last_seen import LastSeen
from tests.support.model import Row
from tests.support.moving_account import AGE_SECONDS, PARTNER, SECONDS, USERS, MovingAccount

KEY: Final = "an-erasure-key-of-some-length-40-chars.."
TABLES: Final = {
    "upload_token": "token_id",
    "upload_token_superseded": "token_id, version",
    "upload_token_status_moment_log": "token_id, version",
    "rejected_row": "run_id, token_id, reason, payload",
    "unobserved_token": "token_id, run_id",
    "sync_run": "run_id",
    "sync_page": "run_id, seq",
    "erasure": "erased_at, kind, subject_hash",
}
ANY_RUN: Final = "select 1 from kaltura.sync_run limit 1"
REQUESTS_AT_MOST: Final = 60
"""A run that needs more, of an account that changes too fast, comes to an early end."""
OF_ONE_WAREHOUSE: Final = {
    *("digest", "user_digest", "digests_filled", "compared_by"),
    *("heartbeat_at", "finished_at", "erased_at", "pid"),
    # Estimates between the beginning of a walk, by the clock of the one warehouse, and a reply.
    *("happened_at", "from_happened_at", "status_happened_at", "earlier_stays"),
}
"""Columns in which two warehouses of the same runs may differ."""
_T = TypeVar("_T")


class RunBroke(Exception):
    """The run comes to an early end."""


@dataclass
class Way:
    """A warehouse, and how its runs compare."""

    database: Database
    url: str
    compare: str
    json_rows_max: int = JSON_ROWS_MAX
    run: OpenRun = field(init=False)

    def query(self, statement: str, *values: object) -> list[Row]:
        with psycopg.connect(self.url, autocommit=True, row_factory=dict_row) as connection:
            cursor = connection.execute(statement, values)
            return cursor.fetchall() if cursor.description else []

    def tables(self) -> dict[str, list[Row]]:
        """Every table, with the name of its run in place of a run's own times."""
        with psycopg.connect(self.url, row_factory=dict_row) as connection:
            found = {
                table: connection.execute(
                    f"select * from kaltura.{table} order by {order}".encode()  # noqa: S608
                ).fetchall()
                for table, order in TABLES.items()
            }
        runs = found["sync_run"]
        times = {run["started_at"]: f"start of {run['run_id']}" for run in runs}
        times |= {run["published_at"]: f"end of {run['run_id']}" for run in runs}
        times.pop(None, None)

        def told(value: Any) -> Any:
            return times.get(value, value) if isinstance(value, datetime) else value

        return {
            table: [
                {name: told(each) for name, each in row.items() if name not in OF_ONE_WAREHOUSE}
                for row in rows
            ]
            for table, rows in found.items()
        }


class BothWays:
    """Runs of one account in both warehouses."""

    def __init__(self, ways: Sequence[Way], seed: int) -> None:
        self.ways = ways
        self.rng = rng = random.Random(f"{seed}/runs")
        self.account = MovingAccount(
            seed,
            tokens=rng.choice((1, 10, 25, 40)),
            page_cap=rng.choice((6, 9, 14, 20)),
            restless=rng.choice((0, 0, 0.1, 0.3, 1)),
        )
        self.figures: Counter[str] = Counter()
        self._broken: Exception | None = None
        # So that other pages are checked in other lives.
        first_run = rng.randrange(1, 500)
        for way in ways:
            way.json_rows_max = rng.choice((0, 3, JSON_ROWS_MAX))
            way.query("truncate kaltura.sync_run, kaltura.erasure, kaltura.erasure_key cascade")
            way.query(
                "truncate kaltura.upload_token, kaltura.upload_token_superseded, "
                "kaltura.upload_token_status_moment_log, kaltura.upload_token_status_count_log, "
                "kaltura.upload_bytes_arrival_log"
            )
            way.query("truncate kaltura.upload_token_staging")
            way.query(f"alter sequence kaltura.sync_run_run_id_seq restart with {first_run}")

    def both(self, act: Callable[[Way], _T]) -> _T:
        """Do it in both warehouses, where it must come to the same."""
        one, other = [act(way) for way in self.ways]
        assert one == other, (one, other)
        return one

    # --- one run ---------------------------------------------------------------------------------

    def run(self) -> None:
        """Of any kind, to its end or not; a broken one is mostly gone on with."""
        rng = self.rng
        if self._broken is None or rng.random() < 0.2:
            kinds = ("full", "full", "full", "incremental", "backfill", "ids")
            self._kind = rng.choice(kinds) if self.ways[0].query(ANY_RUN) else "full"
            now = datetime.now(UTC).replace(microsecond=0)
            self._begin = now - timedelta(seconds=AGE_SECONDS - rng.randrange(SECONDS))
            self._end = self._begin + timedelta(seconds=rng.randrange(30))
        self._open()
        self._suppression = load_suppression(self.ways[0].database, PARTNER, KEY)
        self._requests_left = rng.randrange(1, 12) if rng.random() < 0.3 else REQUESTS_AT_MOST
        try:
            self._read()
            self._confirm()
        except (RunBroke, WalkStuck) as error:
            self._broken = error
            self.figures[type(error).__name__] += 1
            self._end_early()
        else:
            self._broken = None
            self._publish()
        self.assert_same()

    def _open(self) -> None:
        is_range = self._kind == "backfill"
        resume = self.rng.random() < 0.9

        def open_in(way: Way) -> tuple[Any, ...]:
            way.run = run = open_run(
                way.database,
                partner_id=PARTNER,
                mode="backfill" if self._kind == "ids" else self._kind,
                range_from=self._begin if is_range else None,
                range_to=self._end if is_range else None,
                lease_seconds=60,
                resume_window=timedelta(hours=6) if resume and self._kind != "ids" else None,
            )
            return run.run_id, run.baseline, run.resumed_from, run.walk.coverage, run.walk.counts

        _, _, resumed_from, _, _ = self.both(open_in)
        self.figures["resumed"] += resumed_from is not None
        if resumed_from is None:
            self.last_seen = LastSeen()

    def _read(self) -> None:
        if self._kind == "full":
            self._walk(EVERYTHING)
        elif self._kind == "backfill":
            self._walk(self.ways[0].run.range)
        elif self._kind == "incremental":
            newest = int(self._begin.timestamp())
            self._walk(Span(newest, POSITIVE_INFINITY), newest_first=True)
            self._walk(EVERYTHING, open_only=True)
        else:
            ids = self.account.ids()
            self._look_up(self.rng.sample(ids, self.rng.randint(1, len(ids))))

    def _walk(self, target: Span, *, newest_first: bool = False, open_only: bool = False) -> None:
        rng, of_run = self.rng, self.ways[0].run.walk
        walk = Walk(
            target,
            page_size=rng.choice((self.account.page_cap, 500)),
            coverage=of_run.open_coverage if open_only else of_run.coverage,
            max_unreadable=5,
            in_flight=rng.choice((1, 2, 4)),
            newest_first=newest_first,
        )
        batch_pages = rng.choice((1, 2, 3, 8, 100))
        waiting: deque[Request] = deque()
        batch: list[Page] = []
        late: list[Page] = []
        while True:
            while len(waiting) < 8 and (wanted := walk.next_request()) is not None:
                waiting.append(wanted)
            if not waiting:
                break
            self._take_in(walk, waiting.popleft(), batch, open_only=open_only)
            if batch and rng.random() < 0.1:
                late.append(batch.pop())
            if len(batch) >= batch_pages:
                self._stage(walk, batch, open_only=open_only)
                batch, late = late, batch
        self._stage(walk, [*batch, *late], open_only=open_only)

    def _take_in(self, walk: Walk, request: Request, batch: list[Page], *, open_only: bool) -> None:
        self._requests_left -= 1
        if self._requests_left < 0:
            if self.rng.random() < 0.5:
                self._stage(walk, batch, open_only=open_only)
            raise RunBroke
        if isinstance(request, Lookup):
            page = suppress(self.account.answer(request.token_ids), self._suppression)
            batch.append(page)
            walk.receive_lookup(request, {each for each in page.token_ids if each is not None})
            return
        assert isinstance(request, PageRequest)
        found = self.account.page(request, open_only=open_only)
        if found is None:
            self.figures["unreadable"] += 1
            walk.fail(request)
            return
        page = suppress(found, self._suppression)
        rows = PageRows(page.positions, page.token_ids, page.facts.total_count)
        page.span = walk.receive(request, rows)
        batch.append(page)

    def _stage(self, walk: Walk, batch: list[Page], *, open_only: bool) -> None:
        if not batch:
            return
        pages, batch[:] = list(batch), []
        if self.rng.random() < 0.5:
            self.rng.shuffle(pages)
        holes = [
            {"span": hole.span.to_sql(), "reason": hole.reason, "tokens": hole.tokens}
            for hole in walk.holes
        ]

        def stage_in(way: Way) -> tuple[Any, ...]:
            run = way.run
            spans = [page.span for page in pages if page.span is not None]
            for seq, page in enumerate(pages, run.walk.next_seq):
                page.seq = seq
            stage_batch(
                way.database,
                run,
                copy.deepcopy(pages),
                # Without pages that come late.
                coverage=run.walk.coverage.union([] if open_only else spans),
                open_coverage=run.walk.open_coverage.union(spans) if open_only else None,
                holes=holes,
                requests=0,
                retries=0,
                compare=way.compare,
                json_rows_max=way.json_rows_max,
            )
            return run.walk.counts, run.walk.coverage, run.walk.open_coverage

        self.both(stage_in)
        self.last_seen.note(pages, self.ways[0].run.range)
        self.figures["pages"] += len(pages)

    def _look_up(self, token_ids: Sequence[str]) -> None:
        page = suppress(self.account.answer(token_ids), self._suppression)
        grace = self.rng.choice((timedelta(0), timedelta(seconds=AGE_SECONDS - SECONDS // 2)))

        def stage_in(way: Way) -> Any:
            page.seq = way.run.walk.next_seq
            stage_lookup(way.database, way.run, copy.deepcopy(page), absence_grace=grace)
            return way.run.walk.counts

        self.both(stage_in)
        self.last_seen.note_lookup(page, self.ways[0].run.range)

    def _confirm(self) -> None:
        limit = self.rng.choice((3, 500))

        def missing_after(token_id: str | None) -> list[tuple[str, datetime]]:
            return self.both(
                lambda way: missing_tokens(way.database, way.run, after=token_id, limit=limit)
            )

        missing = missing_after(None)
        while missing:
            self._look_up([token_id for token_id, _ in missing])
            missing = missing_after(missing[-1][0])

    def _publish(self) -> None:
        counts = self.both(lambda way: audit_counts(way.database, way.run))
        for way in self.ways:
            publish(
                way.database,
                way.run,
                counts,
                holes=way.run.walk.holes,
                overrides={},
                requests=0,
                retries=0,
            )
            if way.run.walk.undigested and self.rng.random() < 0.7:
                fill_digests(way.database, PARTNER, way.run.run_id, check=lambda: None)
        self.last_seen.assert_published(
            self.ways[0].query("select * from kaltura.upload_token"), self.account.twins
        )
        for kind in (
            *("inserted", "changed", "absent", "relisted", "rejected", "pending"),
            *("stateless", "partly_loaded"),
        ):
            self.figures[kind] += getattr(counts, kind)
        self.figures["published"] += 1

    def _end_early(self) -> None:
        """The run fails, or its process vanishes."""
        if self.rng.random() < 0.5:
            for way in self.ways:
                fail_run(way.database, way.run, ServiceUnavailable("It says nothing."))
            return
        for way in self.ways:
            way.query("update kaltura.sync_run set heartbeat_at = 'epoch' where status = 'running'")

    # --- between runs ----------------------------------------------------------------------------

    def erase(self) -> None:
        """A user, or a token."""
        subject = self.rng.choice(
            [
                *[Subject("user", user_id) for user_id in USERS if user_id],
                *[Subject("token", token_id) for token_id in self.account.ids()[:3]],
            ]
        )
        self.both(
            lambda way: erase(
                way.database,
                partner_id=PARTNER,
                key=KEY,
                subjects=[subject],
                lease_seconds=60,
                apply=True,
            )
        )
        # What the walk has shown before may be published under a pseudonym.
        self.last_seen.odd |= self.last_seen.shown.keys()
        self.figures["erased"] += 1

    def forget_digests(self) -> None:
        """As after a migration, or partly so."""
        modulus = self.rng.choice((1, 2, 7))
        column = self.rng.choice(("digest", "user_digest"))
        for way in self.ways:
            way.query(
                f"update kaltura.upload_token set {column} = null "  # noqa: S608
                "where hashtext(token_id) %% %s = 0",
                modulus,
            )

    def assert_same(self) -> None:
        """All tables are the same, and every digest is that of its columns."""
        one, other = [way.tables() for way in self.ways]
        for table, rows in one.items():
            assert rows == other[table], table
        for way in self.ways:
            wrong = [
                *wrong_digests(way.database, PARTNER, check=lambda: None),
                *wrong_fingerprints(way.database, PARTNER, intervals=2, seed=1),
            ]
            assert wrong == []


def live_both_ways(ways: Sequence[Way], seed: int, *, runs: int) -> Counter[str]:
    """So many runs of an account that both do not know, and what happens between runs.

    Returns how often what happened.
    """
    both = BothWays(ways, seed)
    for _ in range(runs):
        both.run()
        both.account.live(both.rng.choice((0, 3, 10, 30, 60)))
        if both.rng.random() < 0.15:
            both.forget_digests()
        if both.rng.random() < 0.1:
            try:
                both.erase()
            except LeaseHeld:
                both.figures["held"] += 1
    return both.figures
