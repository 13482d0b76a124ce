"""Digests: equal rows have equal ones, however they are written, and different rows have others."""

from __future__ import annotations

import json
import re
import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import psycopg
import pytest
from hypothesis import HealthCheck, assume, example, given, settings
from hypothesis import strategies as st
from psycopg.types.json import Jsonb

from etl.errors import DataRefused
from etl.tokens.columns import PageTokens
from etl.tokens.digest import NO_USER, user_digest
from etl.tokens.token import COMPARED, TOKEN_COLUMNS, VOLATILE, Token
from tests.property.test_tokens import COLUMN_TYPES, FIRST, KEYS, decode, rows, values

TYPES: Final = COLUMN_TYPES.split()
SIZES: Final = ("fileSize", "uploadedFileSize")
Digests = tuple[int, int]
"""Of a token, and of its user."""


class Literal(str):
    """A number as it is written."""

    __slots__ = ()


def parsed(text: bytes | str) -> Any:
    """JSON with objects as lists of pairs and numbers as they are written."""
    return json.loads(text, parse_int=Literal, parse_float=Literal, object_pairs_hook=tuple)


@st.composite
def written(draw: st.DrawFn, value: Any, *, is_exact: bool = False) -> str:
    """The same JSON value in another form; ``is_exact``: numbers as they are."""
    if isinstance(value, Literal):
        return str(value) if is_exact else draw(number(value))
    if isinstance(value, str):
        ascii_only = draw(st.booleans()) or re.search("[\ud800-\udfff]", value) is not None
        text = json.dumps(value, ensure_ascii=ascii_only)
        return text.replace("/", "\\/") if draw(st.booleans()) else text
    gap = draw(st.sampled_from(["", " ", "\n\t"]))
    if isinstance(value, list):
        items = [draw(written(each, is_exact=is_exact)) for each in value]
        return f"[{gap}" + f",{gap}".join(items) + "]"
    if isinstance(value, tuple):
        pairs = [
            f"{draw(written(key))}{gap}:{draw(written(each, is_exact=is_exact))}"
            for key, each in value
        ]
        if len(dict(value)) == len(value):
            pairs = draw(st.permutations(pairs))
        return "{" + f"{gap},".join(pairs) + "}"
    return json.dumps(value)


@st.composite
def number(draw: st.DrawFn, literal: Literal) -> str:
    """The same number in another form, where there is a short one."""
    forms = [str(literal)]
    match = re.fullmatch(r"(-?)(\d{1,30})(?:\.(\d{1,30}))?", literal)
    if match is not None:
        sign, whole, fraction = match[1], match[2], match[3] or ""
        zeros = "0" * draw(st.integers(0, 3))
        digits = whole + fraction
        forms += [
            f"{sign}{whole}.{fraction}0{zeros}",
            f"{sign}{int(digits + zeros)}e-{len(fraction) + len(zeros)}",
            f"{sign}{int(digits)}E{-len(fraction):+}",
        ]
    return draw(st.sampled_from(forms))


@st.composite
def rewritten(draw: st.DrawFn, row: bytes) -> bytes:
    """The same row in another form."""
    pairs = []
    for key, value in parsed(row):
        if key in SIZES and isinstance(value, str) and value.isascii() and value.isdigit():
            text = f'"{"0" * draw(st.integers(0, 3))}{value}"'
        else:
            # A number in a text column is stored as it is written.
            text = draw(written(value, is_exact=key in KEYS.split()))
        pairs.append(f"{draw(written(key))}:{text}")
    if len(dict(parsed(row))) == len(pairs):
        pairs = draw(st.permutations(pairs))
    return ("{" + ",".join(pairs) + "}").encode()


def token_of(row: bytes) -> PageTokens:
    """The token of a row, or none if it cannot be loaded."""
    try:
        return decode(row).tokens
    except DataRefused:
        return PageTokens.of([])


def digests_of(tokens: PageTokens) -> list[Digests]:
    return list(zip(tokens.digests(), tokens.user_digests(), strict=True))


@given(st.data())
@settings(max_examples=100, deadline=None, suppress_health_check=list(HealthCheck))
def test_another_form_of_a_row_has_its_digests(data: st.DataObject) -> None:
    row = data.draw(rows(oddities=2))
    tokens = token_of(row)
    assume(len(tokens) == 1)

    other = token_of(data.draw(rewritten(row)))

    assert digests_of(other) == digests_of(tokens)


