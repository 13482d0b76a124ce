"""What is a valid reply, and how each error of the service is handled.

Kaltura answers HTTP 200 to nearly everything: an error is a JSON object with a ``code``.  The
table below classifies the codes; a code that is not in it is permanent.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import Enum
from typing import Any

import msgspec

from etl.errors import ConfigurationError, CredentialsRefused, DataRefused, EtlError
from etl.kaltura.retry import FailureKind, PassingFailure
from etl.kaltura.shown import shown_code, shown_names
from etl.process.secrets import Scrubber


class Action(Enum):
    """How the program handles an error."""

    RETRY = "retries"
    RETRY_SLOWLY = "retries after at least 10 s"
    RETRY_OR_DIVIDE = "retries; after 3 attempts at an answer with tokens, divides it"
    RENEW = "renews the session once, then retries"
    CREDENTIALS = "stops, exit 77"
    CONFIGURATION = "stops, exit 78"
    REFUSE = "stops, exit 65"


@dataclass(frozen=True, slots=True)
class Rule:
    action: Action
    advice: str


_TROUBLE = Rule(Action.RETRY, "the service is in trouble")
_PERHAPS_A_ROW = Rule(Action.RETRY_OR_DIVIDE, "the service is in trouble")
_OUR_REQUEST = Rule(
    Action.CONFIGURATION,
    "this service does not take the program's request: check the version and KALTURA_SERVICE_URL",
)
_PARTNER = Rule(
    Action.CREDENTIALS, "the account is blocked, deleted or unknown: check KALTURA_PARTNER_ID"
)
_APP_TOKEN = "check KALTURA_APP_TOKEN_ID and KALTURA_APP_TOKEN"  # noqa: S105 - names, no secret

ERROR_TABLE: Mapping[str, Rule] = {
    "INTERNAL_SERVERL_ERROR": _PERHAPS_A_ROW,  # sic, in the service
    "INTERNAL_SERVER_ERROR": _PERHAPS_A_ROW,
    "INTERNAL_DATABASE_ERROR": _TROUBLE,
    "LOCK_TIMED_OUT": _TROUBLE,
    "ACTION_BLOCKED": Rule(Action.RETRY_SLOWLY, "the service limits our rate"),
    "SERVICE_FORBIDDEN": Rule(
        Action.CREDENTIALS,
        "the session may not list upload tokens: check the role or privileges of the app token, "
        "and KALTURA_PARTNER_ID",
    ),
    "SERVICE_FORBIDDEN_CONTENT_BLOCKED": _PARTNER,
    "INVALID_PARTNER_ID": _PARTNER,
    "INVALID_WIDGET_ID": _PARTNER,
    "MISSING_KS": _PARTNER,
    "START_SESSION_ERROR": Rule(
        Action.CREDENTIALS, "wrong secret: check KALTURA_ADMIN_SECRET and KALTURA_PARTNER_ID"
    ),
    "APP_TOKEN_ID_NOT_FOUND": Rule(Action.CREDENTIALS, f"no such app token: {_APP_TOKEN}"),
    "APP_TOKEN_NOT_ACTIVE": Rule(Action.CREDENTIALS, f"the app token is disabled: {_APP_TOKEN}"),
    "APP_TOKEN_EXPIRED": Rule(Action.CREDENTIALS, f"the app token has expired: {_APP_TOKEN}"),
    "INVALID_APP_TOKEN_HASH": Rule(Action.CREDENTIALS, f"wrong app token: {_APP_TOKEN}"),
    "SERVICE_ACCESS_CONTROL_RESTRICTED": Rule(
        Action.CONFIGURATION,
        "the account's API access control refuses this client: check its rules and use https",
    ),
    "INVALID_OBJECT_ID": Rule(
        Action.CONFIGURATION, "the role in the session's setrole privilege does not exist"
    ),
    "SERVICE_DOES_NOT_EXISTS": _OUR_REQUEST,
    "ACTION_DOES_NOT_EXISTS": _OUR_REQUEST,
    "SERVICE_NOT_SPECIFIED": _OUR_REQUEST,
    "ACTION_NOT_SPECIFIED": _OUR_REQUEST,
    "INVALID_ENUM_VALUE": _OUR_REQUEST,
    "PROPERTY_VALIDATION_WRONG_FORMAT": _OUR_REQUEST,
    "MISSING_MANDATORY_PARAMETER": _OUR_REQUEST,
    "MANDATORY_PARAMETER_MISSING": _OUR_REQUEST,
    "INVALID_PARAMETER_CHAR": _OUR_REQUEST,
    "UNKNOWN_RESPONSE_FORMAT": _OUR_REQUEST,
}

INVALID_KS_TABLE: Mapping[str, Rule] = {
    "EXPIRED": Rule(Action.RENEW, "the session has expired"),
    "LOGOUT": Rule(Action.RENEW, "the session was ended"),
    "EXCEEDED_ACTIONS_LIMIT": Rule(Action.RENEW, "the session's actionslimit is used up"),
    "EXCEEDED_RESTRICTED_IP": Rule(
        Action.CONFIGURATION, "the session's iprestrict privilege names another address"
    ),
    "EXCEEDED_RESTRICTED_URI": Rule(
        Action.CONFIGURATION,
        "the session's urirestrict privilege does not allow this address: it is case sensitive "
        "and must be /api_v3/service/uploadtoken/action/list*",
    ),
}
"""By ``args.KSID``: in every INVALID_KS it, and nothing else, tells the reason."""

INVALID_KS_OTHER = Rule(
    Action.CREDENTIALS, "the session string is not valid: check the secret and KALTURA_PARTNER_ID"
)
UNKNOWN_CODE = Rule(Action.REFUSE, "an error that this program does not know")
_KNOWN_CODES = frozenset(ERROR_TABLE) | {"INVALID_KS"}

_SESSION_ID = re.compile(r"\d{1,20}, ?\d{1,20}")


class SessionEnded(CredentialsRefused):
    """The session is over (EXPIRED, LOGOUT, EXCEEDED_ACTIONS_LIMIT); another may be made."""

    def __init__(self, message: str, *, reason: str, **fields: object) -> None:
        super().__init__(message, reason=reason, **fields)
        self.reason = reason


@dataclass(frozen=True, slots=True)
class Reply:
    """One complete HTTP 200 answer, not yet parsed."""

    body: bytes
    requested_at: datetime
    received_at: datetime
    kaltura_session: str | None
    """The service's own id of the request, for Kaltura's support."""
    server_time: float | None
    """The server's clock (Unix seconds) when it answered, if it said."""
    cached: bool
    error_header: str | None
    """Code in ``X-Kaltura: error-…``: the only sign of some errors, whose body is empty."""


