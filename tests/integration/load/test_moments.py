"""Status moments: logged when published, never changed, and what versions and ledger tell."""

from __future__ import annotations

import random
from datetime import datetime, timedelta
from typing import Final

import pytest

from etl.tokens.token import Token
from etl.warehouse.load.stays import NUMBERS, STAYS_MAX
from etl.warehouse.privacy.prune import prune
from etl.warehouse.read.checks import check_files, run_check
from tests.support.model import Row
from tests.support.nights import OBSERVED, PARTNER, MakeNights, Nights, make_token, page_of

STATUSES: Final = (0, 1, 2, 3, 3, 4, 5, 6, 77, None)
CHECKS: Final = (
    *("status_moments_truthful", "status_since_truthful", "first_closed_truthful"),
    *("status_counts_truthful", "bytes_arrived_truthful", "earlier_stays_truthful"),
)
BEGAN: Final = int(OBSERVED.timestamp())
DURATIONS: Final = (
    "select partner_id, token_id, status, status_code, seen, is_current, "
    "round(at_least_seconds::numeric, 5) as at_least, round(at_most_seconds::numeric, 5) "
    "as at_most, round(estimated_at_most_seconds::numeric, 5) as estimated, user_id, created_at "
    "from kaltura.upload_status_duration order by token_id, status"
)
SUMMED_STAYS: Final = (
    "select partner_id, token_id, status, status_code, bool_or(seen) as seen, "
    "bool_or(is_current) as is_current, round(sum(at_least_seconds)::numeric, 5) as at_least, "
    "case when not bool_or(is_current) then round(sum(at_most_seconds)::numeric, 5) end "
    "as at_most, case when not bool_or(is_current) then "
    "round(sum(estimated_at_most_seconds)::numeric, 5) end as estimated, "
    "user_id, created_at from kaltura.upload_status_stay "
    "group by partner_id, token_id, status, status_code, user_id, created_at "
    "order by token_id, status"
)
"""What the log of moments tells of them."""


@pytest.fixture
def nights(make_nights: MakeNights) -> Nights:
    return make_nights()


def log(nights: Nights) -> list[Row]:
    return nights.query(
        "select * from kaltura.upload_token_status_moment_log order by valid_from, token_id"
    )


def told(nights: Nights, columns: str = "*") -> list[Row]:
    return nights.query(
        f"select {columns} from kaltura.upload_token_status_history order by token_id, version"  # noqa: S608
    )


def breaches(nights: Nights) -> list[Row]:
    """What the checks of moments find: where versions and ledger tell otherwise."""
    texts = [path.read_text(encoding="utf-8") for path in check_files() if path.stem in CHECKS]
    assert len(texts) == len(CHECKS)
    found = [run_check(nights.database, text, partner_id=None, rows_max=20) for text in texts]
    return [row for rows, _ in found for row in rows]


def assert_in_order(nights: Nights) -> None:
    """Each change tells the one before, and did not happen before it if that can be."""
    before: dict[str, Row] = {}
    changes = nights.query(
        "select happened.*, from_version, from_happened_at, from_happened_after, "
        "from_happened_before from kaltura.upload_token_status_history as happened "
        "left join kaltura.upload_token_status_moment_log as logged "
        "using (partner_id, token_id, version) order by version"
    )
    for row in changes:
        was = before.get(row["token_id"])
        if was is not None:
            for name in ("version", "happened_at", "happened_after", "happened_before"):
                assert row[f"from_{name}"] == was[name], row
            assert row["happened_at"] >= min(was["happened_at"], row["happened_before"]), row
        assert row["happened_after"] <= row["happened_at"] <= row["happened_before"]
        before[row["token_id"]] = row
    # The latest version knows the same.
    for name, last in before.items():
        latest = nights.token(name)
        if latest["version"] == 1:
            assert latest["status_version"] is latest["status_happened_at"] is None
        else:
            assert latest["status_version"] == last["version"]
            for each in ("happened_at", "happened_after", "happened_before"):
                assert latest[f"status_{each}"] == last[each], latest


def walk_began(nights: Nights) -> None:
    """Let the last run have begun shortly before its page was read, not now."""
    nights.query(
        "update kaltura.sync_run set started_at = %s "
        "where run_id = (select max(run_id) from kaltura.sync_run)",
        nights.time - timedelta(minutes=5),
    )


def moved(rng: random.Random, token: Token, moment: int) -> Token:
    """The token after something has happened to it: perhaps nothing that has to do with it."""
    updated_at = OBSERVED + timedelta(seconds=moment - BEGAN - rng.choice((0, 1, 40_000, -400)))
    if rng.random() < 0.1:
        return token._replace(uploaded_size_bytes=rng.randrange(10**6))
    return token._replace(
        status=rng.choice(STATUSES), updated_at=None if rng.random() < 0.2 else updated_at
    )


