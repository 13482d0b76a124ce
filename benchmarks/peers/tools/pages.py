"""The walk of every peer: page after page by offset, as documentation has it for such lists."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from itertools import count
from typing import Any

import requests  # type: ignore[import-not-found,import-untyped,unused-ignore]

PAGE_SIZE = 500
TIMEOUT_SECONDS = 120


def pages(loads: Callable[[bytes], Any] = json.loads) -> Iterator[list[dict[str, Any]]]:
    """The rows of each page, in createdAt order, until a page is not full."""
    service = os.environ["KALTURA_SERVICE_URL"] + "/api_v3/service"
    with requests.Session() as session:

        def call(action: str, **parameters: Any) -> Any:
            reply = session.post(
                f"{service}/{action}",
                json={"format": 1, "nocache": 1, **parameters},
                timeout=TIMEOUT_SECONDS,
            )
            reply.raise_for_status()
            return loads(reply.content)

        ks = call(
            "session/action/start",
            secret=os.environ["KALTURA_ADMIN_SECRET"],
            partnerId=int(os.environ["KALTURA_PARTNER_ID"]),
            type=2,
        )
        for index in count(1):
            rows: list[dict[str, Any]] = call(
                "uploadtoken/action/list",
                ks=ks,
                filter={"orderBy": "+createdAt"},
                pager={"pageSize": PAGE_SIZE, "pageIndex": index},
            )["objects"]
            if rows:
                yield rows
            if len(rows) < PAGE_SIZE:
                return
