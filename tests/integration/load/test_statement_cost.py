"""The work of a run is linear in what it has found, even with the statistics of an empty night.

Autovacuum does not come during a run: so the planner believes what it was told of a staging table
that was empty, or of an account of which nothing was known.  Work is counted in rows of the plans.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import pytest

from etl.process.progress import NoProgress
from etl.process.stop import Stop
from etl.run.backfill import Range, backfill_ids, backfill_range
from etl.run.plan import SyncOptions
from etl.run.report import RunReport
from etl.settings.read import load_settings
from etl.simulator import SimulatorServer, generate_account
from etl.tokens.token import Token, Untold
from etl.warehouse.load import digests
from tests.support.job import Job
from tests.support.nights import PARTNER, START, MakeNights, Nights, make_token, page_of
from tests.support.plans import measured

SMALL, LARGE = 400, 1_600
GROWTH_MAX = 1.35
"""How much faster than the input the work may grow: n log n, and sorts of more rows."""
ROWS_BESIDE = 2_000
"""What a statement may do besides, however little was found."""
OTHERS = 49
LAST = PARTNER + OTHERS + 1
"""The account that is read by whole runs, of every mode."""

Change = Callable[[list[Token], int], list[Token]]


def account(size: int) -> list[Token]:
    return [make_token(f"t{number:06}", START + 7 * number) for number in range(size)]


def vanished(tokens: list[Token], number: int) -> list[Token]:
    return tokens[number:]


def changed(tokens: list[Token], number: int) -> list[Token]:
    return [each._replace(status=2) for each in tokens[:number]] + tokens[number:]


def new(tokens: list[Token], number: int) -> list[Token]:
    return tokens + [make_token(f"n{each:06}", START + 7 * each + 3) for each in range(number)]


def nameless(tokens: list[Token], number: int) -> list[Token]:
    return [each._replace(file_name=None) for each in tokens[:number]] + tokens[number:]


def empty(make_nights: MakeNights) -> Nights:
    """An empty warehouse: the one of the test, again."""
    nights = make_nights()
    nights.query(
        "truncate kaltura.upload_token, kaltura.upload_token_superseded, "
        "kaltura.upload_token_status_moment_log, kaltura.upload_token_status_count_log, "
        "kaltura.upload_bytes_arrival_log, "
        "kaltura.upload_token_staging, kaltura.sync_run cascade"
    )
    return nights


def freeze_statistics(nights: Nights) -> None:
    """Those of now; none are gathered later."""
    for table in ("upload_token", "upload_token_staging", "rejected_row", "sync_run"):
        nights.query(f"alter table kaltura.{table} set (autovacuum_enabled = off)")
        nights.query(f"analyze kaltura.{table}")


def work_of_a_night(nights: Nights, change: Change, number: int) -> Counter[str]:
    """The work of a night in which so many tokens of an account have changed, by statement."""
    tokens = account(LARGE + 100)
    nights.night(tokens)
    freeze_statistics(nights)
    with measured(nights.database) as work:
        nights.night(change(tokens, number))
    counts = nights.counts
    assert counts.inserted + counts.changed + counts.absent == number
    return work


def assert_linear(small: Counter[str], large: Counter[str], factor: float) -> None:
    """Each statement of the larger night did at most so many times the work of the smaller one."""
    assert small.keys() == large.keys()
    for statement, work in large.items():
        allowed = small[statement] * factor * GROWTH_MAX + ROWS_BESIDE
        assert work <= allowed, f"{small[statement]} -> {work}: {statement}"


@pytest.mark.parametrize("change", [vanished, changed, new, nameless])
def test_with_the_statistics_of_an_empty_night(make_nights: MakeNights, change: Change) -> None:
    small = work_of_a_night(empty(make_nights), change, SMALL)
    large = work_of_a_night(empty(make_nights), change, LARGE)

    assert_linear(small, large, factor=LARGE / SMALL)


def test_values_that_rows_do_not_tell(make_nights: MakeNights) -> None:
    """With the statistics of an empty night, too."""
    works = []
    for number in (SMALL, LARGE):
        nights = empty(make_nights)
        tokens = account(LARGE + 100)
        nights.night(tokens)
        freeze_statistics(nights)
        untold = Untold(("updated_at",), "updated_at_invalid")
        with measured(nights.database) as work:
            nights.night(changed(tokens, number), untold=dict.fromkeys(range(number), untold))
        assert (nights.counts.changed, nights.counts.partly_loaded) == (number, number)
        works.append(work)

    assert_linear(works[0], works[1], factor=LARGE / SMALL)


def test_other_accounts_cost_nothing(make_nights: MakeNights) -> None:
    """The last of 50 accounts, of which the others have left walks that were not published."""
    alone = work_of_a_night(make_nights(), changed, SMALL)
    nights = empty(make_nights)
    nights.night(account(LARGE + 100))
    add_accounts(nights)
    tokens = account(LARGE + 100)
    with measured(nights.database) as work:
        nights.night(changed(tokens, SMALL))

    assert_linear(alone, work, factor=1.0)


def add_accounts(nights: Nights) -> None:
    """Others with the same tokens, each with a walk that has staged all of them."""
    for table in ("upload_token", "sync_run"):
        names = [
            str(row["attname"])
            for row in nights.query(
                "select attname from pg_attribute where attnum > 0 and not attisdropped "
                "and attrelid = %s::regclass order by attnum",
                f"kaltura.{table}",
            )
        ]
        shifted = {"partner_id": "partner_id + other"}
        if table == "sync_run":
            shifted |= {name: f"{name} + 1000 * other" for name in ("run_id", "walk_id")}
        nights.query(
            f"insert into kaltura.{table} ({', '.join(names)}) "  # noqa: S608
            f"select {', '.join(shifted.get(name, name) for name in names)} "
            f"from kaltura.{table} cross join generate_series(1, {OTHERS}) as other "
            f"where partner_id = {PARTNER}"
        )
    nights.query(
        "insert into kaltura.upload_token_staging (walk_id, partner_id, token_id, created_at, "
        "kind, from_lookup, observed_at) select partner_id, partner_id, token_id, created_at, "
        "'present', false, observed_at from kaltura.upload_token "
        "where partner_id between %s and %s",
        PARTNER + 1,
        PARTNER + OTHERS,
    )


def full(job: Job) -> RunReport:
    return job.run()


def incremental(job: Job) -> RunReport:
    return job.run(options=SyncOptions(mode="incremental"))


def by_range(job: Job) -> RunReport:
    settings = load_settings(environment=job.environment()).checked()
    wanted = Range(datetime.fromtimestamp(START - 10**9, UTC), datetime.now(UTC))
    options = SyncOptions(mode="backfill")
    return backfill_range(settings, options, wanted, stop=Stop(), progress=NoProgress())


def by_ids(job: Job) -> RunReport:
    settings = load_settings(environment=job.environment()).checked()
    ids = [
        str(row["token_id"])
        for row in job.query(
            "select token_id from kaltura.upload_token where partner_id = %s", LAST
        )
    ]
    options = SyncOptions(mode="backfill")
    return backfill_ids(settings, options, ids, stop=Stop(), progress=NoProgress())


def work_of_run(
    nights: Nights, read: Callable[[Job], RunReport], *, known: bool, among: bool
) -> Counter[str]:
    """The work of a run of one account, new or known and changed since, alone or among 49."""
    nights.night(account(SMALL))
    source = generate_account(SMALL, seed=1, partner_id=LAST)
    with SimulatorServer(source) as server:
        job = Job.of(server, nights.url, ETL_ABSENCE_GRACE="0s")
        if known:
            job.run()
        freeze_statistics(nights)
        if among:
            add_accounts(nights)
        ids = [token.id for token in source.line]
        for token_id in ids[-150:]:
            source.change(token_id, {"fileName": "changed.mp4", "status": 1})
        for token_id in ids[:20]:
            source.delete(token_id)
        with measured() as work:
            report = read(job)
    assert report.inserted + report.changed > 100
    return work


@pytest.mark.parametrize(
    ("read", "known"),
    [(full, False), (full, True), (incremental, True), (by_range, True), (by_ids, True)],
    ids=["new", "full", "incremental", "range", "ids"],
)
def test_every_mode_of_the_last_of_50_accounts(
    make_nights: MakeNights, read: Callable[[Job], RunReport], known: bool
) -> None:
    alone = work_of_run(make_nights(), read, known=known, among=False)
    among = work_of_run(empty(make_nights), read, known=known, among=True)

    assert_linear(alone, among, factor=1.0)


@pytest.mark.parametrize("mode", ["full", "incremental"])
def test_old_runs_cost_each_absent_token_nothing(make_nights: MakeNights, mode: str) -> None:
    """However many runs have published, and whether or not they covered the tokens."""
    covered = "{(,)}" if mode == "full" else f"{{[{START + 10**6},)}}"
    works = []
    for runs in (0, 5_000):
        nights = empty(make_nights)
        tokens = account(SMALL + 100)
        nights.night(tokens)
        nights.query(
            "insert into kaltura.sync_run (run_id, walk_id, partner_id, mode, status, started_at, "
            "finished_at, published_at, coverage) select 100 + n, 100 + n, %s, %s, 'succeeded', "
            "at, at, at, %s::int8multirange from generate_series(1, %s) as n, "
            "lateral (select now() + n * interval '1 s' as at) as moment",
            *(PARTNER, mode, covered, runs),
        )
        nights.query("select setval('kaltura.sync_run_run_id_seq', 100000)")
        freeze_statistics(nights)
        nights.time += timedelta(days=1)
        with measured(nights.database) as work:
            nights.night(tokens[SMALL:])
        assert nights.counts.absent == SMALL
        works.append(work)

    assert_linear(works[0], works[1], factor=1.0)


def test_a_lookup_costs_what_it_asks_for(make_nights: MakeNights) -> None:
    """Of an account that the statistics do not know, beside others that they know."""
    works = []
    for size in (SMALL, 10 * SMALL):
        nights = empty(make_nights)
        nights.night(account(LARGE))
        add_accounts(nights)
        for table in ("upload_token", "sync_page", "sync_run"):
            nights.query(
                f"delete from kaltura.{table} "  # noqa: S608
                f"where {'run_id' if table == 'sync_page' else 'partner_id'} <= {PARTNER}"
            )
        freeze_statistics(nights)
        tokens = account(size)
        nights.night(tokens)
        run = nights.open()
        nights.stage(run, page_of(tokens[50:], from_start=True, to_end=True))
        with measured(nights.database) as work:
            assert len(nights.confirm(run, tokens[25:])) == 50
        works.append(work)

    assert_linear(works[0], works[1], factor=1.0)


def test_filling_in_digests_is_linear(
    make_nights: MakeNights, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In steps, with the statistics of a table that has them all."""
    monkeypatch.setattr(digests, "TOKENS_AT_ONCE", 100)
    works = []
    for size in (SMALL, LARGE):
        nights = empty(make_nights)
        nights.night(account(size))
        freeze_statistics(nights)
        nights.query("update kaltura.upload_token set digest = null")
        run = nights.open()
        with measured(nights.database) as work:
            filled = digests.fill_digests(nights.database, PARTNER, run.run_id, check=lambda: None)
        assert filled == size
        works.append(work)

    assert_linear(works[0], works[1], factor=LARGE / SMALL)
