"""The service ``uploadToken``: list, get, add, delete."""

from __future__ import annotations

import random
from collections.abc import Mapping
from typing import Any

from etl.simulator.account.account import Account
from etl.simulator.account.token_line import Token
from etl.simulator.api import errors
from etl.simulator.api.auth import require_service
from etl.simulator.api.call import Call
from etl.simulator.api.listing import Lister, read_filter, read_pager
from etl.simulator.api.params import object_param
from etl.simulator.api.php import to_int, to_text
from etl.simulator.api.reply import ListReply, read_profile, shape_row
from etl.simulator.api.reply_faults import apply_page_fault, rows_beyond


class UploadTokenService:
    """uploadToken for all accounts of a server."""

    def __init__(self, seed: int = 0) -> None:
        self.page_cap = 500
        self.shuffle_ties = False
        self.upload_url: str | None = None
        """If set, goes out with every token, as on an installation that has it configured."""
        self._rng = random.Random(f"{seed}/service")  # noqa: S311
        self._listers: dict[int, Lister] = {}

    def list(self, call: Call) -> ListReply:
        require_service(call.caller, "uploadToken", "list", call.params)
        pager = read_pager(call.params, self.page_cap)
        account = call.account
        chosen = read_filter(call.params)
        profile = read_profile(call.params)
        with account.lock:
            total, tokens = self._lister(account).page(
                chosen,
                pager,
                only_user=call.caller.only_user,
                shuffle=self._rng if self.shuffle_ties else None,
                more_rows=rows_beyond(call.fault),
            )
            call.note_page(pager.page_index, pager.page_size, total, tokens)
            _refuse_poison(account, tokens)
            rows = [token.body for token in tokens]
        if profile is not None or self.upload_url is not None:
            rows = [shape_row(row, profile, self.upload_url) for row in rows]
        reply = ListReply(total, rows)
        return apply_page_fault(call.fault, reply, profile)

    def get(self, call: Call) -> Mapping[str, Any]:
        require_service(call.caller, "uploadToken", "get", call.params)
        with call.account.lock:
            token = self._one(call)
            _refuse_poison(call.account, [token])
            return call.account.fields(token)

    def delete(self, call: Call) -> None:
        require_service(call.caller, "uploadToken", "delete", call.params)
        with call.account.lock:
            token = self._one(call)
            call.account.delete(token.id, token.created_at)

    def add(self, call: Call) -> Mapping[str, Any]:
        require_service(call.caller, "uploadToken", "add", call.params)
        given = object_param(call.params, "uploadToken")
        fields: dict[str, Any] = {"id": f"0_{self._rng.getrandbits(128):032x}"}
        session = call.caller.session
        if session is not None and session.user_id not in ("", "0"):
            fields["userId"] = session.user_id
        if given.get("fileName") is not None:
            fields["fileName"] = to_text(given["fileName"])
        if given.get("fileSize") is not None:
            fields["fileSize"] = str(to_int(given["fileSize"]))
        fields["autoFinalize"] = to_int(given.get("autoFinalize")) == 1
        with call.account.lock:
            return call.account.fields(call.account.insert(fields))

    def _lister(self, account: Account) -> Lister:
        return self._listers.setdefault(account.partner_id, Lister(account))

    def _one(self, call: Call) -> Token:
        token_id = to_text(call.params.get("uploadTokenId"))
        if not token_id:
            raise errors.missing_parameter("uploadTokenId")
        only_user = call.caller.only_user
        for token in call.account.find(token_id):
            if only_user is None or token.user_id == only_user:
                return token
        raise errors.token_not_found()


def _refuse_poison(account: Account, tokens: list[Token]) -> None:
    """One row without a usable data centre fails the whole page, with any profile."""
    if account.poison and any(token.id in account.poison for token in tokens):
        raise errors.internal_server_error()
