"""``uploadToken.list``: pages in createdAt order, and lookups by id."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import msgspec

from etl.kaltura.calls import Calls
from etl.kaltura.replies import ListEnvelope, Reply, read_list, total_count_of
from etl.kaltura.retry import Call, Counters
from etl.kaltura.session import Sessions
from etl.tokens.page import PageFacts

# All in lower case: a session's urirestrict compares the address as it is sent.
LIST_PATH = "uploadtoken/action/list"
PAGE_SIZE_MAX = 500
IDS_MAX = 500

# A profile that leaves autoFinalize out spares the service its token cache, and so works while
# that is down.  The kind that includes is the one that was seen to.
PROFILE_WITHOUT_AUTO_FINALIZE = {
    "objectType": "KalturaDetachedResponseProfile",
    "type": 1,
    "fields": "id,partnerId,userId,status,fileName,fileSize,uploadedFileSize,createdAt,updatedAt,"
    "uploadUrl,attachedObjectType,attachedObjectId",
}


@dataclass(frozen=True, slots=True)
class PageReply:
    """One accepted reply.  ``body`` is what the service sent, decompressed, otherwise untouched."""

    facts: PageFacts
    rows: list[msgspec.Raw]
    body: bytes


@dataclass(frozen=True, slots=True)
class Probe:
    """What ``kaltura-etl check`` shows of the service.  A failed probe is an EtlError instead."""

    service_url: str
    partner_id: int
    session_seconds_left: float | None
    latency_seconds: float
    total_count: int | None
    server_clock_ahead_seconds: float


class UploadTokens:
    """Reads upload tokens.  Thread-safe; close it, or use it as a context manager."""

    def __init__(self, sessions: Sessions, calls: Calls) -> None:
        self._sessions = sessions
        self._calls = calls

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exception: object) -> None:
        self.close()

    def close(self) -> None:
        self._calls.client.close()

    def give_up(self) -> None:
        """Retry nothing from now on, in no thread, because what is read is of no use any more."""
        self._calls.policy.give_up()

    @property
    def counters(self) -> Counters:
        """Requests and retries of this run so far, logins included."""
        return self._calls.policy.counters

    def list_page(
        self,
        page_index: int,
        page_size: int,
        *,
        descending: bool = False,
        status_in: str | None = None,
        omit_auto_finalize: bool = False,
        row_attempts: int | None = None,
    ) -> PageReply:
        """One page of at most ``page_size`` (1 to 500) tokens by createdAt; index from 1.

        ``status_in``: comma-separated statuses.  After ``row_attempts`` answers of
        INTERNAL_SERVERL_ERROR it raises RowSuspected; None: that is retried like an outage.
        Raises ServiceFailure for an outage, and the other kinds of ``etl.errors`` for what no
        retry can fix.
        """
        # Size 0 means "no limit" to the service, and an index over 64 bits means page 1.
        if not (1 <= page_size <= PAGE_SIZE_MAX and 1 <= page_index < 2**53):
            raise ValueError(f"no such page: index {page_index}, size {page_size}")
        where = {"orderBy": "-createdAt" if descending else "+createdAt"}
        if status_in is not None:
            where["statusIn"] = status_in
        return self._list(page_index, page_size, where, omit_auto_finalize, row_attempts)

    def list_by_id(
        self,
        token_ids: Sequence[str],
        *,
        omit_auto_finalize: bool = False,
        row_attempts: int | None = None,
    ) -> PageReply:
        """The tokens among ``token_ids`` (1 to 500) that are listed now; see ``list_page``."""
        if not 1 <= len(token_ids) <= IDS_MAX:
            raise ValueError(f"{len(token_ids)} ids: the service reads the first {IDS_MAX} only")
        if any(not token_id or "," in token_id for token_id in token_ids):
            raise ValueError("an id is empty or has a comma, which separates ids")
        where = {"idIn": ",".join(token_ids), "orderBy": "+createdAt"}
        return self._list(1, PAGE_SIZE_MAX, where, omit_auto_finalize, row_attempts)

    def probe(self) -> Probe:
        """Verify the session with one row: reachable, admin, allowed to list."""
        began = time.monotonic()
        page = self.list_page(1, 1)
        latency = time.monotonic() - began
        return Probe(
            service_url=self._calls.client.base_url,
            partner_id=self._sessions.login.partner_id,
            session_seconds_left=self._sessions.seconds_left(),
            latency_seconds=latency,
            total_count=page.facts.total_count,
            server_clock_ahead_seconds=self._calls.server_clock_ahead_seconds(),
        )

    def _list(
        self,
        page_index: int,
        page_size: int,
        where: dict[str, str],
        omit_auto_finalize: bool,
        row_attempts: int | None,
    ) -> PageReply:
        params: dict[str, object] = {
            "filter": where,
            "pager": {"pageSize": page_size, "pageIndex": page_index},
        }
        if omit_auto_finalize:
            params["responseProfile"] = PROFILE_WITHOUT_AUTO_FINALIZE
        scrubber = self._calls.client.scrubber

        def read(reply: Reply) -> tuple[Reply, ListEnvelope]:
            return reply, read_list(reply, scrubber)

        reply, envelope = self._sessions.call(
            LIST_PATH,
            params,
            read,
            Call(row_attempts, {"page_index": page_index, "page_size": page_size}),
        )
        facts = PageFacts(
            page_index=page_index,
            page_size=page_size,
            filter=msgspec.json.encode(where, order="sorted").decode(),
            requested_at=reply.requested_at,
            received_at=reply.received_at,
            total_count=total_count_of(envelope),
            rows=len(envelope.objects),
            body_sha256=hashlib.sha256(reply.body).digest(),
        )
        return PageReply(facts, envelope.objects, reply.body)