class ListEnvelope(msgspec.Struct):
    """The body of ``uploadToken.list``.  Key order is not a contract; unknown keys are ignored."""

    objects: list[msgspec.Raw]
    object_type: str = msgspec.field(name="objectType")
    total_count: msgspec.Raw = msgspec.field(name="totalCount", default=msgspec.Raw(b"null"))


class _ErrorEnvelope(msgspec.Struct):
    code: str | int
    object_type: str = msgspec.field(name="objectType", default="")
    args: msgspec.Raw = msgspec.Raw(b"[]")


_LIST = msgspec.json.Decoder(ListEnvelope)
_ERROR = msgspec.json.Decoder(_ErrorEnvelope)
_ANY = msgspec.json.Decoder()
_BOM = b"\xef\xbb\xbf"
_BRACE = (b"{",)
_first_byte = struct.Struct("c").unpack_from  # half the time of a memoryview per row
_BROKEN = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
LIST_TYPE = "KalturaUploadTokenListResponse"


def parse_list(body: bytes) -> ListEnvelope | None:
    """The list in ``body``, or None if it is not a complete one.  A BOM is tolerated."""
    text = body.removeprefix(_BOM)
    try:
        envelope: ListEnvelope | None = _LIST.decode(text)
    except _BROKEN:
        envelope = _parse_with_lone_surrogates(text)
    if envelope is None:
        return None
    if envelope.object_type != LIST_TYPE:
        return None
    # The decoder does not look into a raw value; it may be anything, an object begins with a brace.
    if set(map(_first_byte, envelope.objects)) - {_BRACE}:
        return None
    return envelope


_SURROGATE_OR_ESCAPE = re.compile(
    rb"(\\u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2})"  # a pair: one character
    rb"|(\\u[dD][89a-fA-F][0-9a-fA-F]{2})"  # half of one
    rb"|\\."
)


def _parse_with_lone_surrogates(text: bytes) -> ListEnvelope | None:
    """The list, although a name contains a lone surrogate, for which the decoder refuses the page.

    Lone surrogates are masked by an escape of equal length, the page is split into its rows, and
    the rows are returned as they were sent: such a name is handled when rows are decoded.
    """
    masked = _SURROGATE_OR_ESCAPE.sub(
        lambda match: b"\\ufffd" if match.group(2) else match.group(), text
    )
    if masked == text:
        return None
    try:
        envelope = _LIST.decode(masked)
    except _BROKEN:
        return None
    rows = []
    cursor = 0
    for row in envelope.objects:
        begin = masked.index(bytes(row), cursor)
        cursor = begin + len(bytes(row))
        rows.append(msgspec.Raw(text[begin:cursor]))
    return ListEnvelope(
        object_type=envelope.object_type, objects=rows, total_count=envelope.total_count
    )


def read_list(reply: Reply, scrubber: Scrubber) -> ListEnvelope:
    """The list in a reply.  Raises PassingFailure, or what the table says about the error."""
    envelope = parse_list(reply.body)
    if envelope is not None and not reply.cached:
        return envelope
    if envelope is not None:
        # ``nocache`` should make this impossible: an old page would prove false absences.
        raise PassingFailure("the service answered from a cache", reason="cached_reply")
    raise read_failure(reply, scrubber)


