"""What an action returns, and its JSON."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import msgspec

from etl.simulator.account.encode import TOKEN_FIELDS, encode_json
from etl.simulator.api.errors import ApiError
from etl.simulator.api.php import to_int, to_text

JSON, XML = "1", "2"
_ALWAYS_SHOWN = frozenset({"objectType", "uploadUrl"})


@dataclass(slots=True)
class ListReply:
    """A page.  ``total`` goes out as totalCount; ``...`` leaves it out."""

    total: Any
    rows: list[bytes]

    def as_json(self) -> bytes:
        head = b"" if self.total is ... else b'"totalCount":%s,' % encode_json(self.total)
        rows = b",".join(self.rows)
        return b"".join(
            (b"{", head, b'"objects":[', rows, b'],"objectType":"KalturaUploadTokenListResponse"}')
        )


@dataclass(frozen=True, slots=True)
class ResponseProfile:
    """Which fields of a token go out: ``include`` says whether the names are wanted or not."""

    include: bool
    names: frozenset[str]

    def shows(self, name: str) -> bool:
        return name in _ALWAYS_SHOWN or (name in self.names) == self.include


def read_profile(params: Mapping[str, Any]) -> ResponseProfile | None:
    given = params.get("responseProfile")
    if not isinstance(given, Mapping):
        return None
    names = frozenset(part.strip() for part in to_text(given.get("fields")).split(","))
    kind = to_int(given.get("type", 1))
    return ResponseProfile(kind != 2, names) if names - {""} or kind == 1 else None


def shape_row(row: bytes, profile: ResponseProfile | None, upload_url: str | None) -> bytes:
    """A token's JSON with the fields that a profile leaves, and with ``uploadUrl`` if set."""
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


def encode_result(result: Any, params: Mapping[str, Any]) -> tuple[bytes, list[tuple[str, str]]]:
    """(body, headers).

    Only ``format=1``, JSON, is simulated: without it (the service then sends XML) the reply is that
    to an unknown format, an empty body with the reason in the headers.
    """
    asked = to_text(params.get("format", XML)).strip()
    if asked != JSON:
        code = "UNKNOWN_RESPONSE_FORMAT"
        reason = f"Response format provided [{asked}] is not recognized by server"
        return b"", [
            ("X-Kaltura", f"error- {code}"),
            ("X-Kaltura-App", f"exiting on error {code} - {reason}"),
            ("Content-type", "text/html; charset=UTF-8"),
        ]
    if isinstance(result, ListReply):
        body = result.as_json()
    else:
        body = encode_json(result.as_object() if isinstance(result, ApiError) else result)
    return body, [("Content-Type", "application/json")]
