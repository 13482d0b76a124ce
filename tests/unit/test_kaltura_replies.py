"""What counts as a reply, and the table of errors: every code, what is done, what is shown."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import msgspec
import pytest

from etl.errors import ConfigurationError, CredentialsRefused, DataRefused, EtlError
from etl.kaltura.replies import (
    ERROR_TABLE,
    INVALID_KS_TABLE,
    Action,
    Reply,
    SessionEnded,
    parse_list,
    read_failure,
    read_list,
    read_object,
    rule_for,
    session_id_text,
    total_count_of,
)
from etl.kaltura.retry import PATIENCE, FailureKind, PassingFailure, Patience
from etl.process.secrets import Scrubber

NOW = datetime(2026, 11, 23, tzinfo=UTC)
SERVICE_PAGE = Path(__file__).parents[2] / "docs" / "reference" / "service.md"
EMPTY_LIST = b'{"totalCount":0,"objects":[],"objectType":"KalturaUploadTokenListResponse"}'


def a_reply(body: bytes, *, cached: bool = False, error_header: str | None = None) -> Reply:
    return Reply(body, NOW, NOW, "2013301934, 1795424053", 1795424053.0, cached, error_header)


def an_error(code: object, args: object = (), message: str = "…") -> bytes:
    return msgspec.json.encode(
        {"code": code, "message": message, "objectType": "KalturaAPIException", "args": args}
    )


def failure(body: bytes, **kinds: object) -> EtlError:
    with pytest.raises(EtlError) as caught:
        read_list(a_reply(body, **kinds), Scrubber())  # type: ignore[arg-type]
    return caught.value


# Code and args as the service sends them, the error that must come of it, its exit code.
ROWS: list[tuple[str, object, type[EtlError], int]] = [
    ("INVALID_KS", {"KSID": "EXPIRED", "ERR_CODE": "-1"}, SessionEnded, 77),
    ("INVALID_KS", {"KSID": "LOGOUT"}, SessionEnded, 77),
    ("INVALID_KS", {"KSID": "EXCEEDED_ACTIONS_LIMIT"}, SessionEnded, 77),
    ("INVALID_KS", {"KSID": "EXCEEDED_RESTRICTED_IP"}, ConfigurationError, 78),
    ("INVALID_KS", {"KSID": "EXCEEDED_RESTRICTED_URI"}, ConfigurationError, 78),
    ("INVALID_KS", {"KSID": "not a ks"}, CredentialsRefused, 77),
    ("INVALID_KS", {"KSID": "djJ8OTk5OTk5fCBkCzfHzDrXcZ"}, CredentialsRefused, 77),
    ("INVALID_KS", [], CredentialsRefused, 77),
    ("SERVICE_FORBIDDEN", {"SERVICE": "uploadToken->list"}, CredentialsRefused, 77),
    ("SERVICE_FORBIDDEN_CONTENT_BLOCKED", [], CredentialsRefused, 77),
    ("SERVICE_ACCESS_CONTROL_RESTRICTED", [], ConfigurationError, 78),
    ("MISSING_KS", [], CredentialsRefused, 77),
    ("START_SESSION_ERROR", {"PID": "102"}, CredentialsRefused, 77),
    ("ACTION_BLOCKED", {"ACTION_NAME": "list"}, PassingFailure, 69),
    ("INTERNAL_DATABASE_ERROR", [], PassingFailure, 69),
    ("INTERNAL_SERVERL_ERROR", [], PassingFailure, 69),
    ("INTERNAL_SERVER_ERROR", [], PassingFailure, 69),
    ("LOCK_TIMED_OUT", [], PassingFailure, 69),
    ("INVALID_ENUM_VALUE", {"PARAM_NAME": "statusEqual"}, ConfigurationError, 78),
    ("PROPERTY_VALIDATION_WRONG_FORMAT", [], ConfigurationError, 78),
    ("MISSING_MANDATORY_PARAMETER", {"PARAM_NAME": "secret"}, ConfigurationError, 78),
    ("MANDATORY_PARAMETER_MISSING", [], ConfigurationError, 78),
    ("UNKNOWN_RESPONSE_FORMAT", [], ConfigurationError, 78),
    ("INVALID_PARAMETER_CHAR", [], ConfigurationError, 78),
    ("SERVICE_DOES_NOT_EXISTS", [], ConfigurationError, 78),
    ("ACTION_DOES_NOT_EXISTS", {"ACTION_NAME": "nosuch"}, ConfigurationError, 78),
    ("SERVICE_NOT_SPECIFIED", [], ConfigurationError, 78),
    ("ACTION_NOT_SPECIFIED", [], ConfigurationError, 78),
    ("INVALID_OBJECT_ID", {"ID": "N/A"}, ConfigurationError, 78),
    ("INVALID_PARTNER_ID", [], CredentialsRefused, 77),
    ("INVALID_WIDGET_ID", [], CredentialsRefused, 77),
    ("APP_TOKEN_ID_NOT_FOUND", {"ID": "0_nope"}, CredentialsRefused, 77),
    ("APP_TOKEN_NOT_ACTIVE", [], CredentialsRefused, 77),
    ("APP_TOKEN_EXPIRED", [], CredentialsRefused, 77),
    ("INVALID_APP_TOKEN_HASH", [], CredentialsRefused, 77),
    ("FLUX_CAPACITOR_EMPTY", [], DataRefused, 65),
]


@pytest.mark.parametrize(("code", "args", "kind", "exit_code"), ROWS)
def test_each_code_becomes_the_error_that_the_table_names(
    code: str, args: object, kind: type[EtlError], exit_code: int
) -> None:
    error = failure(an_error(code, args))

    assert type(error) is kind
    assert error.exit_code == exit_code
    assert error.fields["code"] == code
    assert error.fields["kaltura_session"] == "2013301934, 1795424053"


def test_every_row_of_the_table_is_tested() -> None:
    tested = {code for code, *_ in ROWS}
    reasons = {args["KSID"] for code, args, *_ in ROWS if isinstance(args, dict) and "KSID" in args}

    assert set(ERROR_TABLE) <= tested
    assert set(INVALID_KS_TABLE) <= reasons


def test_every_row_of_the_table_is_in_the_reference_with_what_is_done() -> None:
    page = SERVICE_PAGE.read_text(encoding="utf-8")
    rows = {
        name: line
        for line in page.splitlines()
        if line.startswith("| `")
        for name in line.split("|")[1].replace("`", "").split(", ")
    }
    table = dict(ERROR_TABLE) | {f"INVALID_KS {k}": rule for k, rule in INVALID_KS_TABLE.items()}

    assert {code: rule.action.value for code, rule in table.items()} == {
        name.strip(): line.split("|")[3].strip()
        for name, line in rows.items()
        if name.strip() in table
    }


def test_a_rate_limit_waits_ten_seconds_and_says_so_nowhere_but_here() -> None:
    error = failure(an_error("ACTION_BLOCKED"))

    assert isinstance(error, PassingFailure)
    assert error.asked_seconds == 10.0
    assert rule_for("ACTION_BLOCKED", {}).action is Action.RETRY_SLOWLY


def test_the_text_of_an_error_never_has_the_services_message_or_a_session_string() -> None:
    ks = "djJ8OTk5OTk5fCBkCzfHzDrXcZ_nq875dj92XnTd5DR8BP1zWYDUYyiW3qJtdQ"
    for code in ("INVALID_KS", "SERVICE_FORBIDDEN", "ODD_CODE"):
        error = failure(an_error(code, {"KSID": ks, "SERVICE": ks}, f'Invalid KS "{ks}"'))

        assert ks not in f"{error} {error.fields}"
        assert ks[:20] not in f"{error} {error.fields}"


@pytest.mark.parametrize("code", ["djJ8OTk5OTk5fCBkCzfHzDrXcZ==", "a b\n\x1b[31m", "x" * 65, ""])
def test_a_code_that_is_not_shaped_like_one_is_not_shown(code: str) -> None:
    error = failure(an_error(code))

    assert isinstance(error, DataRefused)
    assert error.fields["code"] == "(unreadable code)"


def test_a_number_as_code_is_an_error_too() -> None:
    assert isinstance(failure(an_error(500)), DataRefused)


@pytest.mark.parametrize(
    "body",
    [
        b"null",
        b"[]",
        b'"djJ8MTAy"',
        b"{}",
        EMPTY_LIST[:-1],
        EMPTY_LIST + b"x",
        b"\xff\xfe",
        b'{"objects":null,"objectType":"KalturaUploadTokenListResponse"}',
        b'{"totalCount":1,"objectType":"KalturaUploadTokenListResponse"}',
        b'{"objects":[],"objectType":"KalturaMediaListResponse"}',
        b'{"objects":[]}',
        b'{"objects":[1],"objectType":"KalturaUploadTokenListResponse"}',
        b'{"objects":[{},null],"objectType":"KalturaUploadTokenListResponse"}',
        b'{"objects":[[]],"objectType":"KalturaUploadTokenListResponse"}',
        b'{"objects":[' + b"[" * 200_000 + b"]" * 200_000 + b"]}",
        b"[" * 200_000,
    ],
)
def test_what_is_not_a_complete_list_is_no_reply(body: bytes) -> None:
    error = failure(body)

    assert isinstance(error, PassingFailure)
    assert error.fields["reason"] == "malformed_reply"


@pytest.mark.parametrize("body", [b"", b"  \n", b"\xef\xbb\xbf"])
def test_an_empty_body_is_no_reply(body: bytes) -> None:
    assert failure(body).fields["reason"] == "empty_reply"


def test_an_empty_body_with_an_error_in_the_headers_is_that_error() -> None:
    error = failure(b"", error_header="UNKNOWN_RESPONSE_FORMAT")

    assert isinstance(error, ConfigurationError)


@pytest.mark.parametrize("body", [b"<html>", b"\n<!DOCTYPE html>", b'<?xml version="1.0"?><xml/>'])
def test_html_is_tried_once_more_and_then_refused(body: bytes) -> None:
    error = failure(body)

    assert isinstance(error, PassingFailure)
    assert error.failure_kind is FailureKind.MARKUP
    assert PATIENCE[error.failure_kind] == Patience(attempts=2, in_a_row=True, until_answered=True)
    assert isinstance(error.verdict, DataRefused)


def test_a_list_or_an_error_from_a_cache_is_no_reply() -> None:
    assert failure(EMPTY_LIST, cached=True).fields["reason"] == "cached_reply"
    assert failure(an_error("INVALID_KS"), cached=True).fields["reason"] == "cached_reply"


def test_a_list_is_read_with_a_byte_order_mark_spaces_and_any_key_order() -> None:
    body = (
        b'\xef\xbb\xbf {"objectType":"KalturaUploadTokenListResponse", "new":[{"code":1}],'
        b' "objects":[ {"id":"a"} , {"id":"\xc3\xa9"}], "totalCount":"2"}\n'
    )
    envelope = read_list(a_reply(body), Scrubber())

    assert [bytes(row) for row in envelope.objects] == [b'{"id":"a"}', '{"id":"é"}'.encode()]
    assert total_count_of(envelope) == 2


@pytest.mark.parametrize(
    ("text", "count"),
    [
        (b"1751", 1751),
        (b'"1751"', 1751),
        (b"0", 0),
        (b"-3", None),
        (b"1.5", None),
        (b"1e3", None),
        (b"true", None),
        (b"null", None),
        (b'""', None),
        (b'"many"', None),
        (b"9" * 30, None),
        (b"[1]", None),
    ],
)
def test_total_count_is_a_number_or_nothing(text: bytes, count: int | None) -> None:
    envelope = parse_list(EMPTY_LIST.replace(b'"totalCount":0', b'"totalCount":' + text))

    assert envelope is not None
    assert total_count_of(envelope) == count


def test_a_missing_total_count_is_nothing() -> None:
    envelope = parse_list(EMPTY_LIST.replace(b'"totalCount":0,', b""))

    assert envelope is not None
    assert total_count_of(envelope) is None


def test_a_login_from_the_services_cache_counts_but_an_error_from_it_does_not() -> None:
    info = b'{"ks":"abc","objectType":"KalturaStartWidgetSessionResponse"}'

    assert read_object(a_reply(info, cached=True), Scrubber())["ks"] == "abc"
    with pytest.raises(PassingFailure):
        read_object(a_reply(an_error("INVALID_KS"), cached=True), Scrubber())


def test_a_reply_of_neither_kind_is_malformed() -> None:
    assert read_failure(a_reply(b'{"a":1}'), Scrubber()).fields["reason"] == "malformed_reply"


def test_a_lone_surrogate_costs_no_page_and_rows_are_kept_as_sent() -> None:
    rows = [
        rb'{"id":"a","fileName":"half \ud83d here"}',
        rb'{"id":"b","fileName":"a backslash \\ud83d, a pair \ud83d\ude00"}',
        rb'{"id":"c","fileName":"\udc00\ud83d"}',
    ]
    body = b'{"totalCount":3,"objects":[%s],"objectType":"KalturaUploadTokenListResponse"}'

    envelope = parse_list(body % b",".join(rows))

    assert envelope is not None
    assert [bytes(row) for row in envelope.objects] == rows


def test_a_lone_surrogate_excuses_nothing_else() -> None:
    body = b'{"totalCount":1,"objects":[{"id":"a","n":"\\ud83d"},],"objectType":"x"}'

    assert parse_list(body) is None


def test_only_a_well_formed_session_id_is_shown() -> None:
    assert session_id_text("2013301934, 1795424053") == "2013301934, 1795424053"
    assert session_id_text("djJ8MTAyfBZhZ") is None
    assert session_id_text(None) is None
