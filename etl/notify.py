"""A notice of how a run ended: one POST to an address such as a Slack webhook.

It is JSON: the figures of the event ``run ended``, and a ``text`` for people, which Slack shows, as
do others that understand its webhooks.
"""

from __future__ import annotations

import contextlib
import http.client
import time
from collections.abc import Mapping, Sequence
from typing import Any, Final
from urllib.parse import quote, urlsplit

from etl.errors import EtlError
from etl.kaltura.transport import Http, NotConnected, ProxyRefused, environment_proxy
from etl.process.log import json_text, printable
from etl.process.secrets import scrub
from etl.process.stop import Stop
from etl.resources import program_version

ATTEMPTS: Final = 2
ATTEMPT_SECONDS: Final = 3.0
TOTAL_SECONDS: Final = 5.0
"""The run is over, and may have been asked to end: its process does not stay for long."""
_RETRIED_STATUSES: Final = frozenset({408, 425, 429})

TOLD_AS_FAILURES: Final = frozenset({"failed", "refused"})
"""States of a run; one that was skipped has met another one at work, which tells for itself."""
ACCOUNTS_MAX: Final = 100
ACCOUNTS_IN_TEXT: Final = 10
MESSAGE_LENGTH_MAX: Final = 1_500
ACCOUNT_MESSAGE_LENGTH_MAX: Final = 200


class NotPosted(Exception):
    """The notice was not accepted.  The message has nothing of the address in it."""


def is_wanted(which: str, event: Mapping[str, Any], accounts: Sequence[Mapping[str, Any]]) -> bool:
    """Whether a run of this kind is told: ``failures`` or ``always``.

    ``accounts`` are those of a job, with their ``status``; of one that got as far as its accounts.
    """
    failed = {each["status"] for each in accounts if each["exit_code"]}
    states = failed or {event["status"]}
    return which == "always" or bool(states & TOLD_AS_FAILURES)


def notice_of(
    event: Mapping[str, Any], message: str | None, accounts: Sequence[Mapping[str, Any]]
) -> dict[str, Any]:
    """What is posted.

    ``event`` has the keys of ``run ended``; ``message`` is that of a failure.  ``accounts`` are
    those of a job, each with ``name``, ``partner_id``, ``status``, ``exit_code`` and ``message``;
    the ones that have failed are posted.
    """
    failed = [each for each in accounts if each["exit_code"]]
    lines = [_first_line(event, accounts)]
    if message:
        lines.append(_shortened(message, MESSAGE_LENGTH_MAX))
    elif not accounts:
        counts = ("tokens_read", "inserted", "changed", "absent")
        read, *others = (event[name] or 0 for name in counts)
        lines.append("{:,} tokens read: {:,} new, {:,} changed, {:,} absent.".format(read, *others))
    lines += [
        f"{each['name']} (account {each['partner_id']}): {each['status']}, exit code "
        f"{each['exit_code']}: {_shortened(str(each['message']), ACCOUNT_MESSAGE_LENGTH_MAX)}"
        for each in failed[:ACCOUNTS_IN_TEXT]
    ]
    if len(failed) > ACCOUNTS_IN_TEXT:
        lines.append(f"… and {len(failed) - ACCOUNTS_IN_TEXT:,} more")
    own = {"accounts": failed[:ACCOUNTS_MAX], "accounts_total": len(accounts)} if accounts else {}
    text = "\n".join(printable(line) for line in lines)
    return {"text": _escaped(text), "event": "run ended", **event, "message": message, **own}


def _first_line(event: Mapping[str, Any], accounts: Sequence[object]) -> str:
    if accounts:
        plural = "s" if len(accounts) > 1 else ""
        subject = f"the {event['mode']} run of {len(accounts):,} account{plural}"
    elif event["partner_id"] is None:
        subject = f"a {event['mode']} run"
    else:
        subject = f"the {event['mode']} run of account {event['partner_id']}"
    if event["label"]:
        subject += f" ({event['label']})"
    # A job fails, whatever the gravest of its accounts has done.
    state = "failed" if accounts and event["exit_code"] else str(event["status"])
    outcome = {"dry_run": "ended (dry run)", "refused": "was refused", "skipped": "was skipped"}
    why = f", {event['reason']}" if event["reason"] else ""
    code = f" (exit code {event['exit_code']}{why})" if event["exit_code"] else ""
    return f"kaltura-etl: {subject} {outcome.get(state, state)}{code}"


def _shortened(text: str, length_max: int) -> str:
    return text if len(text) <= length_max else text[: length_max - 1] + "…"


def _escaped(text: str) -> str:
    """As Slack wants it: <!channel> in an error must not call everybody."""
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def post_notice(url: str, notice: Mapping[str, Any], *, use_environment_proxies: bool) -> None:
    """POST it, once more if that fails in a way that may pass; within ``TOTAL_SECONDS`` in all.

    Redirects are not followed.  Raises NotPosted.
    """
    content = json_text(notice).encode("utf-8")
    ends_at = time.monotonic() + TOTAL_SECONDS
    failure = NotPosted("no attempt was made")
    for attempt in range(1, ATTEMPTS + 1):
        left = ends_at - time.monotonic()
        if left <= 0:
            break
        try:
            status = _post(url, content, min(ATTEMPT_SECONDS, left), use_environment_proxies)
        except (OSError, http.client.HTTPException, NotConnected, ProxyRefused) as exc:
            failure = NotPosted(f"{_reason(exc)} (attempt {attempt})")
            continue
        except (EtlError, ValueError) as exc:
            raise NotPosted(
                exc.message if isinstance(exc, EtlError) else "not an address"
            ) from None
        if 200 <= status < 300:
            return
        failure = NotPosted(f"the answer was HTTP {status} (attempt {attempt})")
        if status < 500 and status not in _RETRIED_STATUSES:
            break
    raise failure from None


def _post(url: str, content: bytes, seconds: float, use_environment_proxies: bool) -> int:
    """The status of the answer, whose body is not read."""
    parts = urlsplit(url)
    headers = {
        "User-Agent": f"kaltura-etl/{program_version()}",
        "Content-Type": "application/json; charset=utf-8",
        "Accept": "*/*",
        "Connection": "close",
    }
    proxy = environment_proxy(url, scrub) if use_environment_proxies else None
    # A stop of its own: the notice of a run that was interrupted is posted, too.
    client = Http(url, headers, Stop(), proxy=proxy)
    query = quote(parts.query, safe="/%:@!$&'()*+,;=~?")
    rest = ("" if parts.path else "/") + (f"?{query}" if query else "")
    with contextlib.closing(client), client.post(rest, content, seconds) as response:
        return response.status


def _reason(exc: Exception) -> str:
    """Why there was no answer, without a word of the address."""
    if isinstance(exc, ProxyRefused):
        return f"the proxy answered HTTP {exc.status}"
    cause = exc.__cause__ if isinstance(exc, NotConnected) and exc.__cause__ else exc
    if isinstance(cause, TimeoutError):
        return "no answer in time"
    text = getattr(cause, "strerror", None)
    return text if isinstance(text, str) and text.isprintable() else type(cause).__name__