def test_the_log_tells_what_versions_and_ledger_tell_and_never_changes(nights: Nights) -> None:
    """Nine nights of everything: unknown statuses, gone and back, not found, read in part."""
    rng = random.Random(5)
    alive: dict[str, Token] = {}
    gone: list[Token] = []
    before: list[Row] = []
    for night in range(9):
        nights.time += timedelta(days=1)
        moment = int(nights.time.timestamp())
        for number in range(6):
            created = moment - rng.randrange(80_000)
            token = make_token(f"0_{night:02}{number}", created, updated_at=None)
            alive[token.token_id] = moved(rng, token, moment)
        for token_id in rng.sample(sorted(alive), len(alive) // 3):
            alive[token_id] = moved(rng, alive[token_id], moment - 100)
        for token_id in rng.sample(sorted(alive), 3):
            gone.append(alive.pop(token_id))
        if night % 3 == 2:
            for token in rng.sample(gone, 3):
                gone.remove(token)
                alive[token.token_id] = moved(rng, token, moment - 100)
        run = nights.open(mode="incremental" if night % 4 == 3 else "full")
        ordered = sorted(alive.values(), key=lambda token: token.created_at)
        # Some nights read only the newest part of the list.
        newest = ordered[len(ordered) // 2 :] if night % 4 == 3 else ordered
        nights.stage(
            run,
            page_of(newest, observed_at=nights.time, from_start=newest is ordered, to_end=True),
        )
        # Sometimes what is missing is too young to be called gone: the run is no witness of it.
        nights.confirm(run, ordered, timedelta(days=99) if night in (4, 6) else timedelta(0))
        nights.publish(run, stamp=nights.time + timedelta(minutes=9))
        walk_began(nights)
        after = log(nights)
        assert after[: len(before)] == before
        before = after
    assert {row["change_kind"] for row in before} == {"changed", "absent", "relisted"}
    assert nights.query("select 1 from kaltura.unobserved_token")
    assert breaches(nights) == []
    first = [row for row in told(nights) if row["version"] == 1]
    assert not any(row["version"] == 1 for row in before)
    assert len(first) == len(nights.query("select 1 from kaltura.upload_token"))
    assert None not in {row["happened_at"] for row in told(nights)}
    assert_in_order(nights)
    durations = nights.query(DURATIONS)
    assert durations == nights.query(SUMMED_STAYS)
    assert len(durations) > 100
    marks = nights.query("select distinct went_back from kaltura.upload_token")
    assert len(marks) == 2
    spent = told(nights, "time_in_from_status, time_in_from_status_seconds as seconds")
    for row in spent:
        known = row["time_in_from_status"]
        assert row["seconds"] == (None if known is None else known.total_seconds())


def test_changes_shortly_one_after_the_other_are_told_in_order(nights: Nights) -> None:
    """The walk that saw the first one had begun before it: the middle of the second may be too."""
    tokens = [make_token(name, BEGAN, status=0, updated_at=None) for name in "abcd"]
    minute = timedelta(minutes=1)

    def night(tokens: list[Token], at: datetime) -> None:
        nights.night(tokens, at=at)
        walk_began(nights)

    seen = OBSERVED + timedelta(days=2)
    night(tokens, OBSERVED + timedelta(days=1))
    tokens = [token._replace(status=1, updated_at=seen) for token in tokens]
    night(tokens, seen)
    # b is gone, c is changed otherwise.
    untimed = [token._replace(updated_at=None) for token in tokens]
    changed = untimed[0]._replace(status=2)
    night([changed, untimed[2]._replace(file_name="c.mp4"), untimed[3]], seen + minute)
    night(
        [changed, untimed[1], *[token._replace(status=3) for token in untimed[2:]]], seen + minute
    )
    # A clock that was set back: an estimate stays within its own interval.
    night([changed, *[token._replace(status=5) for token in untimed[1:]]], seen - minute)
    assert breaches(nights) == []
    assert_in_order(nights)
    derived = nights.query(
        "select from_happened_at, derived.happened_at from kaltura.upload_token_status_moment "
        "as derived inner join kaltura.upload_token_status_moment_log as logged "
        "using (partner_id, token_id, version)"
    )
    # By its own interval alone, each of the second changes would have come first.
    assert sum(row["happened_at"] < row["from_happened_at"] for row in derived) >= 4


def test_a_first_sighting_and_an_unchanged_night_log_nothing(nights: Nights) -> None:
    tokens = [make_token("a", BEGAN, status=0), make_token("b", BEGAN + 60)]
    nights.night(tokens)
    nights.night(tokens)
    nights.night([tokens[0], tokens[1]._replace(file_name="renamed.mp4")])
    assert log(nights) == []
    assert [row["from_status"] for row in told(nights)] == [None, None]
    closed_at = tokens[1].updated_at
    assert [nights.token(name)["first_closed_at"] for name in "ab"] == [None, closed_at]


@pytest.mark.parametrize("failed", [4, 6])
@pytest.mark.parametrize("is_hidden", [False, True])
def test_what_failed_and_went_on_was_partial_again(
    nights: Nights, failed: int, is_hidden: bool
) -> None:
    """From the first look almost to the second, and from the one before the last to that."""
    made = int((OBSERVED + timedelta(days=1) - timedelta(minutes=1)).timestamp())
    token, other = (make_token(name, made, updated_at=None) for name in "ab")
    seen = [[token._replace(status=1)], [token._replace(status=failed)], [token]]
    if is_hidden:
        seen.insert(2, [])
    for found in seen:
        nights.night([*found, other])
        walk_began(nights)
    rows = nights.query(
        "select status, seen, at_least_seconds, at_most_seconds from "
        "kaltura.upload_status_duration where token_id = 'a' and not is_current"
    )
    stays = {row["status"]: row for row in rows}

    for status in ("PARTIAL_UPLOAD", "FULL_UPLOAD"):
        assert stays[status]["at_most_seconds"] >= timedelta(days=2).total_seconds(), status
    assert stays["FULL_UPLOAD"]["seen"] is False
    assert nights.query(DURATIONS) == nights.query(SUMMED_STAYS)
    assert breaches(nights) == []


def test_stays_of_what_comes_and_goes_are_summed_up_before_they_are_many(nights: Nights) -> None:
    token, other = (make_token(name, BEGAN, updated_at=None) for name in "ab")
    for night in range(13):
        seen = {0: [token._replace(status=0)], 1: [], 2: [token._replace(status=5)]}[night % 3]
        nights.night([*seen, other])
        walk_began(nights)
    (told,) = nights.query(
        "select count(*) as stays from kaltura.upload_status_stay "
        "where token_id = 'a' and not is_current"
    )
    assert len(nights.token("a")["earlier_stays"]) // NUMBERS < STAYS_MAX < told["stays"]
    assert nights.query(DURATIONS) == nights.query(SUMMED_STAYS)
    assert breaches(nights) == []
    for change in (
        "set earlier_stays[2] = earlier_stays[2] + 1",
        "set earlier_stays[3] = earlier_stays[3] - 1",
        "set earlier_stays = earlier_stays || '{7,1,1,1}'",
        "set earlier_stays = earlier_stays[5:]",
    ):
        nights.query(f"update kaltura.upload_token {change} where token_id = 'a'")
        assert [row["token_id"] for row in breaches(nights)] == ["a"], change
        nights.query(
            "update kaltura.upload_token as token set earlier_stays = derived.earlier_stays "
            "from kaltura.upload_token_earlier_stay as derived "
            "where token.token_id = 'a' and derived.token_id = 'a'"
        )


def test_what_was_told_outlives_its_versions(nights: Nights) -> None:
    token = make_token("a", BEGAN, status=0, updated_at=None)
    nights.night([token])
    walk_began(nights)
    nights.night([token._replace(status=1)])
    walk_began(nights)
    closed_at = OBSERVED + timedelta(days=2, seconds=60)
    nights.night([token._replace(status=3, updated_at=closed_at)])
    walk_began(nights)
    nights.night([token._replace(status=5, updated_at=None)])
    before, durations = told(nights), nights.query(DURATIONS)
    assert [row["status"] for row in durations] == [
        *("CLOSED", "DELETED", "FULL_UPLOAD", "PARTIAL_UPLOAD", "PENDING"),
    ]
    prune(nights.database, days={"versions": 0}, partner_id=PARTNER, apply=True)
    # Of the first three versions nothing is left, the last says what was before it.
    assert told(nights) == before[3:]
    assert nights.query(DURATIONS) == durations
    assert (before[3]["from_status"], before[3]["to_status"]) == ("CLOSED", "DELETED")
    assert nights.token("a")["first_closed_at"] == closed_at
    outcome = nights.query("select outcome, seconds_to_complete from kaltura.upload_outcome")
    assert outcome == [{"outcome": "succeeded", "seconds_to_complete": 2 * 86_400 + 60.0}]
    assert breaches(nights) == []


def test_closed_without_a_date_is_closed_nevertheless(nights: Nights) -> None:
    token = make_token("a", BEGAN, updated_at=None)
    nights.night([token])
    nights.night([token._replace(status=5)])
    assert nights.token("a")["first_closed_at"] is None
    outcomes = nights.query(
        "select outcome, seconds_to_complete, is_mature, status from kaltura.upload_outcome"
    )
    assert outcomes == [
        {
            "outcome": "succeeded",
            "seconds_to_complete": None,
            "is_mature": True,
            "status": "DELETED",
        }
    ]
