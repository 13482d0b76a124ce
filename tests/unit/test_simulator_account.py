"""The simulated account: its order, its truth, and its life."""

from __future__ import annotations

import json
import random
import re
from bisect import insort
from datetime import UTC, datetime
from pathlib import Path

import pytest

from etl.simulator import Account, Churn, Life, account_from_file, generate_account
from etl.simulator.account.token_line import ORDER_BITS, Token, TokenLine
from etl.simulator.api.call import RequestRecord
from etl.tokens.row import read_row
from etl.tokens.token import Token as TokenRow

PLAIN_NAME = re.compile(r"[A-Z][A-Za-z ]+ [0-9]+\.[a-z0-9]+")
PLAIN_ROW = re.compile(
    rb'\{"id":"[^"]+","partnerId":102(,"userId":"[^"]+")?,"status":[0-6],"fileName":"(\\.|[^"\\])*"'
    rb'(,"fileSize":"[0-9]+")?(,"uploadedFileSize":"[0-9]+")?,"createdAt":[0-9]+,"updatedAt":[0-9]+'
    rb',"autoFinalize":(true|false)(,"attachedObjectType":"entry","attachedObjectId":"[^"]+")?'
    rb',"objectType":"KalturaUploadToken"\}'
)


def token(number: int, created_at: int) -> Token:
    key = created_at << ORDER_BITS | number
    return Token(f"0_{number}", key, status=0, user_id=None, body=b"{}", since=0)


@pytest.mark.parametrize("seed", range(5))
def test_line_is_a_sorted_list_addressed_by_offset(seed: int) -> None:
    rng = random.Random(seed)
    start = [token(number, rng.randrange(-50, 50)) for number in range(5_000)]
    start.sort(key=lambda one: one.key)
    line, model = TokenLine(start), list(start)
    for number in range(5_000, 9_000):
        if model and rng.random() < 0.5:
            gone = model.pop(rng.randrange(len(model)))
            line.remove(gone)
        else:
            new = token(number, rng.randrange(-60, 60))
            line.add(new)
            insort(model, new, key=lambda one: one.key)
        if number % 100 == 0:
            low = rng.randrange(len(model))
            high = low + rng.randrange(2_500)
            assert line.slice(low, high) == model[low:high]
            assert line[low] is model[low]
            assert line.offset_of_key(model[low].key) == low
            second = rng.randrange(-70, 70)
            assert line.offset_of_second(second) == sum(t.created_at < second for t in model)
    assert list(line) == model
    assert len(line) == len(model)


def test_line_can_be_emptied_and_filled_again() -> None:
    line = TokenLine()
    for number in range(3_000):
        line.add(token(number, 7))
    for one in list(line):
        line.remove(one)
    assert len(line) == 0
    assert line.slice(0, 10) == []
    line.add(token(1, 1))
    assert line[0].id == "0_1"


@pytest.mark.parametrize("seed", range(20))
def test_truth_equals_the_snapshots_after_each_mutation(seed: int) -> None:
    rng = random.Random(seed)
    account = Account(clock=lambda: 1_000)
    snapshots: list[set[tuple[str, int]]] = [set()]
    gone: list[str] = []

    def note() -> None:
        while len(snapshots) <= account.mark:
            snapshots.append({(t.id, t.created_at) for t in account.line})

    for number in range(120):
        draw = rng.random()
        listed = list(account.line)
        if draw < 0.5 or not listed:
            account.insert({"id": f"0_{number}", "createdAt": rng.randrange(900, 1_000)})
        elif draw < 0.7:
            one = rng.choice(listed)
            gone.append(one.id)
            account.delete(one.id)
        elif draw < 0.8:
            account.change(rng.choice(listed).id, {"status": 1})
        elif gone:
            account.undelete(rng.choice(gone))
        note()
    for _ in range(60):
        first = rng.randrange(len(snapshots))
        last = rng.randrange(first, len(snapshots))
        between = snapshots[first : last + 1]
        throughout = account.listed_throughout(first, last)
        assert len(throughout) == len(set(throughout))
        assert set(throughout) == set.intersection(*between)
        assert set(account.listed_sometime(first, last)) == set.union(*between)


def test_marks_of_requests_and_times() -> None:
    account = Account(clock=lambda: 5)
    account.insert({"id": "a"})  # before the first request
    account.requests_answered = 1
    account.insert({"id": "b"})  # between the first and the second
    account.requests_answered = 2
    account.delete("a")
    assert [account.mark_at_request(number) for number in (1, 2, 3)] == [1, 2, 3]
    assert account.mark_at_time(0) == 0
    assert account.mark_at_time(float("inf")) == 3


def test_deleted_tokens_are_not_listed_and_the_same_id_can_be_listed_twice() -> None:
    account = Account(clock=lambda: 5)
    account.insert({"id": "x", "status": 5})
    account.insert({"id": "two", "createdAt": 1})
    account.insert({"id": "two", "createdAt": 9})
    assert [(t.id, t.created_at) for t in account.line] == [("two", 1), ("two", 9)]
    account.delete("two", 9)
    account.change("two", {"status": 5})
    assert len(account) == 0
    assert account.undelete("two")
    assert len(account) == 1
    assert not account.delete("never")


