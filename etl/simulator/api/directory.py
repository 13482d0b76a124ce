"""The simulated partners: secrets, roles, app tokens, ended sessions, limits."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from etl.simulator.account.account import Account

DEFAULT_ADMIN_SECRET = "a1b2c3d4e5f60718293a4b5c6d7e8f90"  # noqa: S105 (of a test account)
DEFAULT_ROLE_ID, DEFAULT_ROLE_NAME = "5001", "etl_reader"

SERVED_PARTNER_STATUSES = (1, 2, 4)
"""Seen: 1 and 4 are served, 0, 3 and 6 are refused.  2 blocks content only (inferred)."""


@dataclass
class Partner:
    """One partner: its account and everything that its sessions are checked against.

    ``admin_secret`` may hold several secrets by commas, as Kaltura allows for rotation.
    """

    account: Account
    admin_secret: str = DEFAULT_ADMIN_SECRET
    status: int = 1
    roles: dict[str, frozenset[str]] = field(default_factory=dict)
    """Role by id and by system name → services that it may use (lower case)."""
    app_tokens: dict[str, dict[str, Any]] = field(default_factory=dict)
    ended_sessions: set[str] = field(default_factory=set)
    """Session strings, and ``sessionid`` privileges, that were ended."""
    actions_counted: dict[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        upload_only = frozenset({"uploadtoken", "session"})
        self.roles.setdefault(DEFAULT_ROLE_ID, upload_only)
        self.roles.setdefault(DEFAULT_ROLE_NAME, upload_only)

    @property
    def partner_id(self) -> int:
        return self.account.partner_id

    @property
    def admin_secrets(self) -> tuple[str, ...]:
        return tuple(part.strip() for part in self.admin_secret.split(",") if part.strip())


class Directory:
    """All partners, by id."""

    def __init__(self, partners: Iterable[Partner]) -> None:
        self.partners = {partner.partner_id: partner for partner in partners}

    def get(self, partner_id: int | None) -> Partner | None:
        return self.partners.get(partner_id) if partner_id is not None else None

    def signing_secrets(self, partner_id: int) -> tuple[str, ...]:
        """Secrets that sign sessions of a partner: the server signs with admin secrets only."""
        partner = self.partners.get(partner_id)
        return partner.admin_secrets if partner else ()
