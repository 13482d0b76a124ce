"""What an action returns, and its encoding in the format that was asked for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import msgspec

from etl.simulator.account.encode import TOKEN_FIELDS, encode_json, encode_php, encode_xml
from etl.simulator.api.errors import ApiError
from etl.simulator.api.php import to_int, to_text

LIST_TYPE = "KalturaUploadTokenListResponse"
JSON, XML, PHP, JSONP = 1, 2, 3, 9
_ALWAYS_SHOWN = frozenset({"objectType", "uploadUrl"})


@dataclass(slots=True)
class ListReply:
    """A page.  ``total`` is what goes out as totalCount; ``...`` leaves it out."""

    total: Any
    rows: list[bytes]
    raw_names: Mapping[str, bytes] = field(default_factory=dict)
    """Names by token id that are not valid UTF-8: null in JSON, as they are in other formats."""

    def as_json(self) -> bytes:
        head = b"" if self.total is ... else b'"totalCount":%s,' % encode_json(self.total)
        return b"".join(
            (b"{", head, b'"objects":[', b",".join(self.rows), b'],"objectType":"', _TYPE, b'"}')
        )

    def as_value(self) -> dict[str, Any]:
        known: dict[str, Any] = {} if self.total is ... else {"totalCount": self.total}
        known["objects"] = [self._row_value(row) for row in self.rows]
        known["objectType"] = LIST_TYPE
        return known

    def _row_value(self, row: bytes) -> Any:
        known = msgspec.json.decode(row)
        if isinstance(known, dict) and known.get("id") in self.raw_names:
            name = self.raw_names[known["id"]]
            known["fileName"] = name.decode("utf-8", "surrogateescape")
        return known


_TYPE = LIST_TYPE.encode()


@dataclass(frozen=True, slots=True)
class ResponseProfile:
    """Which fields of a token go out: ``include`` says whether the names are wanted or not."""

    include: bool
    names: frozenset[str]

    def shows(self, name: str) -> bool:
        if name in _ALWAYS_SHOWN:
            return True
        return (name in self.names) == self.include


def read_profile(params: Mapping[str, Any]) -> ResponseProfile | None:
    given = params.get("responseProfile")
    if not isinstance(given, Mapping):
        return None
    names = frozenset(part.strip() for part in to_text(given.get("fields")).split(","))
    kind = to_int(given.get("type", 1))
    return ResponseProfile(kind != 2, names) if names - {""} or kind == 1 else None


def shape_row(row: bytes, profile: ResponseProfile | None, upload_url: str | None) -> bytes:
    """A token's JSON with the fields that a profile leaves, and with ``uploadUrl`` if set."""
    if profile is None and upload_url is None:
        return row
    known = msgspec.json.decode(row)
    if upload_url is not None:
        known["uploadUrl"] = upload_url
        known = {
            name: known[name]
            for name in (*TOKEN_FIELDS, *(n for n in known if n not in TOKEN_FIELDS))
            if name in known
        }
    if profile is not None:
        known = {name: value for name, value in known.items() if profile.shows(name)}
    return encode_json(known)


def to_value(result: Any) -> Any:
    """A result as plain data."""
    if isinstance(result, ListReply):
        return result.as_value()
    if isinstance(result, ApiError):
        return result.as_object()
    return [to_value(part) for part in result] if isinstance(result, list) else result


def to_json(result: Any) -> bytes:
    if isinstance(result, ListReply):
        return result.as_json()
    if isinstance(result, list):
        return b"[" + b",".join(to_json(part) for part in result) + b"]"
    return encode_json(to_value(result))


def encode_result(
    result: Any, params: Mapping[str, Any], seconds: float
) -> tuple[bytes, list[tuple[str, str]]]:
    """(body, headers) in the format that ``params`` ask for; XML without ``format``.

    An unknown format gives an empty body, and the reason only in the headers.
    """
    given = params.get("format", XML)
    known = to_int(given) if to_text(given).strip().isdigit() else None
    if known == JSON:
        return to_json(result), [("Content-Type", "application/json")]
    if known == XML:
        ignore_null = to_text(params.get("ignoreNull")) == "1"
        body = encode_xml(to_value(result), ignore_null=ignore_null, execution_seconds=seconds)
        return body, [("Content-type", "text/xml;charset=UTF-8")]
    if known == PHP:
        return encode_php(to_value(result)), [("Content-type", "text/html; charset=UTF-8")]
    callback = to_text(params.get("callback"))
    if known == JSONP and callback:
        body = callback.encode() + b"(" + to_json(result) + b");"
        return body, [("Content-Type", "application/javascript")]
    if known == JSONP:
        code, reason = "MANDATORY_PARAMETER_MISSING", "Mandatory parameter missing [callback]"
    else:
        code = "UNKNOWN_RESPONSE_FORMAT"
        reason = f"Response format provided [{to_text(given)}] is not recognized by server"
    return b"", [
        ("X-Kaltura", f"error- {code}"),
        ("X-Kaltura-App", f"exiting on error {code} - {reason}"),
        ("Content-type", "text/html; charset=UTF-8"),
    ]
