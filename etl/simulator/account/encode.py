"""What PHP makes of a value: JSON, Kaltura's XML, and ``serialize()``.

JSON is compared byte by byte with the recorded replies, so its quirks are kept: slashes are
escaped, everything beyond ASCII is ``\\uXXXX``, and DEL goes out raw.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

TOKEN_FIELDS = (
    "id",
    "partnerId",
    "userId",
    "status",
    "fileName",
    "fileSize",
    "uploadedFileSize",
    "createdAt",
    "updatedAt",
    "uploadUrl",
    "autoFinalize",
    "attachedObjectType",
    "attachedObjectId",
)
"""Properties of KalturaUploadToken in the order of their declaration, without ``objectType``."""

_ESCAPED_DEL = re.compile(r"(?<!\\)((?:\\\\)*)\\u007f")
_XML_ESCAPES = str.maketrans({"&": "&amp;", "<": "&lt;", ">": "&gt;", '"': "&quot;", "'": "&apos;"})


def encode_json(value: Any) -> bytes:
    """JSON as PHP's ``json_encode`` writes it."""
    text = json.dumps(value, separators=(",", ":")).replace("/", "\\/")
    if "\\u007f" in text:
        text = _ESCAPED_DEL.sub("\\1\x7f", text)
    return text.encode("ascii")


def encode_token(fields: Mapping[str, Any]) -> bytes:
    """One token as a JSON object: known fields in their order, then unknown ones, then the type.

    A field that is not in the mapping is absent; one whose value is None is an explicit null,
    which the service sends for a name that is not valid UTF-8.
    """
    ordered = {name: fields[name] for name in TOKEN_FIELDS if name in fields}
    for name, value in fields.items():
        if name not in ordered and name != "objectType":
            ordered[name] = value
    ordered["objectType"] = fields.get("objectType", "KalturaUploadToken")
    return encode_json(ordered)


def encode_xml(value: Any, *, ignore_null: bool, execution_seconds: float) -> bytes:
    """Kaltura's XML envelope.  Control characters and NUL stay raw, which makes it ill-formed."""
    parts = ['<?xml version="1.0" encoding="utf-8"?><xml><result>']
    _append_xml(parts, value, ignore_null)
    parts.append(f"</result><executionTime>{execution_seconds:.14g}</executionTime></xml>")
    return _to_bytes("".join(parts))


def _to_bytes(text: str) -> bytes:
    """UTF-8, with bytes that are none given back as they were."""
    try:
        return text.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        return text.encode("utf-8", "replace")


def _append_xml(parts: list[str], value: Any, ignore_null: bool) -> None:
    if isinstance(value, Mapping):
        if value.get("objectType") == "KalturaAPIException":
            arguments = [
                {"objectType": "KalturaApiExceptionArg", "name": name, "value": text}
                for name, text in dict(value["args"]).items()
            ]
            parts.append("<error>")
            _append_children(parts, {**value, "args": arguments}, ignore_null)
            parts.append("</error>")
        else:
            _append_children(parts, _complete_object(value, ignore_null), ignore_null)
    elif isinstance(value, list | tuple):
        for item in value:
            parts.append("<item>")
            _append_xml(parts, item, ignore_null)
            parts.append("</item>")
    elif isinstance(value, bool):
        parts.append("1" if value else "0")
    elif value is not None:
        parts.append(str(value).translate(_XML_ESCAPES))


def _complete_object(value: Mapping[str, Any], ignore_null: bool) -> Mapping[str, Any]:
    """``objectType`` comes first in XML, and absent properties are empty elements."""
    kind = value.get("objectType")
    if kind is None:
        return value
    ordered: dict[str, Any] = {"objectType": kind}
    if kind in ("KalturaUploadToken", "KalturaUploadTokenListResponse") and not ignore_null:
        ordered["relatedObjects"] = None
    if kind == "KalturaUploadToken" and not ignore_null:
        ordered.update(dict.fromkeys(TOKEN_FIELDS))
    ordered.update({name: item for name, item in value.items() if name != "objectType"})
    return ordered


def _append_children(parts: list[str], value: Mapping[str, Any], ignore_null: bool) -> None:
    for name, item in value.items():
        if item is None and ignore_null:
            continue
        parts.append(f"<{name}>")
        _append_xml(parts, item, ignore_null)
        parts.append(f"</{name}>")


def encode_php(value: Any) -> bytes:
    """PHP's ``serialize()``."""
    if isinstance(value, Mapping):
        kind = value.get("objectType")
        if kind is not None:
            fields = [(name, item) for name, item in value.items() if name != "objectType"]
            head = f'O:{len(kind)}:"{kind}":{len(fields)}:'.encode()
        else:
            fields = list(value.items())
            head = b"a:%d:" % len(fields)
        return head + b"{" + b"".join(encode_php(n) + encode_php(i) for n, i in fields) + b"}"
    if isinstance(value, Sequence) and not isinstance(value, str):
        inner = b"".join(encode_php(n) + encode_php(item) for n, item in enumerate(value))
        return b"a:%d:{" % len(value) + inner + b"}"
    return _php_scalar(value)


def _php_scalar(value: Any) -> bytes:
    if value is None:
        return b"N;"
    if isinstance(value, bool):
        return b"b:%d;" % value
    if isinstance(value, int):
        return b"i:%d;" % value
    if isinstance(value, float):
        return f"d:{value!r};".encode()
    data = _to_bytes(str(value))
    return b's:%d:"' % len(data) + data + b'";'
