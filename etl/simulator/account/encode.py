"""JSON as PHP writes it.

It is compared byte by byte with the recorded replies, so its quirks are kept: slashes are
escaped, everything beyond ASCII is ``\\uXXXX``, and DEL goes out raw.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
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