BASE: Final = '"id":"a","partnerId":102,"createdAt":1700000000,"status":2'
EQUAL_FORMS: Final = [
    ("", ""),
    ('"n":1', '"n":1.0'),
    ('"n":1.0', '"n":1.00'),
    ('"n":100', '"n":1e2'),
    ('"n":0.001', '"n":1E-3'),
    ('"n":0', '"n":-0.00e5'),
    ('"n":12345678901234567890.10', '"n":12345678901234567890.1'),
    ('"n":{"a":1,"bb":[2,{}]}', '"n": { "bb" : [ 2.0, {} ], "a": 1 }'),
    ('"n":"\\u00e9\\ud83c\\udf89"', '"n":"é\U0001f389"'),
    ('"é":null', '"\\u00e9" : null'),
    ('"fileName":"a/b"', '"fileName":"a\\/b"'),
    ('"fileSize":"7"', '"fileSize":"007"'),
    ('"fileSize":7', '"fileSize":"7"'),
    ('"fileSize":7', '"fileSize":7.0'),
    ('"updatedAt":1700000001', '"updatedAt":"1700000001"'),
    ('"updatedAt":1700000001', '"updatedAt":"2023-11-14T22:13:21Z"'),
    ('"updatedAt":1700000001', '"updatedAt":"2023-11-14T23:13:21.000+01:00"'),
    ('"updatedAt":1700000001.5', '"updatedAt":"2023-11-14T22:13:21.5Z"'),
    ('"autoFinalize":true', '"autoFinalize":false'),
    ('"autoFinalize":true', ""),
    ('"uploadUrl":"https://one.example"', '"uploadUrl":"https://other.example"'),
    ('"fileName":null', ""),
]
UNEQUAL_FORMS: Final = [
    ('"n":1', '"n":"1"'),
    ('"n":1', '"n":1.0000000000000000000001'),
    ('"n":null', ""),
    ('"n":[1,2]', '"n":[2,1]'),
    ('"n":{}', '"n":[]'),
    ('"n":true', '"n":1'),
    ('"fileName":""', ""),
    ('"fileName":"a"', '"attachedObjectId":"a"'),
    ('"fileSize":7', '"uploadedFileSize":7'),
    ('"fileName":"\\u00e9"', '"fileName":"e\\u0301"'),
    ('"updatedAt":1700000001', '"updatedAt":1700000001.000001'),
    ('"attachedObjectType":"1"', '"attachedObjectId":"1"'),
]


def row_with(more: str) -> bytes:
    return ("{" + BASE + ("," if more else "") + more + "}").encode()


@pytest.mark.parametrize(("one", "other"), EQUAL_FORMS)
def test_forms_of_one_row(one: str, other: str) -> None:
    first, second = token_of(row_with(one)), token_of(row_with(other))
    assert len(first) == len(second) == 1
    assert digests_of(first) == digests_of(second)


@pytest.mark.parametrize(("one", "other"), UNEQUAL_FORMS)
def test_forms_of_different_rows(one: str, other: str) -> None:
    first, second = token_of(row_with(one)), token_of(row_with(other))
    assert len(first) == len(second) == 1
    assert first.digests() != second.digests()


CHANGED: Final[dict[str, Callable[[Any], Any]]] = {
    "token_id": lambda value: value + "x",
    "user_id": lambda value: (value or "") + "x",
    "status": lambda value: 0 if value is None else None,
    "file_name": lambda value: "" if value is None else None,
    "file_size_bytes": lambda value: (value or 0) ^ 1,
    "uploaded_size_bytes": lambda value: 0 if value is None else None,
    "created_at": lambda value: value + timedelta(microseconds=1),
    "updated_at": lambda value: FIRST if value is None else None,
    "attached_object_type": lambda value: (value or "") + " ",
    "attached_object_id": lambda value: "0" if value is None else None,
    "extra": lambda value: b"{}" if value is None else None,
    "auto_finalize": lambda value: value is None,
    "upload_url": lambda value: (value or "") + "x",
}


@given(rows(oddities=2))
@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
def test_a_change_of_one_column_changes_one_digest(row: bytes) -> None:
    """None of a volatile one, and that of the user if the user changes."""
    tokens = token_of(row)
    assume(len(tokens) == 1)
    ((digest, user_digest),) = digests_of(tokens)
    assert CHANGED.keys() == {"token_id", *COMPARED, *VOLATILE}
    for name, change in CHANGED.items():
        values = tokens[0]._replace(**{name: change(getattr(tokens[0], name))})
        ((other, other_user),) = digests_of(PageTokens.of([values]))
        assert (other == digest) == (name == "user_id" or name in VOLATILE), name
        assert (other_user == user_digest) == (name != "user_id"), name


def test_no_user_is_not_a_user() -> None:
    some = ["", "anna", "0", "\0", "x" * 65_536]
    tokens = PageTokens.of([token_of(row_with(""))[0]._replace(user_id=each) for each in some])
    assert len({NO_USER, *tokens.user_digests()}) == len(some) + 1
    assert token_of(row_with("")).user_digests() == [NO_USER]


@st.composite
def two_rows(draw: st.DrawFn) -> tuple[bytes, bytes]:
    """Two rows that differ in their form, and in up to one value."""
    row = draw(rows(oddities=2))
    other = draw(rewritten(row))
    if draw(st.booleans()):
        pairs = list(parsed(other))
        at = draw(st.integers(0, len(pairs) - 1))
        texts = [(key, draw(written(value, is_exact=True))) for key, value in pairs]
        texts[at] = (texts[at][0], draw(values))
        other = ("{" + ",".join(f"{json.dumps(k)}:{text}" for k, text in texts) + "}").encode()
    return row, other


