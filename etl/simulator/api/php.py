"""PHP's casts, where a reply depends on them."""

from __future__ import annotations

import re

INT64_MAX = 2**63 - 1
_NUMBER = re.compile(r"\s*([+-]?(?:\d+(?:\.\d*)?|\.\d+)(?:[eE][+-]?\d+)?)")


def to_int(value: object) -> int:
    """``(int)``: text by its leading number (``"10.9"`` is 10, ``"abc"`` is 0), saturating."""
    if isinstance(value, bool) or value is None:
        return int(bool(value))
    if isinstance(value, list | dict):
        return int(bool(value))
    if isinstance(value, str):
        found = _NUMBER.match(value)
        if not found:
            return 0
        text = found.group(1)
        number = int(text) if re.fullmatch(r"[+-]?\d+", text) else _truncate(float(text))
    elif isinstance(value, float):
        number = _truncate(value)
    else:
        number = int(str(value))
    return max(-INT64_MAX - 1, min(number, INT64_MAX))


def _truncate(value: float) -> int:
    return int(value) if abs(value) < 1e300 else 0


def to_text(value: object) -> str:
    """``(string)``: a list becomes the word ``Array``, true becomes 1, false and null empty."""
    if isinstance(value, list | dict):
        return "Array"
    if value is None or value is False:
        return ""
    if value is True:
        return "1"
    return str(value)
