"""Laws of the row reader: nothing unforeseen escapes, nothing unloadable is emitted."""

from __future__ import annotations

import json
import re
from collections import Counter
from datetime import UTC, datetime
from typing import Any
from urllib.parse import urlsplit

import msgspec
import psycopg
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from psycopg.types.json import Jsonb

from etl.errors import DataRefused
from etl.tokens.columns import DecodedRows
from etl.tokens.decode import TOKEN_COLUMNS, Token, decode_rows
from etl.tokens.keys import PARTLY_LOADED
from etl.tokens.row import read_row
from etl.tokens.token import PartToken

NOW = datetime(2026, 11, 23, 12, 0, 0, tzinfo=UTC)
PARTNER = 102
FIRST = datetime(1990, 1, 1, tzinfo=UTC)
END = datetime(2100, 1, 1, tzinfo=UTC)
UNSTORABLE = re.compile("[\0\ud800-\udfff]")
KEYS = (
    "id partnerId userId status fileName fileSize uploadedFileSize createdAt updatedAt uploadUrl"
    " autoFinalize attachedObjectType attachedObjectId objectType"
)

# JSON texts, so that numbers no float can hold and text no str should hold are among them.
numbers = st.one_of(
    st.integers(-10, 110).map(str),
    st.integers(-(2**70), 2**70).map(str),
    st.integers(631_152_000 - 5, 4_102_444_800 + 5).map(str),
    st.floats(allow_nan=False, allow_infinity=False).map(repr),
    st.tuples(st.integers(-99, 99), st.integers(-(10**25), 10**25)).map(lambda p: f"{p[0]}e{p[1]}"),
    st.sampled_from(
        ["NaN", "Infinity", "-0", "1E400", "102", "-62169984000", "1e5000", "1" * 4400]
    ),
)
characters = st.one_of(
    st.characters(), st.sampled_from('\0\ud83d\udc00\ude00\\"/,:@ \uffff\u202e0123456789-_')
)
strings = st.text(characters, max_size=12)
quoted = strings.map(json.dumps)
times_as_text = st.datetimes(timezones=st.none() | st.just(UTC)).map(
    lambda moment: json.dumps(moment.isoformat())
)
urls = strings.map(lambda rest: json.dumps("https://" + rest))
sizes_as_text = st.integers(-(2**65), 2**65).map(lambda size: f'"{size}"')
scalars = st.one_of(
    numbers, quoted, sizes_as_text, times_as_text, urls, st.sampled_from(["null", "true", "false"])
)
values = st.recursive(
    scalars,
    lambda inner: (
        st.lists(inner, max_size=3).map(lambda items: "[" + ",".join(items) + "]")
        | st.lists(st.tuples(quoted, inner), max_size=3).map(
            lambda pairs: "{" + ",".join(f"{key}:{value}" for key, value in pairs) + "}"
        )
    ),
    max_leaves=6,
)
USUAL: dict[str, st.SearchStrategy[str]] = {
    "id": st.text("abc0_", min_size=1, max_size=40).map(json.dumps),
    "partnerId": st.just("102"),
    "userId": quoted,
    "status": st.integers(0, 6).map(str),
    "fileName": quoted,
    "fileSize": st.integers(0, 10**17).map(lambda size: f'"{size}"'),
    "uploadedFileSize": st.integers(0, 10**17).map(lambda size: f'"{size}"'),
    "createdAt": st.integers(1_500_000_000, 1_790_000_000).map(str),
    "updatedAt": st.integers(1_500_000_000, 1_790_000_000).map(str),
    "uploadUrl": urls,
    "autoFinalize": st.sampled_from(["true", "false"]),
    "attachedObjectType": quoted,
    "attachedObjectId": quoted,
    "objectType": st.just('"KalturaUploadToken"'),
}
spaces = st.sampled_from(["", "", "", " ", "\n\t"])


