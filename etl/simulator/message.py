"""What the rooms ``http`` and ``api`` exchange: one HTTP request, one reply."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(slots=True)
class HttpRequest:
    """One request; header names in lower case."""

    method: str
    target: str
    headers: dict[str, str]
    body: bytes
    peer: str = "127.0.0.1"
    version: str = "HTTP/1.1"

    @property
    def path(self) -> str:
        return self.target.partition("?")[0]

    @property
    def query(self) -> str:
        return self.target.partition("?")[2]


@dataclass(slots=True)
class HttpReply:
    """One reply before it is framed."""

    body: bytes
    status: int = 200
    headers: list[tuple[str, str]] = field(default_factory=list)
    rows: int = 0
    """Tokens in the body, on which the time that the reply takes may depend."""
