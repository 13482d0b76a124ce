"""How the moments of versions are told that were published without them: statements in order."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from etl.resources import sql_directory

FILLED_BY: Final = (
    "fill_latest_versions",
    "fill_first_versions",
    "fill_status_moments",
    "fill_moment_creations",
    "order_status_moments",
    "fill_moment_predecessors",
)
"""Files of ``sql/ops``."""
VERSIONS: Final = ("upload_token", "upload_token_superseded")
"""The tables that ``fill_since`` fills from the moments, in the end."""


def moment_fillings() -> Iterator[str]:
    """Each is to be executed as it is, with the schema as the ``search_path``; all may be again."""
    for name in FILLED_BY:
        yield _statement(name)
    for table in VERSIONS:
        yield _statement("fill_since").replace(":versions", table)


def count_filling() -> str:
    """What fills the log of status counts from the moments; it must be empty."""
    return _statement("fill_status_counts")


def arrival_filling() -> str:
    """What fills the log of bytes that arrived from the versions; it must be empty."""
    return _statement("fill_bytes_arrived")


def _statement(name: str) -> str:
    return (sql_directory() / "ops" / f"{name}.sql").read_text(encoding="utf-8")