@st.composite
def rows(draw: st.DrawFn, oddities: int = 3) -> bytes:
    """A usual row in which up to ``oddities`` keys have any value, are absent or are new."""
    pairs = [(key, draw(usual)) for key, usual in USUAL.items()]
    for _ in range(draw(st.integers(0, oddities))):
        where = draw(st.integers(0, len(pairs) - 1))
        kind = draw(st.sampled_from(["any", "any", "any", "drop", "twice", "new"]))
        if kind == "any":
            pairs[where] = (pairs[where][0], draw(values))
        elif kind == "drop" and len(pairs) > 1:
            del pairs[where]
        elif kind == "twice":
            pairs.append(pairs[where])
        else:
            pairs.append((draw(strings), draw(values)))
    gap = draw(spaces)
    body = f",{gap}".join(f"{json.dumps(key)}{gap}:{gap}{value}" for key, value in pairs)
    return f"{gap}{{{body}}}".encode()


def decode(*page: bytes) -> DecodedRows:
    return decode_rows([msgspec.Raw(row) for row in page], partner_id=PARTNER, now=NOW)


def assert_loadable(token: Token) -> None:
    """What COPY BINARY with set_types, and the table's constraints, ask of a token."""
    for text in (
        token.token_id, token.user_id, token.file_name, token.attached_object_type,
        token.attached_object_id, token.upload_url,
    ):  # fmt: skip
        assert text is None or (type(text) is str and not UNSTORABLE.search(text))
        assert text is None or len(text.encode()) <= 65_536
    assert token.token_id.strip()
    assert len(token.token_id.encode()) <= 1024
    assert token.status is None or (type(token.status) is int and -(2**15) <= token.status < 2**15)
    for size in (token.file_size_bytes, token.uploaded_size_bytes):
        assert size is None or (type(size) is int and -(2**63) <= size < 2**63)
    for moment in (token.created_at, token.updated_at):
        assert moment is None or (moment.tzinfo is UTC and FIRST <= moment < END)
    assert token.created_at is not None
    assert token.auto_finalize in (None, False, True)
    if token.extra is not None:
        assert len(token.extra) <= 65_536
        assert b"\\u0000" not in token.extra.replace(b"\\\\", b"")
        extra = json.loads(token.extra.decode())
        assert extra
        assert not set(extra) & set(KEYS.split())


def assert_accounted_for(page: list[bytes]) -> None:
    """Each row is loaded, rejected with its bytes, or its page is refused: nothing else."""
    try:
        found = decode(*page)
    except DataRefused:
        return
    assert len(found.tokens) + len(found.rejected) == len(found.positions) == len(page)
    left = Counter(page)
    for bad in found.rejected:
        assert left[bad.payload] > 0
        assert bad.reason
        assert bad.token_id is not None
        assert not UNSTORABLE.search(bad.token_id)
    for token in found.tokens:
        assert_loadable(token)
    for index, untold in found.tokens.untold.items():
        assert untold.reason in PARTLY_LOADED
        assert all(getattr(found.tokens[index], name) is None for name in untold.columns)


@given(st.lists(rows(), max_size=3))
@settings(max_examples=100, deadline=None)
def test_generated_rows_are_accounted_for(page: list[bytes]) -> None:
    assert_accounted_for(page)


@pytest.mark.campaign
@pytest.mark.timeout(3_600)
@given(st.lists(rows(), max_size=3))
@settings(max_examples=20_000, deadline=None)
def test_twenty_thousand_pages_are_accounted_for(page: list[bytes]) -> None:
    assert_accounted_for(page)


@given(st.one_of(st.binary(max_size=60), values.map(str.encode)))
@settings(max_examples=1000, deadline=None)
def test_any_bytes_are_accounted_for(row: bytes) -> None:
    assert_accounted_for([row])


COLUMN_TYPES = "text text int2 text int8 int8 timestamptz timestamptz text text bool text jsonb"


