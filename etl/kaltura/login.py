"""Ways to open a session: app token, admin secret, existing KS.  All must give an admin session.

Any other is refused before the first page: the service would return only that user's tokens,
without an error, and the rest would look deleted.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from typing import Any, Protocol

from etl.errors import ConfigurationError, CredentialsRefused, EtlError, ServiceUnavailable
from etl.kaltura.calls import Calls
from etl.kaltura.ks import ADMIN_TYPE, make_ks, read_ks

START_WIDGET_PATH = "session/action/startWidgetSession"
START_APP_TOKEN_PATH = "appToken/action/startSession"  # noqa: S105 - an address
GET_SESSION_PATH = "session/action/get"

# Kaltura's default is SHA1; a token may be made with any of these, and only its owner knows which.
HASH_TYPES = ("SHA1", "SHA256", "SHA512", "MD5")
ADMIN_SESSION_SECONDS = 86_400

RENEW_AT_SHARE = 0.5
"""A session is renewed when this share of its life is over."""


@dataclass(frozen=True, slots=True)
class Credentials:
    """One of app token (id and token), admin secret, or an existing KS."""

    partner_id: int
    app_token_id: str | None = None
    app_token: str | None = field(default=None, repr=False)
    admin_secret: str | None = field(default=None, repr=False)
    ks: str | None = field(default=None, repr=False)


@dataclass(slots=True)
class Session:
    """One session.  Times are monotonic seconds; ``lifetime_seconds`` None if not known."""

    ks: str = field(repr=False)
    started: float
    lifetime_seconds: float | None
    generation: int = 0
    has_answered: bool = False
    renew_after: float = float("inf")

    def __post_init__(self) -> None:
        if self.lifetime_seconds is not None:
            self.renew_after = self.started + RENEW_AT_SHARE * self.lifetime_seconds

    def seconds_left(self, now: float) -> float | None:
        if self.lifetime_seconds is None:
            return None
        return self.started + self.lifetime_seconds - now


class Login(Protocol):
    """A way to open a session."""

    partner_id: int
    kind: str
    can_renew: bool

    def open(self, calls: Calls) -> Session:
        """A new session, known to be of admin type and of the configured partner."""


@dataclass(slots=True)
class AppTokenLogin:
    """startWidgetSession, then appToken.startSession with a hash of that session and the token."""

    partner_id: int
    app_token_id: str
    app_token: str = field(repr=False)
    hash_type: str | None = None
    kind: str = "app token"
    can_renew: bool = True

    def open(self, calls: Calls) -> Session:
        widget = calls.object(START_WIDGET_PATH, {"widgetId": f"_{self.partner_id}"})
        widget_ks = _text_of(widget, "ks")
        calls.client.scrubber.add(widget_ks)
        candidates = [self.hash_type] if self.hash_type else list(HASH_TYPES)
        while True:
            hash_type = candidates.pop(0)
            digest = hashlib.new(
                hash_type.lower(), (widget_ks + self.app_token).encode(), usedforsecurity=False
            ).hexdigest()
            calls.client.scrubber.add(digest)
            started = calls.monotonic()
            try:
                info = calls.object(
                    START_APP_TOKEN_PATH,
                    {
                        "ks": widget_ks,
                        "id": self.app_token_id,
                        "tokenHash": digest,
                        "type": ADMIN_TYPE,
                    },
                )
            except CredentialsRefused as refused:
                if refused.fields.get("code") != "INVALID_APP_TOKEN_HASH" or not candidates:
                    raise
                continue
            break
        self.hash_type = hash_type
        ks = _text_of(info, "ks")
        calls.client.scrubber.add(ks)
        _check_session(info, self.partner_id)
        return Session(ks, started, _lifetime(info, calls))


@dataclass(slots=True)
class AdminSecretLogin:
    """A KS v2 made here; the first one is verified by the service before it is used."""

    partner_id: int
    admin_secret: str = field(repr=False)
    kind: str = "admin secret"
    can_renew: bool = True
    _proved: bool = False

    def open(self, calls: Calls) -> Session:
        started = calls.monotonic()
        ks = make_ks(
            partner_id=self.partner_id,
            admin_secret=self.admin_secret,
            expires_at=int(calls.server_now()) + ADMIN_SESSION_SECONDS,
        )
        calls.client.scrubber.add(ks)
        if not self._proved:
            _check_session(calls.object(GET_SESSION_PATH, {"ks": ks}), self.partner_id)
            self._proved = True
        return Session(ks, started, float(ADMIN_SESSION_SECONDS))


@dataclass(slots=True)
class ReadyLogin:
    """An existing KS, which cannot be renewed."""

    partner_id: int
    ks: str = field(repr=False)
    kind: str = "ready KS"
    can_renew: bool = False

    def open(self, calls: Calls) -> Session:
        readable = read_ks(self.ks)
        if readable is None:
            raise CredentialsRefused(
                "KALTURA_KS is not a Kaltura session string", setting="KALTURA_KS"
            )
        _check_partner(readable.partner_id, self.partner_id)
        started = calls.monotonic()
        try:
            info = calls.object(GET_SESSION_PATH, {"ks": self.ks})
        except EtlError as refused:
            if not _refused_by_restriction(refused):
                raise
            if readable.session_type is None:
                raise CredentialsRefused(
                    "KALTURA_KS may not ask session.get what type it is, and a version 2 session "
                    "cannot be read without its secret: allow /api_v3/service/session/action/get* "
                    "in its urirestrict, or use an app token",
                    setting="KALTURA_KS",
                ) from None
            info = {"sessionType": readable.session_type, "expiry": readable.expires_at}
        _check_session(info, self.partner_id)
        return Session(self.ks, started, _lifetime(info, calls))


def choose_login(credentials: Credentials, *, app_token_hash: str | None) -> Login:
    """The login that the credentials allow; ConfigurationError if none."""
    given = credentials
    if given.ks is not None:
        return ReadyLogin(given.partner_id, given.ks)
    if given.admin_secret is not None:
        return AdminSecretLogin(given.partner_id, given.admin_secret)
    if not given.app_token_id or not given.app_token:
        raise ConfigurationError(
            "Give KALTURA_APP_TOKEN_ID and KALTURA_APP_TOKEN, KALTURA_ADMIN_SECRET, or KALTURA_KS."
        )
    return AppTokenLogin(
        given.partner_id, given.app_token_id, given.app_token, hash_type=app_token_hash
    )


def _check_session(info: dict[str, Any], partner_id: int) -> None:
    session_type = _int_of(info.get("sessionType"))
    if session_type != ADMIN_TYPE:
        raise CredentialsRefused(
            f"the session is of type {session_type}, not admin ({ADMIN_TYPE}): it would see the "
            "tokens of one user only. Create the app token or session with sessionType 2",
            reason="session_type",
            session_type=session_type,
        )
    if "partnerId" in info:
        _check_partner(_int_of(info["partnerId"]), partner_id)


def _check_partner(found: int | None, expected: int) -> None:
    if found != expected:
        raise CredentialsRefused(
            f"the session belongs to partner {found}, KALTURA_PARTNER_ID is {expected}",
            reason="partner_id",
        )


def _lifetime(info: dict[str, Any], calls: Calls) -> float | None:
    """Seconds of life from now: the absolute expiry against the server's own clock."""
    expiry = _int_of(info.get("expiry"))
    return None if expiry is None else max(0.0, expiry - calls.server_now())


def _refused_by_restriction(refused: EtlError) -> bool:
    """The session is valid, but its privileges or role do not allow session.get."""
    code = refused.fields.get("code")
    if code == "INVALID_KS":
        return isinstance(refused, ConfigurationError)
    return code == "SERVICE_FORBIDDEN"


def _text_of(info: dict[str, Any], key: str) -> str:
    value = info.get(key)
    if isinstance(value, str) and value:
        return value
    raise ServiceUnavailable(f"the service's reply to the login has no {key}", reason="login_reply")


def _int_of(value: object) -> int | None:
    """session.get sends numbers as strings, startSession as numbers."""
    if isinstance(value, bool):
        return None
    if isinstance(value, int):
        return value
    if isinstance(value, str) and value.isascii() and value.lstrip("-").isdigit():
        return int(value)
    return None
