"""Pseudonyms: stable, injective, their own proof; and what a page becomes with them."""

from __future__ import annotations

import json
import random
from collections import Counter
from datetime import UTC, datetime
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from etl.tokens.columns import DecodedRows, PageTokens
from etl.tokens.decode import Rejected, Token, decode_rows
from etl.tokens.pseudonyms import ERASED_PAYLOAD_BYTES, Pseudonyms, Suppression, owners_of

KEY = "k" * 32
PSEUDONYMS = Pseudonyms(KEY, 102)
TEXTS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1)
VALUES = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), TEXTS),
    lambda inner: st.one_of(st.lists(inner), st.dictionaries(TEXTS, inner)),
    max_leaves=8,
)


def make_token(**values: Any) -> Token:
    fields: dict[str, Any] = {
        **dict.fromkeys(Token._fields),
        "token_id": "t1",
        "created_at": datetime(2026, 1, 1, tzinfo=UTC),
    }
    return Token(**(fields | values))


def page(tokens: list[Token], rejected: list[Rejected] | None = None) -> DecodedRows:
    return DecodedRows(PageTokens.of(tokens), rejected or [], [0] * len(tokens), Counter())


def suppression(
    *, users: tuple[str, ...] = (), tokens: tuple[str, ...] = (), marked: tuple[str, ...] = ()
) -> Suppression:
    return Suppression(
        PSEUDONYMS,
        users=[PSEUDONYMS.subject_hash("user", each) for each in users],
        tokens=[PSEUDONYMS.subject_hash("token", each) for each in tokens],
        marked=marked,
    )


@given(TEXTS, TEXTS)
def test_equal_texts_stay_equal_and_others_different(one: str, other: str) -> None:
    made = PSEUDONYMS.of_user(one)

    assert made.startswith("erased:")
    assert len(made) == len("erased:") + 32
    assert (made == PSEUDONYMS.of_user(other)) == (one == other)
    assert PSEUDONYMS.of_user(made) == made
    assert PSEUDONYMS.of_file_name("t1", one) != made
    assert PSEUDONYMS.of_file_name("t1", one) != PSEUDONYMS.of_file_name("t2", one)
    assert Pseudonyms("x" * 32, 102).of_user(one) != made
    assert Pseudonyms(KEY, 103).of_user(one) != made


def test_what_is_empty_stays_empty() -> None:
    assert PSEUDONYMS.of_user("") == PSEUDONYMS.of_file_name("t1", "") == ""


@pytest.mark.parametrize("name", ["erased:", "erased:" + "0" * 32, "erased:anna"])
def test_a_name_that_looks_like_a_pseudonym_is_none(name: str) -> None:
    assert not PSEUDONYMS.is_pseudonym(name)
    assert PSEUDONYMS.of_file_name("t1", name) != name
    assert not PSEUDONYMS.is_marked(name, name, json.dumps({"erased": name}))


def test_a_pseudonym_of_another_key_is_no_pseudonym() -> None:
    made = Pseudonyms("x" * 32, 102).of_user("anna")
    assert not PSEUDONYMS.is_pseudonym(made)
    assert PSEUDONYMS.is_marked(PSEUDONYMS.of_user("anna"), None, None)


@given(st.dictionaries(TEXTS, VALUES, min_size=1, max_size=3), st.randoms(use_true_random=False))
def test_extra_as_jsonb_shows_it_has_the_same_pseudonym(
    value: dict[str, Any], rng: random.Random
) -> None:
    sent = json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()
    keys = list(value)
    rng.shuffle(keys)
    stored = json.dumps({key: value[key] for key in keys}, indent=1).encode()

    made = PSEUDONYMS.of_extra("t1", sent)

    assert made == PSEUDONYMS.of_extra("t1", stored)
    assert made == PSEUDONYMS.of_extra("t1", made)
    assert PSEUDONYMS.is_marked(None, None, made.decode())
    assert made != PSEUDONYMS.of_extra("t2", sent)
    assert made != PSEUDONYMS.of_extra("t1", json.dumps({**value, "more": 1}).encode())


@pytest.mark.parametrize(
    ("one", "other", "equal"),
    [
        ("1", "1.0", True),
        ("100", "1e2", True),
        ("-0", "0", True),
        ("-0.0", "0e5", True),
        ("0.05", "5e-2", True),
        ("1" + "0" * 400, "1e400", True),
        ("1", "-1", False),
        ("1", '"1"', False),
        ("9" * 40 + "1", "9" * 40 + "2", False),
        ("true", "1", False),
        ("null", '"null"', False),
        ('"\\u00e9"', '"é"', True),
    ],
)  # fmt: skip
def test_numbers_are_told_apart_as_jsonb_does(one: str, other: str, equal: bool) -> None:
    made = [PSEUDONYMS.of_extra("t1", f'{{"n":{text}}}'.encode()) for text in (one, other)]
    assert (made[0] == made[1]) == equal


