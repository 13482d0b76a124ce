"""Where dlt loads to: the same for both of its ways."""

from __future__ import annotations

import os
from typing import Any

import dlt  # type: ignore[import-not-found,unused-ignore]


def pipeline() -> Any:
    """A pipeline into the schema ``peer`` of DATABASE_URL, with its state in PEER_FOLDER."""
    # dlt insists on a host and a password; the host in the query, a socket's folder, wins.
    url = os.environ["DATABASE_URL"].replace("postgres@/", "postgres:unused@localhost:5432/", 1)
    return dlt.pipeline(
        "upload_tokens",
        pipelines_dir=os.environ["PEER_FOLDER"],
        destination=dlt.destinations.postgres(url),
        dataset_name="peer",
    )
