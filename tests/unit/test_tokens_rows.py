"""Mutations of one token (bad data), each alone and inside a healthy page of 500."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import pytest

from etl.errors import DataRefused, UsageError
from etl.tokens.columns import DecodedRows, PageTokens
from etl.tokens.decode import TOKEN_COLUMNS, Token, decode_rows
from etl.tokens.keys import PARTLY_LOADED, STATUS_REASONS, VALUE_KEYS, reasons_of
from etl.tokens.token import Untold

NOW = datetime(2026, 11, 23, 12, 0, 0, tzinfo=UTC)
NOW_SECOND = int(NOW.timestamp())
PARTNER = 102
ABSENT = object()
NOTHING: dict[str, Any] = dict.fromkeys(TOKEN_COLUMNS)
BASE: dict[str, Any] = {
    "id": "0_54a07a7b489ceda16fceaf83bb66450e",
    "partnerId": PARTNER,
    "userId": "bob",
    "status": 2,
    "fileName": "a.mp4",
    "fileSize": "1000",
    "uploadedFileSize": "500",
    "createdAt": 1_767_632_400,
    "updatedAt": 1_767_632_430,
    "uploadUrl": "https://up.example.com/api_v3",
    "autoFinalize": False,
    "attachedObjectType": "entry",
    "attachedObjectId": "0_abc",
    "objectType": "KalturaUploadToken",
}


def row_bytes(key: str = "", literal: object = ABSENT) -> bytes:
    """The base row with ``key`` set to the JSON text ``literal``, or without it if ABSENT."""
    pieces = {name: json.dumps(value) for name, value in BASE.items()}
    pieces.pop(key, None)
    if literal is not ABSENT:
        pieces[key] = str(literal)
    return ("{" + ",".join(f'"{name}":{text}' for name, text in pieces.items()) + "}").encode()


def decode(*rows: bytes) -> DecodedRows:
    return decode_rows([msgspec.Raw(row) for row in rows], partner_id=PARTNER, now=NOW)


def healthy(count: int) -> list[bytes]:
    return [
        json.dumps(BASE | {"id": f"0_{n:032x}", "fileName": f"file, {n}.mp4"}).encode()
        for n in range(count)
    ]


def at_the_250th(row: bytes) -> list[bytes]:
    page = healthy(499)
    return [*page[:250], row, *page[250:]]


def without(column: str) -> Token:
    """The token of the base row without one of its values."""
    nothing: dict[str, Any] = {column: None}
    return decode(row_bytes()).tokens[0]._replace(**nothing)


def text(value: object) -> str:
    return json.dumps(value)


ODD_NAMES = ("", "null", "NaN", "None", "CON")
# key, JSON literal, column, loaded value, coercions
LOADED: list[tuple[str, object, str, object, dict[str, int]]] = [
    ("id", text("0_" + "a" * 32), "token_id", "0_" + "a" * 32, {}),
    ("id", text("x" * 36), "token_id", "x" * 36, {}),
    ("id", text("x" * 255), "token_id", "x" * 255, {}),
    ("id", text("x" * 1024), "token_id", "x" * 1024, {}),
    ("id", "123", "token_id", "123", {"token_id_number": 1}),
    ("id", text("'; drop table--"), "token_id", "'; drop table--", {}),
    ("partnerId", ABSENT, "status", 2, {"partner_id_absent": 1}),
    ("partnerId", "null", "status", 2, {"partner_id_absent": 1}),
    ("partnerId", '"102"', "status", 2, {"partner_id_text": 1}),
    ("userId", ABSENT, "user_id", None, {}),
    ("userId", "null", "user_id", None, {}),
    ("userId", '""', "user_id", "", {}),
    ("userId", text("a@example.com"), "user_id", "a@example.com", {}),
    ("userId", text("u" * 300), "user_id", "u" * 300, {}),
    ("userId", text("😀\u202egpj"), "user_id", "😀\u202egpj", {}),
    ("userId", r'"a\u0000b"', "user_id", "a\ufffdb", {"user_id_nul": 1}),
    ("userId", r'"\ud83d"', "user_id", "\ufffd", {"user_id_surrogate": 1}),
    ("userId", "42", "user_id", "42", {"user_id_number": 1}),
    ("userId", text("=HYPERLINK(1)"), "user_id", "=HYPERLINK(1)", {}),
    ("userId", text("\t+cmd\r@SUM"), "user_id", "\t+cmd\r@SUM", {}),
    ("userId", text("<script>javascript:"), "user_id", "<script>javascript:", {}),
    *[("status", str(n), "status", n, {}) for n in range(7)],
    *[("status", str(n), "status", n, {"status_unknown": 1}) for n in (7, 99, -1, -32768, 32767)],
    ("status", "null", "status", None, {}),
    ("status", ABSENT, "status", None, {}),
    ("status", '"2"', "status", 2, {"status_text": 1}),
    ("status", "2.0", "status", 2, {"status_decimal": 1}),
    ("fileName", ABSENT, "file_name", None, {}),
    ("fileName", "null", "file_name", None, {"file_name_unreadable": 1}),
    ("fileName", text("n" * 256), "file_name", "n" * 256, {}),
    ("fileName", text("n" * 257), "file_name", "n" * 257, {}),
    ("fileName", text("n" * 65536), "file_name", "n" * 65536, {}),
    ("fileName", text("n" * 2**20), "file_name", "n" * 65536, {"file_name_truncated": 1}),
    ("fileName", text("é" * 40000), "file_name", "é" * 32768, {"file_name_truncated": 1}),
    ("fileName", text("x" + "€" * 30000), "file_name", "x" + "€" * 21845,
     {"file_name_truncated": 1}),
    ("fileName", text("😀e\u0301漢\uffff"), "file_name", "😀e\u0301漢\uffff", {}),
    ("fileName", r'"\u0000x"', "file_name", "\ufffdx", {"file_name_nul": 1}),
    ("fileName", r'"x\udc00"', "file_name", "x\ufffd", {"file_name_surrogate": 1}),
    ("fileName", text("\x85\x9f"), "file_name", "\x85\x9f", {}),
    ("fileName", text("../../etc/passwd"), "file_name", "../../etc/passwd", {}),
    ("fileName", text("C:\\x"), "file_name", "C:\\x", {}),
    ("fileName", text("\\N \\. \"'\t\r\n=1+1"), "file_name", "\\N \\. \"'\t\r\n=1+1", {}),
    ("fileName", text("djJ8MTAyfA=="), "file_name", "djJ8MTAyfA==", {}),
    *[("fileName", text(name), "file_name", name, {}) for name in ODD_NAMES],
    ("createdAt", "1767632400", "created_at", datetime(2026, 1, 5, 17, tzinfo=UTC), {}),
    ("autoFinalize", ABSENT, "auto_finalize", None, {}),
    ("autoFinalize", "null", "auto_finalize", None, {}),
    ("autoFinalize", "-1", "auto_finalize", None, {}),
    ("autoFinalize", "0", "auto_finalize", False, {}),
    ("autoFinalize", "1", "auto_finalize", True, {}),
    ("autoFinalize", "true", "auto_finalize", True, {}),
    ("autoFinalize", '"1"', "auto_finalize", True, {"auto_finalize_text": 1}),
    ("attachedObjectType", ABSENT, "attached_object_type", None, {}),
    ("attachedObjectType", text("t" * 127), "attached_object_type", "t" * 127, {}),
    ("attachedObjectId", text("i" * 31), "attached_object_id", "i" * 31, {}),
    ("attachedObjectId", text("i" * 500), "attached_object_id", "i" * 500, {}),
    ("attachedObjectId", "7", "attached_object_id", "7", {"attached_object_id_number": 1}),
    ("objectType", ABSENT, "status", 2, {}),
    ("objectType", text("KalturaUploadTokenX"), "status", 2, {"object_type_other": 1}),
    ("uploadUrl", ABSENT, "upload_url", None, {}),
    *[
        ("uploadUrl", text(url), "upload_url", url, {})
        for url in ("http://x/", "file:///etc/passwd", "javascript:1", "http://169.254.169.254/@x")
    ],
    *[
        ("uploadUrl", text(url), "upload_url", bare, {"upload_url_userinfo": 1})
        for url, bare in (
            ("https://u:p@host/x@y", "https://host/x@y"),
            ("https://u:p@q@host", "https://host"),
            ("//u@host/", "//host/"),
            ("u:p@host", "host"),
            ("https:u:p@host", "https:host"),
        )
    ],
    ("new", "1", "extra", b'{"new":1}', {"unknown_keys": 1}),
    ("new", r'{"b":["\u0000",1.50,true,null],"a":"\ud800"}', "extra",
     '{"new":{"a":"\ufffd","b":["\ufffd",1.50,true,null]}}'.encode(),
     {"unknown_keys": 1, "extra_nul": 1, "extra_surrogate": 1}),
]  # fmt: skip

SIZES: list[tuple[object, object, str | None]] = [
    ("null", None, None), (ABSENT, None, None), ("0", 0, None), ('"0"', 0, None), ("12", 12, None),
    ("12.0", 12, "decimal"), ("-1", -1, "negative"), ('"-1"', -1, "negative"),
    ('"9007199254740993"', 9007199254740993, None), ('"007"', 7, None),
    (str(2**63 - 1), 2**63 - 1, None), (f'"{2**63 - 1}"', 2**63 - 1, None),
]  # fmt: skip
for _key, _name, _column in (
    ("fileSize", "file_size", "file_size_bytes"),
    ("uploadedFileSize", "uploaded_size", "uploaded_size_bytes"),
):
    for _literal, _value, _kind in SIZES:
        _counted = {f"{_name}_{_kind}": 1} if _kind else {}
        LOADED.append((_key, _literal, _column, _value, _counted))

TIMES: list[tuple[str, datetime, str | None]] = [
    ("631152000", datetime(1990, 1, 1, tzinfo=UTC), None),
    ("1700000000.5", datetime(2023, 11, 14, 22, 13, 20, 500000, tzinfo=UTC), "fraction"),
    ("1700000000.0", datetime(2023, 11, 14, 22, 13, 20, tzinfo=UTC), "decimal"),
    ('"1700000000"', datetime(2023, 11, 14, 22, 13, 20, tzinfo=UTC), "text"),
    ('"2026-01-01T00:00:00Z"', datetime(2026, 1, 1, tzinfo=UTC), "text"),
    ('"2026-01-01T00:00:00.25-05:00"', datetime(2026, 1, 1, 5, 0, 0, 250000, tzinfo=UTC), "text"),
    (str(NOW_SECOND + 1), NOW + timedelta(seconds=1), None),
    (str(NOW_SECOND + 86400), NOW + timedelta(days=1), "ahead"),
]
for _key, _column in (("createdAt", "created_at"), ("updatedAt", "updated_at")):
    for _literal, _time, _kind in TIMES:
        LOADED.append((_key, _literal, _column, _time, {f"{_column}_{_kind}": 1} if _kind else {}))
# 2^31 is in 2038, which is more than a year ahead: see BAD_TIMES.

BAD_STATUSES = ["2.5", '"full"', "true", "[]", "32768", "-32769"]
BAD_SIZES = [
    "12.7", "1e999", "1e25", str(2**63), f'"{2**63}"', "true", "{}", "[]", '"12 MB"', '""',
    '"12.7"', '"+5"', '"1_0"', '"\u00b2"', '"\u0663"', "1e99999999999999999999", str(-(2**63) - 1),
]  # fmt: skip
BAD_TIMES = [
    ("0", "out_of_range"), ("-1", "out_of_range"), ("631151999", "out_of_range"),
    ("-62169984000", "zero_date"), ("-62169966238", "zero_date"),
    ("1700000000000", "out_of_range"), ("253402300799", "out_of_range"),
    ("253402300800", "out_of_range"), (str(2**63), "out_of_range"), ("1e308", "out_of_range"),
    ("4102444800", "out_of_range"), ("1e-400", "out_of_range"),
    ("-1e9999999999999999999999", "out_of_range"),
    ('"2026-01-01"', "without_zone"), ('"2026-01-01T00:00:00"', "without_zone"),
    ('"2026-13-01T00:00:00Z"', "invalid"), ('"0001-01-01T00:00:00+23:59"', "zero_date"),
    ('"soon"', "invalid"), ("true", "invalid"), ("[]", "invalid"),
    (str(NOW_SECOND + 10 * 365 * 86400), "in_future"), (str(2**31 - 1), "in_future"),
    (str(2**31), "in_future"),
]  # fmt: skip
REJECTED: list[tuple[str, object, str]] = [
    ("id", r'"a\u0000b"', "token_id_nul"),
    ("id", r'"a\ud800"', "token_id_surrogate"),
    ("id", text("x" * 1025), "token_id_too_long"),
    ("id", "1" * 1025, "token_id_too_long"),
    ("createdAt", ABSENT, "created_at_missing"),
    *[("partnerId", bad, "partner_id_invalid") for bad in ("true", '"acme"', "[102]", "{}")],
    ("createdAt", "null", "created_at_missing"),
    *[("createdAt", bad, f"created_at_{why}") for bad, why in BAD_TIMES],
    *[("status", bad, "status_invalid") for bad in BAD_STATUSES],
]
NOT_USED: list[tuple[str, object, str]] = [
    *[("fileSize", bad, "file_size_invalid") for bad in BAD_SIZES],
    *[("uploadedFileSize", bad, "uploaded_size_invalid") for bad in BAD_SIZES],
    *[("updatedAt", bad, f"updated_at_{why}") for bad, why in BAD_TIMES],
    ("userId", "[]", "user_id_invalid"),
    ("fileName", "false", "file_name_invalid"),
    ("attachedObjectType", "{}", "attached_object_type_invalid"),
    ("attachedObjectId", "true", "attached_object_id_invalid"),
    ("uploadUrl", "{}", "upload_url_invalid"),
    ("autoFinalize", '"yes"', "auto_finalize_invalid"),
    ("autoFinalize", "2", "auto_finalize_invalid"),
    ("new", "1e999999", "extra_number_out_of_range"),
    ("new", "1" * 5000, "extra_number_out_of_range"),
    ("new", text("x" * 65536), "extra_too_large"),
    ("new", "[" * 100 + "]" * 100, "extra_nested_too_deeply"),
    ("new", r'{"\u0000":1,"\ud800":2}', "extra_keys_collide"),
]
NOT_JSON = ("NaN", "Infinity", "-Infinity", "01", "")
REFUSED: list[tuple[bytes, str]] = [
    *[
        (row_bytes("id", bad), "row_without_identity")
        for bad in (ABSENT, "null", '""', '"   "', '"\\u00a0"', "1.5", "true", "[]", "{}")
    ],
    (row_bytes("partnerId", "103"), "foreign_partner"),
    (row_bytes("partnerId", '"103"'), "foreign_partner"),
    *[
        (row_bytes("partnerId", bad), "foreign_partner")
        for bad in ("-102", str(2**63), f'"{2**63}"', "1e999", "102.5")
    ],
    *[(row_bytes("fileSize", bad), "row_not_json") for bad in NOT_JSON],
    (row_bytes("createdAt", "NaN"), "row_not_json"),
    (row_bytes("fileName", '"\x01"'), "row_not_json"),
    (row_bytes()[:-1], "row_not_json"),
    (row_bytes().replace(b"bob", b"b\xffb"), "row_not_json"),
    (row_bytes().replace(b"bob", b"b\xed\xa0\x80b"), "row_not_json"),
    (b"\xef\xbb\xbf" + row_bytes(), "row_not_json"),
    (b"", "row_not_json"),
    *[(bad, "row_not_object") for bad in (b"null", b'"x"', b"7", b"[]", b"true")],
    (row_bytes().replace(b'"status":2', b'"status":2,"status":3'), "row_duplicate_key"),
    (row_bytes().replace(b'"status":2', b'"status":2 ,\n"status" :2'), "row_duplicate_key"),
    (row_bytes().replace(b'"status":2', b'"status":2,"\\u0073tatus":2'), "row_duplicate_key"),
    (row_bytes("new", '{"a":1,"a":1}'), "row_duplicate_key"),
    (
        row_bytes().replace(b'"status":2', b'"key\\\\":1,"status":2,"status":3'),
        "row_duplicate_key",
    ),
    (row_bytes("new", "[" * 10_000 + "]" * 10_000), "row_nested_too_deeply"),
    (row_bytes("fileName", text("x" * 10 * 2**20)), "row_too_large"),
]  # fmt: skip


def label(value: object) -> str | None:
    return str(value)[:40] if isinstance(value, str | bytes) else None


@pytest.mark.parametrize(("key", "literal", "column", "value", "counted"), LOADED, ids=label)
def test_value_is_loaded_and_what_was_coerced_is_counted(
    key: str, literal: object, column: str, value: object, counted: dict[str, int]
) -> None:
    row = row_bytes(key, literal)

    alone = decode(row)
    page = decode(*at_the_250th(row))

    assert getattr(alone.tokens[0], column) == value
    assert type(getattr(alone.tokens[0], column)) is type(value)
    assert (alone.rejected, alone.coercions) == ([], counted)
    assert page.tokens[250] == alone.tokens[0]
    assert (len(page.tokens), page.rejected, page.coercions) == (500, [], counted)
    assert page.positions[250] == alone.positions[0] == alone.tokens[0].created_at.timestamp()


@pytest.mark.parametrize(("key", "literal", "reason"), REJECTED, ids=label)
def test_bad_value_costs_its_row_only(key: str, literal: object, reason: str) -> None:
    row = row_bytes(key, literal)

    alone = decode(row)
    page = decode(*at_the_250th(row))

    assert [bad.reason for bad in alone.rejected] == [reason]
    assert alone.rejected[0].payload == row
    assert (list(alone.tokens), alone.coercions) == ([], {})
    assert page.rejected == alone.rejected
    assert page.tokens == decode(*healthy(499)).tokens
    assert len(page.positions) == 500
    assert page.positions[250] == alone.positions[0]
    if key == "id":
        assert alone.rejected[0].token_id == "sha256:" + hashlib.sha256(row).hexdigest()
    else:
        assert alone.rejected[0].token_id == BASE["id"]
    if key != "createdAt":
        assert alone.positions == [BASE["createdAt"]]
        assert alone.rejected[0].created_second == BASE["createdAt"]


@pytest.mark.parametrize(("key", "literal", "reason"), NOT_USED, ids=label)
def test_bad_value_costs_only_itself(key: str, literal: object, reason: str) -> None:
    row = row_bytes(key, literal)
    column = VALUE_KEYS[key].column if key in VALUE_KEYS else "extra"

    alone = decode(row)
    page = decode(*at_the_250th(row))

    (token,) = alone.tokens
    assert token == without(column)
    assert alone.tokens.untold == {0: Untold((column,), reason)}
    assert (alone.rejected, alone.coercions) == ([], {})
    assert alone.positions == [BASE["createdAt"]]
    assert page.tokens[250] == token
    assert page.tokens.untold == {250: alone.tokens.untold[0]}
    assert (len(page.tokens), page.rejected, page.coercions) == (500, [], {})
    assert reason in PARTLY_LOADED


def test_reason_of_several_bad_values_is_that_of_the_status_or_else_of_the_first() -> None:
    bad = {"userId": [], "fileSize": "big", "updatedAt": 0}
    row = json.dumps(BASE | bad | {"attachedObjectId": 7}).encode()

    found = decode(row)

    columns = ("user_id", "file_size_bytes", "updated_at")
    assert found.tokens.untold == {0: Untold(columns, "user_id_invalid")}
    # Only of what was loaded.
    assert found.coercions == {"attached_object_id_number": 1}
    row = json.dumps(BASE | bad | {"status": "full"}).encode()
    assert decode(row).rejected[0].reason == "status_invalid"


@pytest.mark.parametrize("key", VALUE_KEYS)
@pytest.mark.parametrize("change", [str.upper, str.lower, lambda key: key[0].upper() + key[1:]])
def test_key_in_another_case_is_no_new_key(key: str, change: Callable[[str], str]) -> None:
    other = change(key)
    if other == key:
        return
    sent = {other if name == key else name: value for name, value in BASE.items()}

    found = decode(json.dumps(sent).encode())

    column, word = VALUE_KEYS[key]
    if key == "status":
        assert found.rejected[0].reason == "status_other_case"
        assert "status_other_case" in STATUS_REASONS
        return
    assert found.tokens.untold == {0: Untold((column,), f"{word}_other_case")}
    assert f"{word}_other_case" in reasons_of(key)
    assert found.tokens[0] == without(column)


def test_key_in_another_case_beside_the_usual_one_is_a_new_key() -> None:
    (token,) = decode(json.dumps(BASE | {"filename": "b.mp4"}).encode()).tokens

    assert (token.file_name, token.extra) == ("a.mp4", b'{"filename":"b.mp4"}')


def test_identity_in_another_case_is_none() -> None:
    def decode_with(key: str) -> DecodedRows:
        sent = {key.upper() if name == key else name: value for name, value in BASE.items()}
        return decode(json.dumps(sent).encode())

    with pytest.raises(DataRefused) as refused:
        decode_with("id")
    assert refused.value.fields["reason"] == "row_without_identity"
    assert decode_with("createdAt").rejected[0].reason == "created_at_missing"
    assert decode_with("partnerId").rejected[0].reason == "partner_id_other_case"
    other_type = decode_with("objectType")
    assert other_type.coercions == {"object_type_other": 1}
    assert other_type.tokens == decode(row_bytes()).tokens


@pytest.mark.parametrize(("row", "reason"), REFUSED, ids=label)
def test_row_that_speaks_against_its_page_refuses_it(row: bytes, reason: str) -> None:
    for page, index in (([row], 0), (at_the_250th(row), 250)):
        with pytest.raises(DataRefused) as refused:
            decode(*page)

        assert refused.value.fields["reason"] == reason
        assert refused.value.fields["row_index"] == index


UNPLACEABLE = ("0", "1700000000000", "null", "true", '"x"', "4102444800", "1e999")


@pytest.mark.parametrize(
    ("literal", "position"),
    [
        ("1700000000", 1700000000),
        ("1700000000.5", 1700000000.5),
        ('"2023-11-14T22:13:20Z"', 1700000000),
        ("-62169966238", -62169966238),
        ("-62170070400", -62170070400),
        ("-62135510400", -62135510400),
        ("-62170070401", None),
        ("-62135510399", None),
        (str(NOW_SECOND + 10 * 365 * 86400), NOW_SECOND + 10 * 365 * 86400),
        *[(bad, None) for bad in UNPLACEABLE],
    ],
)  # fmt: skip
def test_position_is_given_where_the_row_can_be_placed(literal: str, position: object) -> None:
    found = decode(row_bytes("createdAt", literal))

    assert found.positions == [position]
    assert type(found.positions[0]) is type(position)
    if found.rejected:
        assert found.rejected[0].created_second == position


def test_unknown_keys_load_up_to_a_hundred() -> None:
    hundred = BASE | {f"k{n:03}": n for n in range(100)}

    assert json.loads(decode(json.dumps(hundred).encode()).tokens[0].extra or b"") == {
        f"k{n:03}": n for n in range(100)
    }
    for more in (101, 1000):
        row = json.dumps(BASE | {f"k{n}": n for n in range(more)}).encode()
        assert decode(row).tokens.untold == {0: Untold(("extra",), "too_many_unknown_keys")}


def test_row_with_nothing_but_identity_and_creation_loads() -> None:
    found = decode(b'{"id":"a","createdAt":1767632400}')

    assert found.tokens == [
        Token(**NOTHING | {"token_id": "a", "created_at": datetime(2026, 1, 5, 17, tzinfo=UTC)})
    ]
    assert found.coercions == {"partner_id_absent": 1}


def test_equal_rows_and_case_twins_pass_through() -> None:
    lower, upper = row_bytes("id", '"abc"'), row_bytes("id", '"ABC"')

    assert [t.token_id for t in decode(lower, lower, upper).tokens] == ["abc", "abc", "ABC"]


def test_empty_page_is_empty() -> None:
    assert decode() == DecodedRows(PageTokens.of([]), [], [], decode().coercions)


def test_rejected_rows_count_no_coercions() -> None:
    row = json.dumps(BASE | {"userId": 42, "id": "x" * 1025}).encode()

    assert decode(row).coercions == {}


def test_naive_clock_is_refused() -> None:
    with pytest.raises(UsageError):
        decode_rows([], partner_id=PARTNER, now=datetime(2026, 1, 1))


def test_refusal_names_no_value_of_the_row() -> None:
    with pytest.raises(DataRefused) as refused:
        decode(row_bytes("fileName", '"private').replace(b"bob", b"secret"))

    assert "private" not in str(refused.value)
    assert refused.value.__cause__ is None


def test_columns_are_in_the_order_of_a_token() -> None:
    assert Token._fields == TOKEN_COLUMNS
