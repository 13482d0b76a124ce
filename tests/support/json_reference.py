"""``docs/reference/json.md`` as data, and what a command printed, compared with it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

PAGE = Path(__file__).resolve().parents[2] / "docs" / "reference" / "json.md"
ROW = re.compile(r"^\| `([^`]+)` \| ([a-z ]+) \| .*\|$", re.MULTILINE)
EVERY, FAILURE = "Every command", "A command that failed"

Fields = dict[str, frozenset[str]]


def documented() -> dict[str, Fields]:
    """By heading: the types of each field, such as ``{"accounts[].age_hours": {number, null}}``."""
    sections = re.split(r"^## ", PAGE.read_text(encoding="utf-8"), flags=re.MULTILINE)
    found: dict[str, Fields] = {}
    for section in sections[1:]:
        heading = section.partition("\n")[0].strip("`")
        found[heading] = {
            field: frozenset(types.split(" or ")) for field, types in ROW.findall(section)
        }
    return found


def fields_of(command: str, *, failed: bool) -> Fields:
    """What one object of a command may hold."""
    pages = documented()
    own = pages.get(command.replace("backfill", "sync"), {})
    return pages[EVERY] | (pages[FAILURE] if failed else {}) | own


def contradictions(result: dict[str, Any], fields: Fields, seen: set[str]) -> list[str]:
    """What a result has that is not documented, or of another type; ``seen`` gets its fields."""
    missing = [name for name in fields if not re.search(r"[.\[]", name) and name not in result]
    found = [f"{name} is missing" for name in missing]
    for path, value in _walk(result, fields):
        seen.add(path)
        if path not in fields:
            found.append(f"{path} is not documented: {value!r}")
        elif not _types(value) & fields[path]:
            found.append(f"{path} is no {' or '.join(sorted(fields[path]))}: {value!r}")
    return found


def _walk(value: Any, fields: Fields, path: str = "") -> Iterator[tuple[str, Any]]:
    """Each value with its path: ``name.key``, ``name[]``, and ``name.*`` where keys are data."""
    if path:
        yield path, value
    if isinstance(value, dict):
        prefix = f"{path}." if path else ""
        by_data = any(name.startswith(f"{prefix}*") for name in fields)
        described = by_data or not path or any(name.startswith(prefix) for name in fields)
        for key, each in value.items() if described else ():
            yield from _walk(each, fields, f"{prefix}*" if by_data else f"{prefix}{key}")
    elif isinstance(value, list):
        described = any(name.startswith(f"{path}[]") for name in fields)
        for each in value if described else ():
            yield from _walk(each, fields, f"{path}[]")


def _types(value: Any) -> set[str]:
    if isinstance(value, str):
        return {"string", "time"} if _is_time(value) else {"string"}
    names = {
        bool: {"boolean"},
        int: {"integer", "number"},
        float: {"number"},
        list: {"list"},
        dict: {"object"},
    }
    return names.get(type(value), {"null"})


def _is_time(text: str) -> bool:
    try:
        return datetime.fromisoformat(text).tzinfo is not None
    except ValueError:
        return False