@pytest.fixture
def loaded(empty_database_url: str) -> Iterator[psycopg.Connection[Any]]:
    """A connection with a table of tokens."""
    with closing(psycopg.connect(empty_database_url, autocommit=True)) as connection:
        connection.execute("set time zone 'Asia/Kathmandu'")
        columns = ", ".join(
            f"{name} {type_}" for name, type_ in zip(TOKEN_COLUMNS, TYPES, strict=True)
        )
        connection.execute(f"create temporary table loaded (row int, {columns})".encode())
        yield connection


def store(connection: psycopg.Connection[Any], tokens: list[Token]) -> None:
    """Write them as the program does."""
    connection.execute("truncate loaded")
    with (
        connection.cursor() as cursor,
        cursor.copy("copy loaded from stdin (format binary)") as pipe,
    ):
        pipe.set_types(["int4", *TYPES])
        for number, token in enumerate(tokens):
            extra = None if token.extra is None else Jsonb(token.extra, dumps=bytes)
            pipe.write_row((number, *token[:-1], extra))


def stored_digests(connection: psycopg.Connection[Any]) -> list[Digests]:
    """The digests made again from what is stored."""
    names = ", ".join("extra::text" if name == "extra" else name for name in TOKEN_COLUMNS)
    found = connection.execute(
        f"select {names} from loaded order by row".encode()  # noqa: S608
    ).fetchall()
    return digests_of(PageTokens.of(Token(*row) for row in found))


def columns_that_differ(connection: psycopg.Connection[Any]) -> set[str]:
    """Of the two stored rows, as Postgres compares them."""
    tests = ", ".join(f"one.{name} is distinct from other.{name}" for name in TOKEN_COLUMNS)
    (found,) = connection.execute(
        f"select {tests} from loaded as one, loaded as other "  # noqa: S608
        "where one.row = 0 and other.row = 1".encode()
    ).fetchall()
    return {name for name, differs in zip(TOKEN_COLUMNS, found, strict=True) if differs}


def assert_as_postgres(connection: psycopg.Connection[Any], pair: tuple[bytes, bytes]) -> None:
    tokens = [*token_of(pair[0]), *token_of(pair[1])]
    assume(len(tokens) == 2)
    store(connection, tokens)

    one, other = digests = digests_of(PageTokens.of(tokens))

    assert stored_digests(connection) == digests
    differing = columns_that_differ(connection) - VOLATILE
    assert (one[0] != other[0]) == bool(differing - {"user_id"})
    assert (one[1] != other[1]) == ("user_id" in differing)


@pytest.mark.postgres15
def test_digests_differ_where_postgres_finds_a_difference(
    loaded: psycopg.Connection[Any], postgres_major: str
) -> None:
    """And a stored row has the digests of the row that was sent."""

    @given(two_rows())
    # Both servers are asked the same; fifty thousand pairs are a campaign.
    @settings(
        max_examples=25 if postgres_major == "15" else 100,
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )
    @example((row_with('"n":1.0'), row_with('"n":1.00')))
    def compare(pair: tuple[bytes, bytes]) -> None:
        assert_as_postgres(loaded, pair)

    compare()


@pytest.mark.campaign
@pytest.mark.timeout(3_600)
def test_digests_of_fifty_thousand_pairs(loaded: psycopg.Connection[Any]) -> None:
    @given(two_rows())
    @settings(max_examples=50_000, deadline=None, suppress_health_check=list(HealthCheck))
    def compare(pair: tuple[bytes, bytes]) -> None:
        assert_as_postgres(loaded, pair)

    compare()


def test_the_digests_of_today_are_those_that_warehouses_hold() -> None:
    """Another digest needs a migration that empties the stored ones: all would differ for ever."""
    tokens = [
        Token(
            "0_a", "anna", 3, "film.mp4", 10, 10,
            datetime(2026, 1, 2, tzinfo=UTC), datetime(2026, 1, 2, 0, 0, 1, 5, tzinfo=UTC),
            "1", "0_e", True, "u", b'{"b":1.50,"a":"\xc3\xa9"}',
        ),
        Token("0_b", None, 0, None, None, None, datetime(2026, 1, 2, tzinfo=UTC), *[None] * 6),
    ]  # fmt: skip
    page = PageTokens.of(tokens)

    assert page.digests() == (1711849311839884871, 7169365228996434617)
    assert page.user_digests() == [-6054381584848885564, NO_USER]


def test_long_user_ids_are_not_kept_in_memory() -> None:
    """65,536 ids of up to 64 KiB would be 4 GiB."""
    numbers = range(100)
    tracemalloc.start()
    try:
        digests = {user_digest(f"{number}" + "x" * 60_000) for number in numbers}
        kept, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert len(digests) == len(numbers)
    assert kept < 60_000