def test_emitted_tokens_go_through_copy_binary(empty_database_url: str) -> None:
    """What is read back equals what was decoded, to the last microsecond and character."""
    types = COLUMN_TYPES.split()
    with psycopg.connect(empty_database_url, autocommit=True) as connection:
        connection.execute("set time zone 'UTC'")
        columns = ", ".join(
            f"{name} {type_}" for name, type_ in zip(TOKEN_COLUMNS, types, strict=True)
        )
        connection.execute(f"create temporary table loaded ({columns})".encode())

        @given(st.lists(rows(oddities=2), min_size=1, max_size=5))
        @settings(max_examples=150, deadline=None)
        def copy(page: list[bytes]) -> None:
            try:
                tokens = decode(*page).tokens
            except DataRefused:
                return
            connection.execute("delete from loaded")
            with (
                connection.cursor() as cursor,
                cursor.copy("copy loaded from stdin (format binary)") as pipe,
            ):
                pipe.set_types(types)
                for token in tokens:
                    extra = None if token.extra is None else Jsonb(token.extra, dumps=bytes)
                    pipe.write_row((*token[:-1], extra))
            back = connection.execute("select * from loaded").fetchall()
            assert [row[:-1] for row in back] == [token[:-1] for token in tokens]

        copy()


@given(rows(oddities=1))
@settings(max_examples=150, deadline=None)
def test_fast_and_careful_reader_agree(row: bytes) -> None:
    assert_readers_agree(row)


@pytest.mark.campaign
@pytest.mark.timeout(3_600)
@given(rows(oddities=1))
@settings(max_examples=20_000, deadline=None)
def test_fast_and_careful_reader_agree_on_twenty_thousand_rows(row: bytes) -> None:
    assert_readers_agree(row)


def assert_readers_agree(row: bytes) -> None:
    try:
        careful, position, coercions = read_row(
            row, row_index=0, partner_id=PARTNER, now_second=NOW.timestamp()
        )
    except DataRefused as expected:
        fields = expected.fields
        with pytest.raises(DataRefused) as refused:
            decode(row)
        assert refused.value.fields == fields
        return

    found = decode(row)

    if isinstance(careful, PartToken):
        assert found.tokens.untold == {0: careful.untold}
        careful = careful.token
    else:
        assert found.tokens.untold == {}
    assert [*found.tokens, *found.rejected] == [careful]
    assert found.positions == [position]
    assert found.coercions == coercions


@given(st.lists(rows(oddities=1), max_size=5))
@settings(max_examples=100, deadline=None)
def test_a_page_is_the_sum_of_its_rows(page: list[bytes]) -> None:
    assert_sum_of_its_rows(page)


@pytest.mark.campaign
@pytest.mark.timeout(3_600)
@given(st.lists(rows(oddities=1), max_size=5))
@settings(max_examples=20_000, deadline=None)
def test_twenty_thousand_pages_are_the_sums_of_their_rows(page: list[bytes]) -> None:
    assert_sum_of_its_rows(page)


def assert_sum_of_its_rows(page: list[bytes]) -> None:
    try:
        alone = [decode(row) for row in page]
    except DataRefused:
        with pytest.raises(DataRefused):
            decode(*page)
        return

    whole = decode(*page)

    assert whole.tokens == [token for one in alone for token in one.tokens]
    assert whole.rejected == [bad for one in alone for bad in one.rejected]
    assert whole.positions == [place for one in alone for place in one.positions]
    assert whole.coercions == sum((one.coercions for one in alone), Counter[str]())


@given(st.text(st.sampled_from("htps:/\\@?#u%.\t\n -x[]"), max_size=24))
@example("//:\\@")
@settings(max_examples=1500, deadline=None)
def test_no_userinfo_is_stored(url: str) -> None:
    base: dict[str, Any] = {"id": "a", "createdAt": 1_767_632_400, "uploadUrl": url}
    stored = decode(json.dumps(base).encode()).tokens[0].upload_url

    assert stored is not None
    try:
        authority = urlsplit(stored).netloc
    except ValueError:
        return
    assert "@" not in authority