def test_versions_of_a_token() -> None:
    account = Account(clock=lambda: 50)
    account.insert({"id": "a", "status": 0})
    account.change("a", {"status": 1})
    account.delete("a")
    account.undelete("a")
    ends = [(end, json.loads(body)["status"]) for end, body in account.versions("a")]
    assert ends == [(2, 0), (3, 1), (None, 1)]


def test_a_deleted_user_vanishes_without_a_trace_in_updated_at() -> None:
    account = Account(clock=lambda: 50)
    account.insert({"id": "a", "userId": "bob", "updatedAt": 7})
    assert account.delete_user("bob") == 1
    fields = account.fields(account.line[0])
    assert "userId" not in fields
    assert fields["updatedAt"] == 7


def test_a_seed_gives_the_same_account_and_the_same_week() -> None:
    def week(seed: int) -> tuple[list[bytes], dict[str, int]]:
        account = generate_account(2_000, seed=seed)
        life = Life(account, seed=seed)
        for _ in range(7):
            life.advance(hours=24)
        return [one.body for one in account.line], dict(life.counts)

    assert week(3) == week(3)
    assert week(3) != week(4)


def test_a_week_holds_everything_that_happens_to_uploads() -> None:
    account = generate_account(5_000, seed=1)
    life = Life(account, seed=1)
    start = life.now
    for _ in range(7):
        life.advance(hours=24)
    assert life.now == start + 7 * 86_400
    assert account.clock() == life.now
    kinds = (
        *("begin", "progress", "finish", "attach", "fail", "time_out", "delete", "restore"),
        "resume",
    )
    assert all(life.counts[kind] > 0 for kind in kinds), life.counts
    created = [one.created_at for one in account.line]
    assert created == sorted(created)
    assert max(created) <= life.now


def test_a_generated_account_is_realistic() -> None:
    account = generate_account(20_000, seed=2)
    rows = [json.loads(one.body) for one in account.line]
    assert len({row["id"] for row in rows}) == 20_000
    assert {row["status"] for row in rows} >= {0, 1, 2, 3, 4, 6}
    names = [row["fileName"] for row in rows]
    assert None in names
    assert "" in names
    assert any(name and "\x00" in name for name in names)
    assert any(name and any(ord(char) > 0xFFFF for char in name) for name in names)
    assert all(isinstance(row.get("fileSize", "1"), str) for row in rows)
    seconds = [row["createdAt"] for row in rows]
    assert 20 < max(seconds.count(one) for one in random.Random(1).sample(seconds, 2_000)) < 100
    assert all(row["createdAt"] <= row["updatedAt"] for row in rows)


@pytest.mark.parametrize(
    ("kind", "unusual_names", "unusual_rows"),
    [("plain", 0, 0), ("hostile", 1 / 8, 0), ("odd", 0.02 / 12, 0.02)],
)
def test_a_kind_of_account_has_its_share_of_odd_names_and_rows(
    kind: str, unusual_names: float, unusual_rows: float
) -> None:
    account = generate_account(20_000, seed=4, kind=kind)
    bodies = [one.body for one in account.line]
    rows = [json.loads(body) for body in bodies]
    odd = [row for row in rows if not PLAIN_NAME.fullmatch(row["fileName"] or "")]
    assert len(odd) == pytest.approx(20_000 * unusual_names, rel=0.2)
    unusual = [body for body in bodies if not PLAIN_ROW.fullmatch(body)]
    assert len(unusual) == pytest.approx(20_000 * unusual_rows, rel=0.2)
    for index, body in enumerate(unusual):
        outcome, position, _ = read_row(
            body, row_index=index, partner_id=102, now_second=datetime.now(UTC).timestamp()
        )
        assert isinstance(outcome, TokenRow)
        assert isinstance(position, int)


def test_hostile_churn_deletes_only_what_was_read() -> None:
    account = generate_account(3_000, seed=5)
    churn = Churn(delete=1, mode="hostile", seed=5)
    unread = {one.id for one in account.line.slice(1_000, 3_000)}
    read = account.line.slice(500, 1_000)
    record = RequestRecord(
        1, 0.0, "uploadtoken", "list", "list", page_index=2, first_key=read[0].key,
        last_key=read[-1].key,
    )  # fmt: skip
    for _ in range(400):
        churn.happen(account, record)
    assert churn.counts["delete"] == 400
    assert unread <= {one.id for one in account.line}


def test_expected_events_may_be_fractions() -> None:
    account = generate_account(3_000, seed=6)
    churn = Churn(delete=0.5, insert=2.25, change=1, seed=6)
    for number in range(1_000):
        churn.happen(account, RequestRecord(number, 0.0, "uploadtoken", "list", "list"))
    assert 430 < churn.counts["delete"] < 570
    assert 2_150 < churn.counts["insert"] < 2_350
    assert churn.counts["change"] == 1_000


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("{", "is not JSON"),
        ("[]", "no array named 'objects'"),
        ('{"objects": [{"id": "a"}]}', "object 0 lacks"),
        (
            '{"objects": [{"id": "a", "status": 0, "createdAt": 1, "partnerId": 1},'
            ' {"id": "b", "status": 0, "createdAt": 1, "partnerId": 2}]}',
            "several partners",
        ),
    ],
)
def test_a_file_that_is_no_account_is_refused(tmp_path: Path, text: str, reason: str) -> None:
    path = tmp_path / "account.json"
    path.write_text(text)
    with pytest.raises(ValueError, match=reason):
        account_from_file(path)
