"""URLs of databases on the test server."""

from __future__ import annotations

from urllib.parse import urlsplit, urlunsplit


def with_database(url: str, database: str) -> str:
    """Return ``url`` with another database's name."""
    return urlunsplit(urlsplit(url)._replace(path=f"/{database}"))
