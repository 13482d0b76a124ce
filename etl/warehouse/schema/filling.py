"""How the moments of versions are told that were published without them: statements in order."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from etl.resources import sql_directory

FILLED_BY: Final = (
    "fill_first_versions",
    "fill_status_moments",
    "fill_moment_creations",
    "order_status_moments",
    "fill_moment_predecessors",
    "fill_earlier_versions",
    "fill_latest_versions",
)
"""Files of ``sql/ops``.  Each writes a row at most once, and every large table in its order."""
PARTS: Final = ("first_moment", "since")
"""Files with what several of them ask of a row."""


def moment_fillings() -> Iterator[str]:
    """Each is to be executed as it is, with the schema as the ``search_path``; all may be again."""
    parts = {f":{name}": _statement(name) for name in PARTS}
    for name in FILLED_BY:
        statement = _statement(name)
        for placeholder, part in parts.items():
            statement = statement.replace(f"({placeholder})", f"({part})")
        yield statement


def stay_filling() -> str:
    """What tells tokens the stays that are over, from the moments; they must have none."""
    return _statement("fill_earlier_stays")


def reopened_filling() -> str:
    """What adds the stays that tokens passed after a failure; may be executed again."""
    return _statement("fill_stays_after_failures")


def count_filling() -> str:
    """What fills the log of status counts from the moments; it must be empty."""
    return _statement("fill_status_counts")


def arrival_filling() -> str:
    """What fills the log of bytes that arrived from the versions; it must be empty."""
    return _statement("fill_bytes_arrived")


def _statement(name: str) -> str:
    return (sql_directory() / "ops" / f"{name}.sql").read_text(encoding="utf-8")
