"""Fingerprints: what is recognised by digests, and what is compared by columns all the same.

That both come to the same whatever happens is the law of test_both_ways.py; here each rule is seen
at work, by the rows that are sent to the server.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import timedelta
from itertools import permutations

import pytest
from sqlalchemy import event

from etl.coverage import EVERYTHING, Coverage
from etl.errors import DataRefused, ServiceUnavailable
from etl.run.fetch import suppress
from etl.tokens.columns import PageTokens
from etl.tokens.digest import token_digests, user_digest
from etl.tokens.page import Page
from etl.tokens.token import COMPARED, Rejected, Token
from etl.warehouse.ledger.ending import fail_run
from etl.warehouse.ledger.run import OpenRun
from etl.warehouse.load.digests import fill_digests, wrong_digests
from etl.warehouse.load.fingerprint import CHECKED_ONE_IN, FINGERPRINT, FULL, is_checked
from etl.warehouse.load.missing import missing_tokens
from etl.warehouse.load.staging import stage_batch
from etl.warehouse.privacy.erase import erase, load_suppression
from etl.warehouse.privacy.subject import Subject
from tests.support.model import Row
from tests.support.nights import (
    PARTNER,
    START,
    MakeNights,
    Nights,
    make_token,
    page_of,
    publish_runs,
)

KEY = "an-erasure-key-of-some-length-40-chars.."
TEN = [make_token(f"t{number}", START + 10 * number) for number in range(10)]


@pytest.fixture
def nights(make_nights: MakeNights) -> Nights:
    """Rows are sent as JSON, where a test can see them."""
    return make_nights(small=True)


@contextmanager
def sent(nights: Nights) -> Iterator[list[str]]:
    """The ids of the rows that are sent to be compared by columns."""
    ids: list[str] = []

    def note(*arguments: object) -> None:
        parameters = arguments[3]
        if isinstance(parameters, dict) and "batch_rows" in parameters:
            ids.extend(row["token_id"] for row in json.loads(parameters["batch_rows"]))

    event.listen(nights.database.engine, "before_cursor_execute", note)
    try:
        yield ids
    finally:
        event.remove(nights.database.engine, "before_cursor_execute", note)


def whole(tokens: Sequence[Token], **more: object) -> Page:
    """A page of the whole list."""
    return page_of(tokens, from_start=True, to_end=True, **more)  # type: ignore[arg-type]


def staged(nights: Nights, kind: str | None = None) -> list[str]:
    rows = nights.query(
        "select token_id from kaltura.upload_token_staging "
        "where kind = coalesce(%s, kind) order by token_id, observed_at",
        kind,
    )
    return [row["token_id"] for row in rows]


def digests(nights: Nights) -> dict[str, tuple[int | None, int | None]]:
    rows = nights.query("select token_id, digest, user_digest from kaltura.upload_token")
    return {row["token_id"]: (row["digest"], row["user_digest"]) for row in rows}


def ways(nights: Nights, run: OpenRun) -> list[str | None]:
    rows = nights.query(
        "select compared_by from kaltura.sync_page where run_id = %s order by seq", run.run_id
    )
    return [row["compared_by"] for row in rows]


def erase_user(nights: Nights, user_id: str) -> None:
    erase(
        nights.database,
        partner_id=PARTNER,
        key=KEY,
        subjects=[Subject("user", user_id)],
        lease_seconds=60,
        apply=True,
    )


def test_of_an_unchanged_list_nothing_is_sent(nights: Nights) -> None:
    nights.night(TEN)
    with sent(nights) as ids:
        run = nights.open()
        nights.stage(run, whole(TEN), whole(TEN))
        nights.stage(run, whole(TEN))
        nights.publish(run)
    assert ids == staged(nights) == []
    assert ways(nights, run) == ["fingerprint"] * 3
    assert nights.counts.unchanged == len(TEN)


def test_of_a_changed_list_only_the_changed_rows_are_sent(nights: Nights) -> None:
    nights.night(TEN)
    changed = [TEN[4]._replace(status=0), TEN[7]._replace(file_name=None)]
    new = make_token("new", START + 5)
    rows = [*TEN[:1], new, *TEN[1:4], changed[0], *TEN[5:7], changed[1], *TEN[8:9]]
    with sent(nights) as ids:
        run = nights.open()
        nights.stage(run, whole(rows))
    assert sorted(ids) == ["new", "t4", "t7"]
    assert staged(nights, "present") == ["new", "t4", "t7"]
    assert staged(nights, "missing") == ["t9"]


def test_what_flips_by_itself_is_not_sent(nights: Nights) -> None:
    nights.night(TEN)
    with sent(nights) as ids:
        nights.night(
            token._replace(auto_finalize=None, upload_url=f"https://{number}.example")
            for number, token in enumerate(TEN)
        )
    assert ids == []
    assert nights.counts.versions == 0


# --- rows without a span --------------------------------------------------------------------------


def no_span(page: Page) -> Page:
    return replace(page, span=None)


OUTSIDE: dict[str, Callable[[Sequence[Token]], Page]] = {
    "the ends of a page": page_of,
    "a page without a span": lambda tokens: no_span(page_of(tokens)),
    "a page in one second": lambda tokens: page_of(
        [token._replace(created_at=TEN[0].created_at) for token in tokens]
    ),
    "a lookup": lambda tokens: page_of(
        tokens, lookup=True, asked=[token.token_id for token in tokens]
    ),
    "newest first": lambda tokens: replace(
        page_of(tokens), tokens=PageTokens.of(tokens[::-1]), raw=[b"{}"] * len(tokens)
    ),
}


@pytest.mark.parametrize("kind", OUTSIDE)
def test_rows_outside_a_span_are_compared_one_by_one(nights: Nights, kind: str) -> None:
    """Each by its digest, and a change of the first, the last or another is found."""
    make = OUTSIDE[kind]
    known = list(make(TEN).tokens)
    nights.night(known)
    shown = TEN[2:8]
    with sent(nights) as ids:
        run = nights.open()
        nights.stage(run, make(shown))
        assert ids == staged(nights) == []
        for at in (0, 3, -1):
            changed = list(shown)
            changed[at] = changed[at]._replace(status=6)
            nights.stage(run, make(changed))
            assert ids == [shown[at].token_id]
            assert staged(nights) == [shown[at].token_id]
            nights.query("delete from kaltura.upload_token_staging")
            ids.clear()
            run.walk.counts = replace(run.walk.counts, staged=0)


@pytest.mark.parametrize("compare", [FINGERPRINT, FULL])
def test_a_token_beside_the_span_is_not_missing(nights: Nights, compare: str) -> None:
    nights.compare = compare
    tied = [TEN[0], make_token("tied", START), TEN[1], TEN[2], make_token("last", START + 20)]
    nights.night(tied)
    run = nights.open()
    nights.stage(run, page_of([TEN[0], TEN[2]]))
    assert staged(nights) == ["t1"]


# --- the later observation ------------------------------------------------------------------------


def at(nights: Nights, minutes: int, tokens: Sequence[Token]) -> Page:
    return whole(tokens, observed_at=nights.time + timedelta(minutes=minutes))


BATCHES = [[[0], [1], [2]], [[0, 1], [2]], [[0], [1, 2]], [[0, 1, 2]]]


@pytest.mark.parametrize("order", [*permutations(range(3))], ids=str)
@pytest.mark.parametrize("batches", BATCHES, ids=str)
def test_the_latest_of_three_pages_counts(
    nights: Nights, batches: list[list[int]], order: tuple[int, ...]
) -> None:
    """In any order and any batches: one that shows no change may be the latest, and staged last."""
    tokens = [make_token(f"t{number}", START + number, status=1) for number in range(4)]
    nights.night(tokens)
    # Of each token what is known (1), another status, and no row, in every order of time.
    pages = [
        at(nights, 1, [tokens[0]._replace(status=2), tokens[1], tokens[2]._replace(status=2)]),
        at(nights, 2, [tokens[0], tokens[1]._replace(status=2), tokens[3]]),
        at(nights, 3, [tokens[0], tokens[1], tokens[2]._replace(status=2), tokens[3]]),
    ]
    run = nights.open()
    for batch in batches:
        nights.stage(run, *[pages[order[each]] for each in batch])
    nights.confirm(run, pages[2].tokens)
    nights.publish(run)

    assert (nights.counts.changed, nights.counts.versions) == (1, 1)
    assert [nights.token(f"t{number}")["status"] for number in range(4)] == [1, 1, 2, 1]


def test_an_unchanged_page_counts_as_shown(nights: Nights) -> None:
    """A page that arrived before it, and is processed after it, shows what is no longer so."""
    nights.night(TEN)
    run = nights.open()
    nights.stage(run, at(nights, 2, TEN))
    nights.stage(run, at(nights, 1, [TEN[0]._replace(status=5), *TEN[1:]]))
    assert staged(nights) == []
    nights.publish(run)
    assert nights.counts.versions == 0


def test_a_token_that_is_shown_again_needs_no_lookup(nights: Nights) -> None:
    """It was missing from one page, and a later one shows it unchanged."""
    nights.night(TEN)
    run = nights.open()
    nights.stage(run, at(nights, 1, TEN[1:]))
    with sent(nights) as ids:
        nights.stage(run, at(nights, 2, TEN))
    assert ids == ["t0"]
    assert missing_tokens(nights.database, run, after=None) == []


def test_an_interval_in_which_nothing_was_staged_stays_fast(nights: Nights) -> None:
    nights.night(TEN)
    run = nights.open()
    nights.stage(run, page_of([*TEN[:4], TEN[4]._replace(status=0)], from_start=True))
    with sent(nights) as ids:
        nights.stage(run, page_of(TEN[5:], to_end=True))
        assert ids == []
        nights.stage(run, page_of(TEN[3:7]))
    assert ids == ["t4"]


# --- users ----------------------------------------------------------------------------------------


def test_a_deleted_user_changes_nothing_and_sends_nothing(nights: Nights) -> None:
    nights.night(TEN)
    before = digests(nights)
    assert {user for _, user in before.values()} == {user_digest("anna")}
    with sent(nights) as ids:
        nights.night(token._replace(user_id=None) for token in TEN)
        nights.night(TEN)
    assert ids == []
    assert digests(nights) == before

    nights.night(token._replace(user_id=None, status=5) for token in TEN)
    assert nights.counts.changed == len(TEN)
    after = digests(nights)
    assert all(after[each][0] != before[each][0] for each in before)
    assert all(after[each][1] == before[each][1] for each in before)
    assert nights.token("t0")["user_id"] == "anna"


@pytest.mark.parametrize(("known", "shown"), [("anna", "otto"), (None, "anna"), ("", "anna")])
def test_another_user_is_a_change(nights: Nights, known: str | None, shown: str) -> None:
    nights.night([TEN[0]._replace(user_id=known), TEN[1]])
    with sent(nights) as ids:
        nights.night([TEN[0]._replace(user_id=shown), TEN[1]])
    assert ids == ["t0"]
    assert nights.counts.changed == 1
    assert digests(nights)["t0"][1] == user_digest(shown)


def test_no_digest_of_an_erased_user_stays(nights: Nights) -> None:
    """A walk that broke has staged otto's token as anna's.  First she is erased, then he."""
    bare = make_token("t0", file_name=None, user_id="otto")
    nights.night([bare, *TEN[1:]])
    run = nights.open()
    nights.stage(run, page_of([bare._replace(user_id="anna"), *TEN[1:5]], from_start=True))
    fail_run(nights.database, run, ServiceUnavailable("gone"))
    erase_user(nights, "anna")
    run = nights.open(resume_window=timedelta(hours=6))
    assert run.resumed_from is not None
    nights.publish(run)
    erase_user(nights, "otto")
    assert nights.token("t0")["user_id"].startswith("erased:")
    assert digests(nights)["t0"][1] != user_digest("otto")


# --- odd pages ------------------------------------------------------------------------------------


def test_a_page_with_a_rejected_row_goes_by_columns(nights: Nights) -> None:
    nights.night(TEN)
    bad = Rejected("t9", "bad_status", b'{"id": "t9"}', START + 90)
    run = nights.open()
    with sent(nights) as ids:
        nights.stage(run, whole(TEN[:9], rejected=[bad]), page_of(TEN[:3]))
    assert sorted(ids) == [f"t{number}" for number in range(9)]
    assert staged(nights) == []
    assert ways(nights, run) == ["columns", "fingerprint"]
    nights.publish(run)
    assert nights.counts.rejected_known == 1
    unobserved = nights.query("select token_id, reason from kaltura.unobserved_token")
    assert unobserved == [{"token_id": "t9", "reason": "rejected"}]


def test_a_page_with_an_id_twice_goes_by_columns(nights: Nights) -> None:
    nights.night(TEN)
    older = TEN[9]._replace(created_at=TEN[0].created_at - timedelta(seconds=1))
    run = nights.open()
    with sent(nights) as ids:
        nights.stage(run, whole([older, *TEN]))
    assert sorted(ids) == sorted(token.token_id for token in TEN)
    assert ways(nights, run) == ["columns"]
    rejected = nights.query("select token_id, reason from kaltura.rejected_row")
    assert rejected == [{"token_id": "t9", "reason": "duplicate_id"}]
    assert staged(nights) == []


def test_an_id_on_two_pages_of_a_batch_goes_by_columns(nights: Nights) -> None:
    """One of its rows is known as it is, and says nothing of the other."""
    nights.night(TEN)
    newer = TEN[2]._replace(created_at=TEN[9].created_at + timedelta(seconds=1))
    for pages in permutations([page_of(TEN, from_start=True), page_of([TEN[8], newer])]):
        run = nights.open()
        with sent(nights) as ids:
            nights.stage(run, *pages)
        assert ids == ["t2"]
        assert staged(nights) == ["t2"]
        rejected = nights.query(
            "select created_second from kaltura.rejected_row where run_id = %s", run.run_id
        )
        assert rejected == [{"created_second": START + 20}]
        nights.query("update kaltura.sync_run set status = 'refused' where status = 'running'")


# --- no digests -----------------------------------------------------------------------------------


@pytest.mark.parametrize("columns", ["digest = null", "user_digest = null"])
def test_without_a_digest_the_columns_decide(nights: Nights, columns: str) -> None:
    """They are filled in afterwards, which makes no version."""
    nights.night(TEN)
    nights.night(TEN[:9])
    before = digests(nights)
    nights.query(
        f"update kaltura.upload_token set {columns} "  # noqa: S608
        "where token_id in ('t1', 't5', 't7', 't9')"
    )
    run = nights.open()
    with sent(nights) as ids:
        nights.stage(run, whole([*TEN[:5], TEN[5]._replace(status=0), *TEN[6:7], TEN[8]]))
    # All of its batch: digests may be filled in between the two statements that compare it.
    assert sorted(ids) == [f"t{number}" for number in (0, 1, 2, 3, 4, 5, 6, 8)]
    assert staged(nights, "present") == ["t5"]
    assert staged(nights, "missing") == ["t7"]
    assert ways(nights, run) == ["columns"]
    assert run.walk.undigested
    nights.confirm(run, [TEN[7]])
    nights.publish(run)
    assert nights.counts.versions == 1

    filled = fill_digests(nights.database, PARTNER, run.run_id, check=lambda: None)

    # t5 has those of its new version already.
    assert filled == nights.ledger(run.run_id)["digests_filled"] == 3
    after = digests(nights)
    assert {**after, "t5": None} == {**before, "t5": None}
    assert None not in after["t5"]
    with sent(nights) as ids:
        nights.night([*TEN[:5], TEN[5]._replace(status=0), *TEN[6:9]])
    assert ids == []
    assert nights.counts.versions == 0


def test_a_token_without_a_digest_is_missed(nights: Nights) -> None:
    """Although all that is shown is known as it is."""
    nights.night(TEN)
    nights.query("update kaltura.upload_token set digest = null where token_id = 't4'")
    nights.night([*TEN[:4], *TEN[5:]])
    assert nights.versions("t4") == [(1, "first_seen"), (2, "absent")]


@pytest.mark.parametrize("is_checked_page", [False, True])
def test_a_token_with_the_digest_of_another_one_is_missed(
    nights: Nights, is_checked_page: bool
) -> None:
    """A collision, or a row that was copied by SQL."""
    nights.night(TEN)
    nights.query(
        "update kaltura.upload_token set digest = "
        "(select digest from kaltura.upload_token where token_id = 't3') where token_id = 't4'"
    )
    next_runs(nights, {0: is_checked_page})
    nights.night([*TEN[:4], *TEN[5:]])
    assert nights.versions("t4") == [(1, "first_seen"), (2, "absent")]


def test_digests_are_filled_in_many_steps(nights: Nights, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("etl.warehouse.load.digests.TOKENS_AT_ONCE", 3)
    nights.night(TEN)
    before = digests(nights)
    nights.query("update kaltura.upload_token set digest = null")
    run = nights.open()
    steps = 0

    def check() -> None:
        nonlocal steps
        steps += 1

    assert fill_digests(nights.database, PARTNER, run.run_id, check=check) == len(TEN)
    assert steps == 5
    assert digests(nights) == before


# --- the list of open tokens ----------------------------------------------------------------------


def stage_open(nights: Nights, run: OpenRun, tokens: Sequence[Token]) -> None:
    """A page of the whole list of open tokens."""
    page = replace(whole(tokens), open_only=True, seq=run.walk.next_seq)
    stage_batch(
        nights.database,
        run,
        [page],
        coverage=run.walk.coverage,
        open_coverage=Coverage([EVERYTHING]),
        holes=[],
        requests=1,
        retries=0,
        compare=nights.compare,
    )


def test_on_the_list_of_open_tokens_only_known_open_ones_can_be_missing(nights: Nights) -> None:
    tokens = [token._replace(status=(0, 3)[number % 2]) for number, token in enumerate(TEN)]
    nights.night(tokens)
    run = nights.open(mode="incremental")
    reopened = tokens[3]._replace(status=1)
    with sent(nights) as ids:
        stage_open(nights, run, tokens[::2])
        assert ids == staged(nights) == []
        stage_open(nights, run, [tokens[0], tokens[2], reopened, tokens[6], tokens[8]])
    assert ids == ["t3"]
    assert staged(nights, "present") == ["t3"]
    assert staged(nights, "missing") == ["t4"]


# --- erased people --------------------------------------------------------------------------------


def test_digests_are_made_of_pseudonyms(nights: Nights) -> None:
    nights.night(TEN)
    secret = [str(each) for pair in digests(nights).values() for each in pair]
    erase_user(nights, "anna")
    assert {*digests(nights).values()} == {(None, None)}
    suppression = load_suppression(nights.database, PARTNER, KEY)

    def night() -> OpenRun:
        run = nights.open()
        nights.stage(run, suppress(whole(TEN), suppression))
        nights.publish(run)
        assert nights.counts.versions == 0
        return run

    run = night()
    assert fill_digests(nights.database, PARTNER, run.run_id, check=lambda: None) == len(TEN)
    with sent(nights) as ids:
        night()
    assert ids == []
    found: list[Row] = nights.query("select t::text as row from kaltura.upload_token as t")
    assert not any(digest in row["row"] for row in found for digest in secret)


def test_only_the_latest_version_has_digests(nights: Nights) -> None:
    nights.night(TEN)
    before = digests(nights)
    nights.night(TEN[1:])
    assert nights.token("t0")["change_kind"] == "absent"
    assert digests(nights) == before
    rows = nights.query(
        "select distinct table_name from information_schema.columns "
        "where table_schema = 'kaltura' and column_name in ('digest', 'user_digest')"
    )
    assert {row["table_name"] for row in rows} == {"upload_token", "upload_token_staging"}


# --- pages that are checked -----------------------------------------------------------------------


def next_runs(nights: Nights, *checked: dict[int, bool]) -> None:
    """Let each of the next runs check these pages, and those not."""
    fitting = [
        first
        for first in range(CHECKED_ONE_IN)
        if all(
            wanted == ((seq + first + number) % CHECKED_ONE_IN == 0)
            for number, pages in enumerate(checked)
            for seq, wanted in pages.items()
        )
    ]
    publish_runs(nights.query, PARTNER, fitting[0])


def test_every_page_is_checked_in_one_of_64_runs(nights: Nights) -> None:
    """However regular the numbers of the account's runs are, and with failed runs between them."""
    nights.night(TEN)
    checked: Counter[int] = Counter()
    for _ in range(CHECKED_ONE_IN):
        nights.query("select nextval('kaltura.sync_run_run_id_seq') from generate_series(1, 63)")
        fail_run(nights.database, nights.open(), ServiceUnavailable("gone"))
        run = nights.open()
        pages = [seq for seq in range(200) if is_checked(run, seq)]
        assert len(pages) in (3, 4)
        checked.update(pages)
        nights.publish(run)
    assert checked == Counter(range(200))


