"""The services ``session`` and ``appToken``."""

from __future__ import annotations

import hashlib
import hmac
import random
from collections.abc import Callable, Mapping
from typing import Any

from etl.simulator.api import errors
from etl.simulator.api.auth import require_service
from etl.simulator.api.call import Call
from etl.simulator.api.directory import SERVED_PARTNER_STATUSES, Directory, Partner
from etl.simulator.api.errors import ApiError
from etl.simulator.api.ks import ADMIN, USER, mint_v2, parse_privileges, read_ks
from etl.simulator.api.params import object_param
from etl.simulator.api.php import to_int, to_text

DEFAULT_SESSION_SECONDS = 86_400
_HASHES: dict[str, Callable[[bytes], Any]] = {
    "MD5": hashlib.md5,
    "SHA1": hashlib.sha1,
    "SHA256": hashlib.sha256,
    "SHA512": hashlib.sha512,
}


class SessionService:
    """session.* and appToken.* for all partners of a server."""

    def __init__(self, directory: Directory, seed: int = 0) -> None:
        self.directory = directory
        self._rng = random.Random(f"{seed}/sessions")  # noqa: S311

    def start(self, call: Call) -> str:
        """session.start: a session string, signed with the admin secret whatever its type."""
        params = call.params
        if params.get("secret") is None:
            raise errors.missing_parameter("secret")
        kind = self._type(params, "type", USER)
        partner = self._served_partner(params.get("partnerId"))
        if to_text(params["secret"]) not in partner.admin_secrets:
            raise errors.start_session_error(params.get("partnerId"))
        seconds = to_int(params.get("expiry", DEFAULT_SESSION_SECONDS))
        return self._mint(
            partner,
            int(call.now) + seconds,
            kind,
            user_id=to_text(params.get("userId")),
            privileges=parse_privileges(to_text(params.get("privileges"))),
        )

    def start_widget_session(self, call: Call) -> Mapping[str, Any]:
        widget_id = to_text(call.params.get("widgetId"))
        if not widget_id:
            raise errors.missing_parameter("widgetId")
        partner = self.directory.get(to_int(widget_id[1:]) if widget_id[0] == "_" else None)
        if partner is None or partner.status not in SERVED_PARTNER_STATUSES:
            raise ApiError(
                "INVALID_WIDGET_ID", f'Invalid widget id "{widget_id}"', {"ID": widget_id}
            )
        seconds = to_int(call.params.get("expiry", DEFAULT_SESSION_SECONDS))
        privileges = (("view", "*"), ("widget", "1"))
        expires_at = int(call.now) + seconds
        ks = self._mint(partner, expires_at, USER, user_id="0", privileges=privileges)
        return {
            "partnerId": partner.partner_id,
            "ks": ks,
            "userId": 0,
            "objectType": "KalturaStartWidgetSessionResponse",
        }

    def get(self, call: Call) -> Mapping[str, Any]:
        """session.get: everything in it is a string."""
        require_service(call.caller, "session", "get", call.params)
        session = call.caller.session
        asked = to_text(call.params.get("session"))
        if asked:
            session = read_ks(asked, self.directory.signing_secrets)
            if session is None:
                raise errors.invalid_ks(asked)
        if session is None:
            raise errors.service_forbidden("session", "get")
        return {
            "sessionType": str(session.type),
            "partnerId": str(session.partner_id),
            "userId": session.user_id,
            "expiry": str(session.expires_at),
            "privileges": session.privileges_text,
            "objectType": "KalturaSessionInfo",
        }

    def end(self, call: Call) -> None:
        """session.end: the session is of no use any more, nor are others of its app token."""
        session, partner = call.caller.session, call.caller.partner
        if call.caller.error is not None:
            raise call.caller.error
        if session is not None and partner is not None:
            partner.ended_sessions.add(session.privilege("sessionid") or session.ks)

    # ---- appToken -----------------------------------------------------------------------------

    def add_app_token(self, call: Call) -> Mapping[str, Any]:
        partner = self._admin(call, "add")
        given = object_param(call.params, "appToken")
        now = int(call.now)
        letters = "0123456789abcdefghijklmnopqrstuvwxyz"
        token: dict[str, Any] = {
            "id": "0_" + "".join(self._rng.choices(letters, k=8)),
            "token": f"{self._rng.getrandbits(128):032x}",
            "partnerId": partner.partner_id,
            "createdAt": now,
            "updatedAt": now,
            "status": 2,
        }
        if given.get("expiry") is not None:
            token["expiry"] = to_int(given["expiry"])
        token["sessionType"] = self._type(given, "sessionType", USER)
        token["sessionUserId"] = to_text(given.get("sessionUserId"))
        if not token["sessionUserId"]:
            # A token belongs to a user, and no account has one without an id.
            raise errors.invalid_field("sessionUserId")
        token["sessionDuration"] = to_int(given.get("sessionDuration", DEFAULT_SESSION_SECONDS))
        if given.get("sessionPrivileges") is not None:
            token["sessionPrivileges"] = to_text(given["sessionPrivileges"])
        token["hashType"] = to_text(given.get("hashType")) or "SHA1"
        if token["hashType"] not in _HASHES:
            raise errors.invalid_enum(token["hashType"], "hashType", "KalturaAppTokenHashType")
        token["objectType"] = "KalturaAppToken"
        partner.app_tokens[token["id"]] = token
        return token

    def get_app_token(self, call: Call) -> Mapping[str, Any]:
        return self._app_token(self._admin(call, "get"), call)

    def delete_app_token(self, call: Call) -> None:
        """The token's sessions die with it."""
        partner = self._admin(call, "delete")
        token = self._app_token(partner, call)
        del partner.app_tokens[token["id"]]
        partner.ended_sessions.add(token["id"])

    def start_app_token_session(self, call: Call) -> Mapping[str, Any]:
        """appToken.startSession: type, user and privileges are the token's, not the caller's."""
        require_service(call.caller, "appToken", "startSession", call.params)
        partner, session = call.caller.partner, call.caller.session
        if partner is None or session is None:
            raise errors.service_forbidden("appToken", "startSession")
        token = self._app_token(partner, call)
        if token.get("expiry") and token["expiry"] <= call.now:
            raise ApiError(
                "APP_TOKEN_EXPIRED",
                f'Application token id "{token["id"]}" expired',
                {"ID": token["id"]},
            )
        wanted = _HASHES[token["hashType"]]((session.ks + token["token"]).encode()).hexdigest()
        if not hmac.compare_digest(wanted, to_text(call.params.get("tokenHash"))):
            raise ApiError("INVALID_APP_TOKEN_HASH", "Invalid application token hash")
        seconds = token["sessionDuration"]
        asked = to_int(call.params.get("expiry"))
        if asked > 0:
            seconds = min(seconds, asked)
        user = token.get("sessionUserId") or to_text(call.params.get("userId"))
        privileges = (
            ("sessionid", token["id"]),
            ("apptoken", token["id"]),
            *parse_privileges(token.get("sessionPrivileges", "")),
        )
        expires_at = int(call.now) + seconds
        ks = self._mint(
            partner, expires_at, token["sessionType"], user_id=user, privileges=privileges
        )
        known = read_ks(ks, self.directory.signing_secrets)
        if known is None:
            raise RuntimeError("a session made here cannot be read here")
        return {
            "ks": ks,
            "sessionType": known.type,
            "partnerId": str(known.partner_id),
            "userId": known.user_id,
            "expiry": known.expires_at,
            "privileges": known.privileges_text,
            "objectType": "KalturaSessionInfo",
        }

    # ---- inside -------------------------------------------------------------------------------

    def _served_partner(self, partner_id: object) -> Partner:
        partner = self.directory.get(to_int(partner_id))
        if partner is None or partner.status not in SERVED_PARTNER_STATUSES:
            raise errors.partner_blocked()
        return partner

    @staticmethod
    def _type(params: Mapping[str, Any], name: str, default: int) -> int:
        given = params.get(name)
        if given is None:
            return default
        if to_text(given) not in (str(USER), str(ADMIN)):
            raise errors.invalid_enum(to_text(given), name, "KalturaSessionType")
        return to_int(given)

    def _mint(
        self,
        partner: Partner,
        expires_at: int,
        kind: int,
        *,
        user_id: str,
        privileges: tuple[tuple[str, str], ...],
    ) -> str:
        return mint_v2(
            partner.admin_secrets[0],
            partner.partner_id,
            expires_at=expires_at,
            type=kind,
            user_id=user_id,
            privileges=privileges,
            random_bytes=self._rng.randbytes,
        )

    @staticmethod
    def _admin(call: Call, action: str) -> Partner:
        require_service(call.caller, "appToken", action, call.params)
        if not call.caller.is_admin or call.caller.partner is None:
            raise errors.service_forbidden("appToken", action)
        return call.caller.partner

    @staticmethod
    def _app_token(partner: Partner, call: Call) -> dict[str, Any]:
        token_id = to_text(call.params.get("id"))
        if token_id not in partner.app_tokens:
            raise ApiError(
                "APP_TOKEN_ID_NOT_FOUND",
                f'Application token id "{token_id}" not found',
                {"ID": token_id},
            )
        return partner.app_tokens[token_id]
