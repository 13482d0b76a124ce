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
    "fill_since_latest",
    "fill_since_earlier",
)
"""Files of ``sql/ops``."""


def moment_fillings() -> Iterator[str]:
    """Each is to be executed as it is, with the schema as the ``search_path``; all may be again."""
    for name in FILLED_BY:
        yield (sql_directory() / "ops" / f"{name}.sql").read_text(encoding="utf-8")


def count_filling() -> str:
    """What fills the log of status counts from the moments; it must be empty."""
    return (sql_directory() / "ops" / "fill_status_counts.sql").read_text(encoding="utf-8")
