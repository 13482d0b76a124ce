"""Who is calling: the session of a request, and everything that can be wrong with it."""

from __future__ import annotations

import fnmatch
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from etl.simulator.api import errors
from etl.simulator.api.directory import SERVED_PARTNER_STATUSES, Directory, Partner
from etl.simulator.api.ks import ADMIN, Session, read_ks
from etl.simulator.api.php import to_int, to_text


@dataclass(frozen=True, slots=True)
class Caller:
    """A request's session."""

    session: Session | None
    partner: Partner | None
    error: errors.ApiError | None = None

    @property
    def is_admin(self) -> bool:
        return self.session is not None and self.session.type == ADMIN

    @property
    def only_user(self) -> str | None:
        """The user whose tokens alone are shown; None for a session that sees all."""
        if self.session is None or self.session.type == ADMIN:
            return None
        return "" if self.session.user_id in ("", "0") else self.session.user_id


def identify(
    params: Mapping[str, Any], directory: Directory, *, now: float, uri: str, peer: str
) -> Caller:
    """The caller; what is wrong with its session is in ``error``, not raised.

    ``uri`` is the raw request target: ``urirestrict`` compares it as it stands.
    """
    ks = to_text(params.get("ks"))
    if not ks:
        return Caller(None, None)
    session = read_ks(ks, directory.signing_secrets)
    if session is None:
        return Caller(None, None, errors.invalid_ks(ks))
    partner = directory.partners[session.partner_id]
    if session.expires_at <= now:
        return Caller(session, partner, errors.invalid_ks("EXPIRED"))
    error = _limits(session, partner, uri=uri, peer=peer)
    if error is None and partner.status not in SERVED_PARTNER_STATUSES:
        error = errors.partner_blocked()
    return Caller(session, partner, error)


def _limits(session: Session, partner: Partner, *, uri: str, peer: str) -> errors.ApiError | None:
    ended = {session.ks, session.privilege("sessionid")} & partner.ended_sessions
    if ended:
        return errors.invalid_ks("LOGOUT")
    addresses = session.privilege("iprestrict")
    if addresses is not None and peer not in addresses.split("|"):
        return errors.invalid_ks("EXCEEDED_RESTRICTED_IP")
    patterns = session.privilege("urirestrict")
    if patterns is not None and not any(_uri_fits(uri, one) for one in patterns.split("|")):
        return errors.invalid_ks("EXCEEDED_RESTRICTED_URI")
    return None


def _uri_fits(uri: str, pattern: str) -> bool:
    """Case sensitive; only ``*`` at the end is a wildcard, as everywhere in it is of no use."""
    if pattern.endswith("*"):
        return uri.startswith(pattern[:-1])
    return fnmatch.fnmatchcase(uri, pattern)


def count_action(caller: Caller) -> None:
    """Use up one call of a session with ``actionslimit``; raises when there is none left.

    A limit that is no positive number is refused at every call.
    """
    session, partner = caller.session, caller.partner
    if session is None or partner is None:
        return
    limit = session.privilege("actionslimit")
    if limit is None:
        return
    if to_int(limit) <= 0:
        raise errors.invalid_actions_limit()
    used = partner.actions_counted.get(session.ks, 0)
    if used >= to_int(limit):
        raise errors.invalid_ks("EXCEEDED_ACTIONS_LIMIT")
    partner.actions_counted[session.ks] = used + 1


def require_service(caller: Caller, service: str, action: str, params: Mapping[str, Any]) -> None:
    """Raise unless the caller may use a service at all."""
    if caller.error is not None:
        raise caller.error
    if caller.session is None or caller.partner is None:
        raise errors.service_forbidden(service, action)
    count_action(caller)
    role = caller.session.privilege("setrole")
    if role is not None:
        services = caller.partner.roles.get(role)
        if services is None:
            raise errors.invalid_object_id("N/A")
        if service.lower() not in services:
            raise errors.service_forbidden(service, action)
    asked = params.get("partnerId")
    if asked not in (None, "") and to_int(asked) != caller.session.partner_id:
        raise errors.service_forbidden(service, action)