def read_object(reply: Reply, scrubber: Scrubber) -> dict[str, Any]:
    """The object in a reply of a session service.  Raises like ``read_list``.

    A success from the service's cache is taken: widget sessions may be served so, and a session
    is proved by use.
    """
    try:
        value = _ANY.decode(reply.body.removeprefix(_BOM))
    except _BROKEN:
        value = None
    if isinstance(value, dict) and "code" not in value and "objectType" in value:
        return value
    raise read_failure(reply, scrubber)


def total_count_of(envelope: ListEnvelope) -> int | None:
    """``totalCount`` as an integer or digits, else None: it is a hint and may be nonsense."""
    text = bytes(envelope.total_count).strip(b'"')
    return int(text) if text.isdigit() and len(text) <= 15 else None


def read_failure(reply: Reply, scrubber: Scrubber) -> EtlError:
    """The error for a reply that is not the requested one."""
    facts: dict[str, Any] = {"kaltura_session": reply.kaltura_session}
    body = reply.body.removeprefix(_BOM).strip()
    if not body:
        if reply.error_header:
            return error_for_code(reply.error_header, {}, scrubber, facts)
        return PassingFailure("the service sent an empty reply", reason="empty_reply", **facts)
    if body[:1] == b"<":
        # A login page, a captive portal, a firewall, or XML: rarely transient.
        return PassingFailure(
            "the service sent HTML or XML instead of JSON",
            failure_kind=FailureKind.MARKUP,
            reason="markup_reply",
            verdict=DataRefused(
                "the service sent HTML or XML instead of JSON, twice in a row: check "
                "KALTURA_SERVICE_URL, and for a proxy or login page in between",
                reason="markup_reply",
                **facts,
            ),
            **facts,
        )
    try:
        envelope = _ERROR.decode(body)
    except _BROKEN:
        return PassingFailure(
            "the service sent a broken or unexpected reply", reason="malformed_reply", **facts
        )
    if reply.cached:
        # Errors about unreadable sessions are cached under a key without the session: this one
        # may be the answer to another client.
        return PassingFailure(
            "the service answered with an error from a cache", reason="cached_reply", **facts
        )
    return error_for_code(str(envelope.code), _args_of(envelope), scrubber, facts)


def rule_for(code: str, args: Mapping[str, object]) -> Rule:
    """How to handle an error of the service."""
    if code == "INVALID_KS":
        return INVALID_KS_TABLE.get(str(args.get("KSID")), INVALID_KS_OTHER)
    return ERROR_TABLE.get(code, UNKNOWN_CODE)


def error_for_code(
    code: str, args: Mapping[str, object], scrubber: Scrubber, facts: dict[str, object]
) -> EtlError:
    """The error to raise.  Its text has the code and our own words, nothing of the message.

    The service's own texts echo session strings, another client's among them.
    """
    rule = rule_for(code, args)
    shown = shown_code(code, _KNOWN_CODES, scrubber)
    facts = facts | {"code": shown}
    if code == "INVALID_KS" and str(args.get("KSID")) in INVALID_KS_TABLE:
        shown = f"{shown} {args['KSID']}"
    named = ", ".join(shown_names(args))
    message = f"Kaltura answered {shown}{f' ({named})' if named else ''}: {rule.advice}"
    return _BUILDERS[rule.action](message, args, facts)


def session_id_text(header: str | None) -> str | None:
    """``X-Kaltura-Session`` (random number, Unix time): what to quote to Kaltura's support."""
    return header if header and _SESSION_ID.fullmatch(header) else None


def _args_of(envelope: _ErrorEnvelope) -> dict[str, object]:
    # ``args`` is ``[]`` when there are none and an object when there are some.
    try:
        value = _ANY.decode(envelope.args)
    except _BROKEN:
        return {}
    return value if isinstance(value, dict) else {}


_Build = Callable[[str, Mapping[str, object], dict[str, Any]], EtlError]


def _passing(kind: FailureKind) -> _Build:
    return lambda message, _args, facts: PassingFailure(message, failure_kind=kind, **facts)


def _renew(message: str, args: Mapping[str, object], facts: dict[str, Any]) -> EtlError:
    return SessionEnded(message, reason=str(args.get("KSID")), **facts)


def _refuse(message: str, _args: Mapping[str, object], facts: dict[str, Any]) -> EtlError:
    return DataRefused(message, reason="unknown_error_code", **facts)


_BUILDERS: Mapping[Action, _Build] = {
    Action.RETRY: _passing(FailureKind.TROUBLE),
    Action.RETRY_SLOWLY: _passing(FailureKind.RATE_LIMIT),
    Action.RETRY_OR_DIVIDE: _passing(FailureKind.ROW),
    Action.RENEW: _renew,
    Action.CREDENTIALS: lambda message, _args, facts: CredentialsRefused(message, **facts),
    Action.CONFIGURATION: lambda message, _args, facts: ConfigurationError(message, **facts),
    Action.REFUSE: _refuse,
}