def test_only_those_who_were_erased_are_replaced() -> None:
    extra = b'{"note":"x"}'
    anna = make_token(token_id="a", user_id="anna", file_name="n", extra=extra)
    berta = make_token(token_id="b", user_id="berta", file_name="n", extra=extra)
    later = make_token(token_id="c", user_id="berta", file_name="n", extra=extra)
    nobody = make_token(token_id="d", file_name="n")
    whole = make_token(token_id="e", user_id="berta", file_name="")
    rows = page([anna, berta, later, nobody, whole])

    made, raw = suppression(users=("anna",), tokens=("e",), marked=("c", "d")).suppress(
        rows, [b"1", b"2", b"3", b"4", b"5"]
    )

    a, b, c, d, e = made.tokens
    assert b == berta
    assert raw[1] == b"2"
    assert [len(each) for each in (raw[0], *raw[2:])] == [ERASED_PAYLOAD_BYTES] * 4
    assert a.user_id == PSEUDONYMS.of_user("anna")
    assert a.file_name == PSEUDONYMS.of_file_name("a", "n")
    assert a.extra == PSEUDONYMS.of_extra("a", extra)
    assert (c.user_id, c.file_name) == ("berta", PSEUDONYMS.of_file_name("c", "n"))
    assert (d.user_id, d.extra) == (None, None)
    assert d.file_name == PSEUDONYMS.of_file_name("d", "n")
    assert (e.user_id, e.file_name) == (PSEUDONYMS.of_user("berta"), "")
    assert made.positions is rows.positions


def test_a_token_is_remembered_when_its_user_vanishes_in_the_same_walk() -> None:
    kept = suppression(users=("anna",))
    kept.suppress(page([make_token(user_id="anna")]), [b"{}"])
    made, _ = kept.suppress(page([make_token(file_name="n")]), [b"{}"])
    assert made.tokens[0].file_name == PSEUDONYMS.of_file_name("t1", "n")


@pytest.mark.parametrize(
    ("row", "erased"),
    [
        ({"id": "x", "userId": "anna"}, True),
        ({"id": "x", "userId": ["anna"]}, True),
        ({"id": "x", "userId": {"id": "anna"}}, True),
        ({"id": "x", "userId": 17}, True),
        ({"id": "x", "userId": 18}, False),
        ({"id": "x", "userId": "annabel", "fileName": "anna"}, False),
        ({"id": "known"}, True),
        ({"id": "listed"}, True),
        ({"id": "x", "userId": "n\0l"}, True),
    ],
)
def test_rejected_rows_lose_their_payload(row: dict[str, Any], erased: bool) -> None:
    payload = json.dumps(row).encode()
    rejected = Rejected(row["id"], "bad", payload, 5)

    made, _ = suppression(
        users=("anna", "17", "n\ufffdl"), tokens=("listed",), marked=("known",)
    ).suppress(page([], [rejected]), [])

    (found,) = made.rejected
    assert (found.payload != payload) == erased
    assert (found.token_id, found.reason, found.created_second) == (row["id"], "bad", 5)
    if erased:
        assert found.payload == PSEUDONYMS.of_payload(payload)
        assert PSEUDONYMS.of_payload(found.payload) == found.payload
        assert PSEUDONYMS.of_payload(payload + b" ") != found.payload


def test_what_cannot_be_read_names_no_one() -> None:
    for payload in (b"", b"\xff", b"[1]", b"{", b"[" * 100_000, b'{"userId":' + b"[" * 100_000):
        assert list(owners_of(payload)) == []


def test_the_key_shows_nowhere() -> None:
    kept = Pseudonyms("s3cret" * 6, 102)
    assert "s3cret" not in repr(kept)
    assert b"s3cret" not in kept.key_check() + kept.subject_hash("user", "anna")
    assert kept.key_check() != Pseudonyms(KEY, 102).key_check()
    assert kept.subject_hash("user", "x") != kept.subject_hash("token", "x")


@pytest.mark.parametrize("user", ['"userId":["anna"]', '"UserId":"anna"', '"USERID":{"x":"anna"}'])
def test_a_user_that_cannot_be_used_is_recognised_all_the_same(user: str) -> None:
    """The row is loaded without its user, and nothing of hers with it."""
    row = f'{{"id":"t1","createdAt":1767632400,"fileName":"film.mp4",{user}}}'.encode()
    decoded = decode_rows([msgspec.Raw(row)], partner_id=102, now=datetime.now(UTC))
    assert decoded.tokens.untold[0].columns == ("user_id",)

    found, (payload,) = suppression(users=("anna",)).suppress(decoded, [row])

    (token,) = found.tokens
    assert found.tokens.untold == decoded.tokens.untold
    assert PSEUDONYMS.is_pseudonym(token.file_name)
    assert PSEUDONYMS.is_erased_payload(bytes(payload))
    others, _ = suppression(users=("otto",)).suppress(decoded, [row])
    assert others.tokens[0].file_name == "film.mp4"
