"""Every published view and function, compared with the lives: six weeks of two accounts."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from datetime import UTC, date, datetime, time, timedelta, tzinfo
from itertools import pairwise
from typing import Any

import psycopg
import pytest
from psycopg.rows import dict_row

from etl.verify.checks import verify
from tests.questions.accounts import (
    ACCOUNT,
    ACCOUNTS,
    BERLIN,
    DAYS,
    NEW_YORK,
    NIGHTS_OF_A_LIFE,
    LivedAccount,
)
from tests.questions.answers import BUCKET_NAMES, OUTCOMES
from tests.questions.known_account import INCREMENTAL_PAGE_SIZE
from tests.questions.lives import BACK, CLOSED, GONE, PENDING, Life, Move
from tests.questions.truth import (
    FAILED,
    NAMES,
    NOT_LISTED,
    OPEN,
    Version,
    as_of,
    bucket_of,
    bytes_by_day,
    current,
    failure_of,
    happened_by,
    histories,
    history_of,
    is_mature,
    looks,
    open_seen_at,
    outcome_of,
    quantile,
    status_at,
    status_changes,
    stay_in,
    stuck_at,
    time_to_complete,
    versions,
)

Connection = psycopg.Connection[dict[str, Any]]
OPEN_NAMES = {NAMES[status] for status in OPEN}
OF_EACH = pytest.mark.parametrize("account", ACCOUNTS.values(), ids=map(str, ACCOUNTS))


@pytest.fixture
def connection(known_url: str) -> Iterator[Connection]:
    with psycopg.connect(
        known_url,
        autocommit=True,
        row_factory=dict_row,
        options="-c search_path=kaltura -c TimeZone=UTC",
    ) as opened:
        yield opened


def test_the_known_warehouse_breaks_no_invariant(known_url: str) -> None:
    """So the calendar that it was set to is one that real runs could have had."""
    broken = {result.name: result.rows for result in verify(known_url) if not result.ok}

    assert broken == {}


@OF_EACH
def test_the_nights_went_as_they_are_told(account: LivedAccount, connection: Connection) -> None:
    rows = connection.execute(
        "select run_id, mode, status, started_at, published_at, resumed_from, unreadable "
        "from sync_run where partner_id = %s order by run_id",
        [account.partner_id],
    ).fetchall()

    assert [tuple(row.values()) for row in rows] == [
        (
            night.run_id,
            night.mode,
            "failed" if night.failed else "succeeded",
            night.began_at,
            None if night.failed else night.published_at,
            night.resumed_from,
            int(night.unreadable is not None),
        )
        for night in account.nights
    ]


def test_an_incremental_run_reads_one_page_of_the_newest_tokens(connection: Connection) -> None:
    """``truth`` says by that what it can have seen."""
    rows = connection.execute(
        "select run_id, array_agg(page.rows) as rows from sync_page as page "
        "inner join sync_run as run using (run_id) "
        "where mode = 'incremental' and filter not like '%In\"%' group by run_id"
    ).fetchall()

    incremental = [night for night in ACCOUNT.nights if night.mode == "incremental"]
    assert len(rows) == len(incremental) >= 5
    assert {tuple(row["rows"]) for row in rows} == {(INCREMENTAL_PAGE_SIZE,)}


def test_nothing_changed_between_a_failed_walk_and_the_one_that_resumed_it(
    connection: Connection,
) -> None:
    """The resumed one took over what had been saved, and its versions got its own times."""
    (account, *_) = ACCOUNTS.values()
    (resumed,) = (night for night in account.nights if night.resumed_from is not None)
    failed = account.night(resumed.resumed_from or 0)
    row = connection.execute(
        "select coverage from sync_run where run_id = %s", [failed.run_id]
    ).fetchone()
    assert row is not None
    assert row["coverage"]
    for life in account.lives:
        was_saved = any(int(life.created_at.timestamp()) in part for part in row["coverage"])
        if was_saved and life.created_at < failed.began_at:
            happened = [move.at for move in life.moves] + [change.at for change in life.names]
            assert not any(failed.began_at < at < resumed.observed_at for at in happened)


@OF_EACH
def test_the_history_is_what_the_runs_must_have_seen(
    account: LivedAccount, connection: Connection
) -> None:
    rows = connection.execute(
        "select token_id, version, change_kind, is_listed, status, user_id, uploaded_size_bytes, "
        "updated_at, valid_from, observed_at, last_listed_at, run_id from upload_token_history "
        'where partner_id = %s order by token_id collate "C", version',
        [account.partner_id],
    ).fetchall()

    expected = sorted(versions(account), key=lambda each: (each.token_id, each.version))
    assert [tuple(row.values()) for row in rows] == [_as_row(version) for version in expected]


def _as_row(version: Version) -> tuple[object, ...]:
    return (
        version.token_id,
        version.version,
        version.kind,
        version.listed,
        version.status,
        version.user_id,
        version.received,
        version.updated_at,
        version.night.published_at,
        version.observed_at,
        version.last_listed_at,
        version.night.run_id,
    )


@OF_EACH
def test_the_interval_and_estimate_of_every_change(
    account: LivedAccount, connection: Connection
) -> None:
    rows = connection.execute(
        "select token_id, version, from_status, to_status, change_kind, happened_at, "
        "happened_after, happened_before, run_id from upload_token_status_history "
        "where partner_id = %s",
        [account.partner_id],
    ).fetchall()

    found = {(row["token_id"], row["version"]): tuple(row.values())[2:] for row in rows}
    expected = {
        (after.token_id, after.version): (
            before and before.seen_as,
            after.seen_as,
            after.kind,
            after.happened_at,
            after.happened_after,
            after.observed_at,
            after.night.run_id,
        )
        for before, after in status_changes(None, account)
    }
    assert found == expected


@OF_EACH
def test_every_change_happened_within_its_interval(
    account: LivedAccount, connection: Connection
) -> None:
    """Against the lives themselves: the moment of every change, not what ``truth`` makes of it."""
    lives = {life.token_id: life for life in account.lives}
    rows = connection.execute(
        "select token_id, version, to_status, happened_at, happened_after, happened_before "
        "from upload_token_status_history where partner_id = %s",
        [account.partner_id],
    ).fetchall()
    assert len(rows) == len(status_changes(None, account))

    for row in rows:
        life = lives[row["token_id"]]
        after, before = row["happened_after"], row["happened_before"]
        entered = [move.at for move in life.moves if _enters(move, row["to_status"])]
        if row["to_status"] == "PENDING":
            entered.append(life.created_at)
        # The last time before it was seen; one that came back closed was closed long before.
        assert after <= row["happened_at"] <= before
        assert any(after <= at <= before for at in entered), row


def _enters(move: Move, status: str) -> bool:
    if isinstance(move.to, int):
        return NAMES[move.to] == status
    return (move.to == GONE) == (status == NOT_LISTED)


@OF_EACH
def test_as_of_any_moment_is_what_the_last_run_had_seen(
    account: LivedAccount, connection: Connection
) -> None:
    """After each run, and against the lives: what a run that read everything saw was true."""
    for look in looks(account):
        night = look.night
        rows = connection.execute(
            "select token_id, is_listed, status, uploaded_size_bytes, user_id "
            "from upload_token_as_of(%s) where partner_id = %s",
            [night.published_at, account.partner_id],
        ).fetchall()

        known = {row["token_id"]: tuple(row.values())[1:] for row in rows}
        assert known == {
            version.token_id: (version.listed, version.status, version.received, version.user_id)
            for version in as_of(night.published_at, account).values()
        }
        if look.since is not None:
            continue
        for life in account.lives:
            if life.token_id in (night.unreadable, night.odd):
                continue
            state, found = life.state_at(night.began_at), known.get(life.token_id)
            if state is None:
                assert found is None or not found[0]
            else:
                assert found is not None
                assert found[:3] == (True, state.status, state.received)
                assert state.user_id in (None, found[3])


@OF_EACH
def test_what_had_happened_by_a_moment(account: LivedAccount, connection: Connection) -> None:
    for number in range(NIGHTS_OF_A_LIFE):
        at = account.nights[0].published_at + timedelta(days=number, hours=number)
        rows = connection.execute(
            "select token_id, version from upload_token_happened_by(%s) where partner_id = %s",
            [at, account.partner_id],
        ).fetchall()

        assert {row["token_id"]: row["version"] for row in rows} == {
            token_id: version.version for token_id, version in happened_by(at, account).items()
        }


@OF_EACH
def test_the_outcome_of_every_upload(account: LivedAccount, connection: Connection) -> None:
    """As ``truth`` works it out, and by the lives: no upload succeeded or failed otherwise."""
    rows = connection.execute(
        "select * from upload_outcome where partner_id = %s", [account.partner_id]
    ).fetchall()

    assert {row["token_id"] for row in rows} == histories(account).keys()
    lives = {life.token_id: life for life in account.lives}
    for row in rows:
        token_id = row["token_id"]
        took = time_to_complete(token_id, account)
        assert row["outcome"] == outcome_of(token_id, account)
        assert row["seconds_to_complete"] == (None if took is None else took.total_seconds())
        assert row["size_bucket"] == bucket_of(lives[token_id].size)
        last = current(account)[token_id]
        ended = [
            move
            for move in lives[token_id].moves
            if move.to in (CLOSED, *FAILED) and move.at <= last.night.began_at
        ]
        if not ended:
            assert row["outcome"] in ("abandoned", "deleted", "still_open"), row
        elif last.listed:
            assert row["outcome"] == ("succeeded" if ended[0].to == CLOSED else "failed")
            if ended[0].to == CLOSED:
                true = (ended[0].at - row["created_at"]).total_seconds()
                assert row["seconds_to_complete"] == true


@pytest.mark.parametrize("zone", [UTC, BERLIN, NEW_YORK], ids=str)
@OF_EACH
def test_outcomes_by_day_and_size(
    account: LivedAccount, connection: Connection, zone: tzinfo
) -> None:
    connection.execute("select set_config('kaltura.time_zone', %s, false)", [str(zone)])
    rows = connection.execute(
        "select * from upload_outcome_daily where partner_id = %s", [account.partner_id]
    ).fetchall()

    groups: dict[tuple[date, str], list[Version]] = {}
    for version in current(account).values():
        day = version.life.created_at.astimezone(zone).date()
        groups.setdefault((day, bucket_of(version.life.size)), []).append(version)
    assert {(row.pop("day"), row.pop("size_bucket")): row for row in rows} == {
        (day, bucket): {
            "partner_id": account.partner_id,
            "size_bucket_order": BUCKET_NAMES.index(bucket) + 1,
            "started": len(found),
            **_counts_of(found, account),
            "bytes_announced": sum(version.life.size or 0 for version in found),
            "bytes_received": sum(version.received or 0 for version in found),
            "p50_seconds_to_complete": _seconds_to_complete(found, account, 0.5),
            "p95_seconds_to_complete": _seconds_to_complete(found, account, 0.95),
            "time_zone": str(zone),
            "is_mature": all(is_mature(version, account) for version in found)
            and datetime.combine(day + timedelta(days=1), time(), zone)
            <= open_seen_at(None, account),
        }
        for (day, bucket), found in groups.items()
    }


@OF_EACH
def test_outcomes_by_user(account: LivedAccount, connection: Connection) -> None:
    rows = connection.execute(
        "select * from upload_user_summary where partner_id = %s", [account.partner_id]
    ).fetchall()

    groups: dict[str | None, list[Version]] = {}
    for version in current(account).values():
        groups.setdefault(version.user_id, []).append(version)
    assert {row.pop("user_id"): row for row in rows} == {
        user: {
            "partner_id": account.partner_id,
            "uploads": len(found),
            **_counts_of(found, account),
            "bytes_received": sum(version.received or 0 for version in found),
            "first_upload_at": min(version.life.created_at for version in found),
            "last_upload_at": max(version.life.created_at for version in found),
            "median_seconds_to_complete": _seconds_to_complete(found, account, 0.5),
        }
        for user, found in groups.items()
    }


def _counts_of(found: list[Version], account: LivedAccount) -> dict[str, int]:
    counts = Counter(outcome_of(version.token_id, account) for version in found)
    return {outcome: counts[outcome] for outcome in OUTCOMES}


def _seconds_to_complete(found: list[Version], account: LivedAccount, share: float) -> Any:
    times = [time_to_complete(version.token_id, account) for version in found]
    known = [took for took in times if took is not None]
    return pytest.approx(quantile(known, share).total_seconds()) if known else None


@OF_EACH
def test_the_wide_row_of_every_upload(account: LivedAccount, connection: Connection) -> None:
    rows = connection.execute(
        "select * from upload_mart where partner_id = %s", [account.partner_id]
    ).fetchall()

    looked_at = open_seen_at(None, account)
    expected = {}
    for token_id, version in current(account).items():
        life, created_at = version.life, version.life.created_at
        took = time_to_complete(token_id, account)
        attached = any(each.status == CLOSED for each in histories(account)[token_id])
        expected[token_id] = {
            "partner_id": account.partner_id,
            "token_id": token_id,
            "user_id": version.user_id,
            "file_name": life.file_name,
            "status": version.seen_as,
            "last_shown_status": version.status_name,
            "is_listed": version.listed,
            "outcome": outcome_of(token_id, account),
            "created_at": created_at,
            "created_day": created_at.date(),
            "created_week": created_at.date() - timedelta(days=created_at.weekday()),
            "created_hour": created_at.hour,
            "updated_at": version.updated_at,
            "last_moved_at": version.moved_at,
            "size_bucket": bucket_of(life.size),
            "size_bucket_order": BUCKET_NAMES.index(bucket_of(life.size)) + 1,
            "file_size_bytes": life.size,
            "uploaded_size_bytes": version.received,
            "seconds_to_complete": None if took is None else took.total_seconds(),
            "seconds_not_moved": max((looked_at - version.moved_at).total_seconds(), 0)
            if version.is_open
            else None,
            "attached_object_type": "1" if attached else None,
            "attached_object_id": f"1_{token_id[2:]}" if attached else None,
            "versions": version.version,
            "known_since": version.night.published_at,
            "run_id": version.night.run_id,
            "time_zone": "UTC",
            "is_mature": is_mature(version, account),
        }
    assert {row["token_id"]: row for row in rows} == expected


@pytest.mark.parametrize("zone", [UTC, BERLIN, NEW_YORK], ids=str)
@OF_EACH
def test_the_bytes_that_arrived_on_each_day(
    account: LivedAccount, connection: Connection, zone: tzinfo
) -> None:
    """The true ones of the lives are within the bounds, and all that was seen is told once."""
    connection.execute("select set_config('kaltura.time_zone', %s, false)", [str(zone)])
    rows = connection.execute(
        "select * from upload_bytes_daily where partner_id = %s", [account.partner_id]
    ).fetchall()

    true = Counter[date]()
    for history in histories(account).values():
        received = history[-1].received or 0
        arrived = 0
        for move in history[0].life.moves:
            more = min(move.received or 0, received) - arrived
            if more > 0:
                true[move.at.astimezone(zone).date()] += more
                arrived += more
    assert {row["day"]: row["bytes"] for row in rows if row["bytes"]} == +bytes_by_day(
        zone, account
    )
    assert {row["time_zone"] for row in rows} == {str(zone)}
    bounds = {row["day"]: (row["at_least_bytes"], row["at_most_bytes"]) for row in rows}
    assert true.keys() <= bounds.keys()
    for day, (at_least, at_most) in bounds.items():
        assert at_least <= true[day] <= at_most, day
    # So they are of use: more than half of the bytes are known to the day.
    assert 2 * sum(at_least for at_least, _ in bounds.values()) > sum(true.values())


@OF_EACH
def test_how_fresh_it_is(account: LivedAccount, connection: Connection) -> None:
    (row,) = connection.execute(
        "select * from sync_freshness where partner_id = %s", [account.partner_id]
    ).fetchall()

    ages = {name: row.pop(name) for name in ("age", "complete_age")}
    assert {row.pop(f"{name}_seconds") for name in ages} == {
        age.total_seconds() for age in ages.values()
    }
    assert row == {
        "partner_id": account.partner_id,
        "last_published_at": account.published[-1].published_at,
        "last_complete_at": account.complete[-1].published_at,
        "last_run_status": "succeeded",
        "running": False,
        "tokens_listed": sum(version.listed for version in current(account).values()),
        "tokens_known": len(current(account)),
        "unreadable": 0,
        "rejected": 1,
        "certificate": "{(,)}",
        "open_seen_at": open_seen_at(None, account),
    }


@OF_EACH
def test_what_is_stuck(account: LivedAccount, connection: Connection) -> None:
    """Open at the last look, and for a day without a change: by the lives, not by the versions."""
    rows = connection.execute(
        "select token_id, status, last_moved_at, stuck_for from stuck_upload where partner_id = %s",
        [account.partner_id],
    ).fetchall()

    looked_at = open_seen_at(None, account)
    expected = {
        life.token_id: (NAMES[state.status], moved_at, looked_at - moved_at)
        for life, state, moved_at in stuck_at(looked_at, account)
    }
    assert len(expected) > 3
    assert {row.pop("token_id"): tuple(row.values()) for row in rows} == expected


@OF_EACH
def test_every_calendar_day_has_its_night(account: LivedAccount, connection: Connection) -> None:
    rows = connection.execute(
        "select day, outcome, runs, complete_at from sync_night "
        "where partner_id = %s and day <= %s order by day",
        [account.partner_id, DAYS[-1]],
    ).fetchall()

    assert [row["day"] for row in rows] == DAYS
    for row in rows:
        begun = [night for night in account.nights if night.began_at.date() == row["day"]]
        complete = [night.published_at for night in begun if night in account.complete]
        assert row["runs"] == len(begun)
        assert row["complete_at"] == (complete[-1] if complete else None)
        if complete:
            assert row["outcome"] == "complete"
        else:
            published = [night for night in begun if not night.failed]
            wanted = "partial" if published else "failed" if begun else "no_run"
            assert row["outcome"] == wanted


def test_a_snapshot_for_dbt_is_the_history(connection: Connection) -> None:
    rows = connection.execute(
        "select count(*) as rows, count(distinct dbt_scd_id) as keys, "
        "bool_and((dbt_is_deleted = 'False') = is_listed) as told from upload_token_snapshot_dbt"
    ).fetchall()

    number = sum(len(versions(account)) for account in ACCOUNTS.values())
    assert rows == [{"rows": number, "keys": number, "told": True}]


@OF_EACH
def test_the_statuses_at_the_end_of_every_day(
    account: LivedAccount, connection: Connection
) -> None:
    """And against the lives: what had ended by a midnight that a complete run came after."""
    rows = connection.execute(
        "select day, status, tokens from upload_token_daily_status "
        "where partner_id = %s and day between %s and %s",
        [account.partner_id, account.nights[0].began_at, account.nights[-1].began_at],
    ).fetchall()
    found: dict[date, Counter[str]] = {}
    for row in rows:
        found.setdefault(row["day"], Counter())[row["status"]] = row["tokens"]

    lives = {life.token_id: life for life in account.lives}
    # What ended before a run saw that it was not listed: it is told from when it is listed again.
    untold = {
        after.token_id: (before.happened_after, after.happened_at)
        for before, after in pairwise(versions(account))
        if after.kind == "relisted" and before.status in OPEN and after.status not in OPEN
    }
    for day, counts in found.items():
        midnight = datetime.combine(day, time(), UTC) + timedelta(days=1)
        states = status_at(midnight, account)
        assert counts == Counter(states.values()), day
        if midnight > account.complete[-1].began_at:
            continue
        for token_id, status in states.items():
            true = lives[token_id].state_at(midnight - timedelta(microseconds=1))
            since, until = untold.get(token_id, (midnight, midnight))
            if true is not None and status != NOT_LISTED and not since < midnight < until:
                is_open = NAMES.get(true.status) in OPEN_NAMES
                assert (status in OPEN_NAMES) == is_open, (day, token_id)


@OF_EACH
def test_the_time_in_each_open_status(account: LivedAccount, connection: Connection) -> None:
    """As worked out from what was seen; and the true time of the lives is within the bounds."""
    rows = connection.execute(
        "select token_id, status_code, seen, at_least_seconds, at_most_seconds, "
        "estimated_at_most_seconds from upload_status_duration "
        "where partner_id = %s and not is_current and status_code in (0, 1, 2)",
        [account.partner_id],
    ).fetchall()

    found = {(row.pop("token_id"), row.pop("status_code")): tuple(row.values()) for row in rows}
    stays = {
        (token_id, status): stay
        for token_id in histories(account)
        for status in OPEN
        if (stay := stay_in(token_id, status, account)) is not None
    }
    assert found == {
        key: (
            stay.seen,
            stay.at_least.total_seconds(),
            stay.at_most.total_seconds(),
            stay.estimated.total_seconds(),
        )
        for key, stay in stays.items()
    }
    for life in account.lives:
        for status in OPEN:
            if (stay := stays.get((life.token_id, status))) is not None:
                true = _time_in(status, life, history_of(life.token_id, account))
                assert stay.at_least <= true <= stay.at_most, (life, status)


def _time_in(status: int, life: Life, seen: Iterable[Version]) -> timedelta:
    """Without the time in which it was not listed, if a run saw that it was not."""
    seen_out = [version.observed_at for version in seen if not version.listed]
    total, now, since, listed = timedelta(), PENDING, life.created_at, True
    for number, move in enumerate(life.moves):
        if now == status and listed:
            total += move.at - since
        since = move.at
        if isinstance(move.to, int):
            now = move.to
        elif move.to == BACK:
            listed = True
        else:
            ends = [later.at for later in life.moves[number:] if later.to == BACK]
            listed = not any(move.at <= at and (not ends or at < ends[0]) for at in seen_out)
    return total


@OF_EACH
def test_what_has_failed_and_since_when(account: LivedAccount, connection: Connection) -> None:
    rows = connection.execute(
        "select token_id, status, failed_at, failed_after, failed_before, known_since, valid_from "
        "from upload_failure where partner_id = %s",
        [account.partner_id],
    ).fetchall()

    failures = {
        token_id: (failure_of(token_id, account), version.night.published_at)
        for token_id, version in current(account).items()
        if outcome_of(token_id, account) == "failed"
    }
    assert {row.pop("token_id"): tuple(row.values()) for row in rows} == {
        token_id: (
            failure.version.status_name,
            failure.at,
            failure.after,
            failure.version.observed_at,
            failure.version.night.published_at,
            latest_at,
        )
        for token_id, (failure, latest_at) in failures.items()
    }


def test_users_that_were_renamed(connection: Connection) -> None:
    rows = connection.execute(
        "select partner_id, user_id_before, user_id_after from upload_user_rename"
    ).fetchall()

    assert {tuple(row.values()) for row in rows} == {
        (account.partner_id, change.user_id, change.becomes)
        for account in ACCOUNTS.values()
        for change in account.names
        if change.becomes is not None
    }