@pytest.mark.parametrize("compare", [FINGERPRINT, FULL])
def test_a_new_token_with_the_digest_of_a_known_one_is_seen(
    nights: Nights, compare: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A collision: by the digests alone, the new one passes for the known one."""
    (known,) = PageTokens.of([TEN[3]]).digests()

    def colliding(rows: Iterable[Sequence[object]]) -> tuple[int, ...]:
        rows = list(rows)
        digests = token_digests(rows)
        return tuple(
            known if row[0] == "new" else digest for row, digest in zip(rows, digests, strict=True)
        )

    nights.compare = compare
    nights.night(TEN)
    monkeypatch.setattr("etl.tokens.columns.token_digests", colliding)
    nights.night([*TEN, make_token("new", START + 35)])
    assert nights.counts.inserted == 1


def test_a_checked_page_is_compared_by_columns(nights: Nights) -> None:
    nights.night(TEN)
    next_runs(nights, {0: False, 1: True})
    run = nights.open()
    with sent(nights) as ids:
        nights.stage(run, page_of(TEN[:6], from_start=True), page_of(TEN[4:], to_end=True))
    assert ways(nights, run) == ["fingerprint", "columns"]
    assert sorted(ids) == [token.token_id for token in TEN[4:]]
    assert staged(nights) == []


def test_all_pages_can_be_compared_by_columns(nights: Nights) -> None:
    nights.compare = FULL
    nights.night(TEN)
    with sent(nights) as ids:
        run = nights.open()
        nights.stage(run, page_of(TEN[:6], from_start=True), page_of(TEN[4:], to_end=True))
    assert sorted(ids) == [token.token_id for token in TEN]
    assert ways(nights, run) == ["columns", "columns"]


@pytest.mark.parametrize("column", [name for name in COMPARED if name != "created_at"])
def test_a_digest_that_hides_a_difference_stops_the_run_that_checks_it(
    nights: Nights, column: str
) -> None:
    """Another program has changed a column, and not the digest."""
    nights.night(TEN)
    values = {"status": "6", "updated_at": "'2026-01-01Z'", "extra": "'{}'"}
    other = "7" if column.endswith("_bytes") else "'other'"
    nights.query(
        f"update kaltura.upload_token set {column} = {values.get(column, other)} "  # noqa: S608
        "where token_id = 't3'"
    )
    before = nights.query("select * from kaltura.upload_token order by token_id")
    next_runs(nights, {0: False}, {0: True})
    # A run that checks another page does not see it, one that checks this page does.
    nights.night(TEN)
    assert nights.counts.versions == 0
    run = nights.open()
    with pytest.raises(DataRefused) as refused:
        nights.stage(run, whole(TEN))
    assert refused.value.fields == {
        "reason": "digest_mismatch",
        "token_id": "t3",
        "tokens": 1,
    }
    assert refused.value.exit_code == 65
    assert staged(nights) == ways(nights, run) == []
    fail_run(nights.database, run, refused.value)
    assert nights.query("select * from kaltura.upload_token order by token_id") == before
    # What was refused is not gone on with, and all columns decide.
    nights.compare = FULL
    nights.night(TEN)
    assert (nights.counts.changed, nights.counts.versions) == (1, 1)
    assert [*wrong_digests(nights.database, PARTNER, check=lambda: None)] == []


def test_a_wrong_digest_hides_nothing_and_stops_nothing(nights: Nights) -> None:
    """It only costs the comparison of its row, in every run; verify finds it."""
    nights.night(TEN)
    nights.query("update kaltura.upload_token set digest = digest + 1 where token_id = 't3'")
    nights.query("update kaltura.upload_token set user_digest = 7 where token_id = 't5'")
    next_runs(nights, {0: False}, {0: True})
    for expected in (2, len(TEN)):
        with sent(nights) as ids:
            nights.night(TEN)
        assert len(ids) == expected
        assert nights.counts.versions == 0
    nights.night(TEN[:3] + TEN[4:])
    assert nights.counts.absent == 1
