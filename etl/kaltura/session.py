"""The run's session: one for all threads, renewed in time and once when it ends."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from typing import TypeVar

from etl.errors import CredentialsRefused, ServiceUnavailable
from etl.kaltura.calls import Calls
from etl.kaltura.login import Login, Session
from etl.kaltura.replies import Reply, SessionEnded
from etl.kaltura.retry import Call

log = logging.getLogger("etl.kaltura")

T = TypeVar("T")

KEEP_UNTIL_SHARE = 0.9
"""When a renewal in time fails, the session is used until this share of its life …"""
RETRY_RENEWAL_SHARE = 0.05
"""… and a renewal is tried again each time this share has passed."""
# With an actionslimit a new session serves only some calls, which other threads may use up.
RENEWALS_PER_CALL = {"EXCEEDED_ACTIONS_LIMIT": 5}


class Sessions:
    """The run's session.  Thread-safe; a renewal is done once for all threads."""

    def __init__(self, calls: Calls, login: Login) -> None:
        self.login = login
        self._calls = calls
        self._lock = threading.Lock()
        self._session: Session | None = None
        self._refused: CredentialsRefused | None = None

    def call(
        self,
        path: str,
        params: dict[str, object],
        read: Callable[[Reply], T],
        call: Call,
    ) -> T:
        """One call in the run's session, with retries; a session that ended is renewed once."""
        session = self.current()
        renewals = 0
        while True:
            try:
                value = self._calls.send(path, params | {"ks": session.ks}, read, call)
            except SessionEnded as ended:
                because = ended
            else:
                session.has_answered = True
                return value
            if renewals >= RENEWALS_PER_CALL.get(because.reason, 1):
                raise _refused_again(because)
            renewals += 1
            session = self._renew(session, because)

    def current(self) -> Session:
        """The session to use now; opens or renews it when it is time."""
        session = self._session
        if session is not None and self._calls.monotonic() < session.renew_after:
            return session
        with self._lock:
            session = self._session
            now = self._calls.monotonic()
            if session is None:
                return self._open(generation=1)
            if now < session.renew_after:
                return session
            return self._renew_early(session, now)

    def seconds_left(self) -> float | None:
        """Seconds until the current session ends, None if that is not known."""
        session = self._session
        return None if session is None else session.seconds_left(self._calls.monotonic())

    def _renew_early(self, session: Session, now: float) -> Session:
        if not self.login.can_renew:
            session.renew_after = float("inf")  # used until the service says that it is over
            return session
        lifetime = session.lifetime_seconds or 0.0
        try:
            return self._open(session.generation + 1)
        except ServiceUnavailable:
            if now >= session.started + KEEP_UNTIL_SHARE * lifetime:
                raise
            session.renew_after = now + RETRY_RENEWAL_SHARE * lifetime
            log.warning(
                "session not renewed yet, the current one is still valid",
                extra={"event": "session_renewal_postponed"},
            )
            return session

    def _renew(self, spent: Session, because: SessionEnded) -> Session:
        with self._lock:
            session = self._session
            if session is not None and session.generation > spent.generation:
                return session  # another thread was first
            if not self.login.can_renew:
                raise CredentialsRefused(
                    f"{because.message}; a ready session (KALTURA_KS) cannot be renewed: give a "
                    "new one, or use an app token",
                    **because.fields,
                )
            if spent.generation > 1 and not spent.has_answered:
                raise _refused_again(because)
            return self._open(spent.generation + 1)

    def _open(self, generation: int) -> Session:
        """Log in; the caller holds the lock.  A refusal is remembered: retrying is pointless."""
        if self._refused is not None:
            raise CredentialsRefused(self._refused.message, **self._refused.fields)
        try:
            session = self._login()
        except CredentialsRefused as refused:
            self._refused = refused
            raise
        session.generation = generation
        self._session = session
        log.info(
            "session opened",
            extra={
                "event": "session_opened",
                "login": self.login.kind,
                "generation": generation,
                "lifetime_seconds": session.lifetime_seconds,
            },
        )
        return session

    def _login(self) -> Session:
        try:
            return self.login.open(self._calls)
        except SessionEnded as ended:
            because = ended
        # A session that ended before its first use: made by a wrong clock (the refusal has told the
        # server's), or ended meanwhile.  Log in once more.
        if not self.login.can_renew:
            raise CredentialsRefused(
                f"{because.message}; give a new KALTURA_KS, or use an app token", **because.fields
            )
        try:
            return self.login.open(self._calls)
        except SessionEnded as ended:
            because = ended
        raise _refused_again(because)


def _refused_again(because: SessionEnded) -> CredentialsRefused:
    return CredentialsRefused(f"{because.message}, and so was the next one", **because.fields)
