"""Every row of the recorded account."""

from __future__ import annotations

import gzip
import json
from datetime import UTC, datetime

import msgspec

from etl.tokens.decode import decode_rows
from tests.support.job import ACCOUNT_102
from tests.support.model import Row

NOW = datetime(2026, 11, 23, tzinfo=UTC)


class Reply(msgspec.Struct):
    objects: list[msgspec.Raw]


def moment(second: int | None) -> datetime | None:
    return None if second is None else datetime.fromtimestamp(second, UTC)


def size(digits: str | None) -> int | None:
    return None if digits is None else int(digits)


def stored(name: str | None) -> str | None:
    return None if name is None else name.replace("\0", "\ufffd")


def test_recorded_account_loads_value_by_value() -> None:
    body = gzip.decompress(ACCOUNT_102.read_bytes())
    served: list[Row] = json.loads(body)["objects"]
    raws = msgspec.json.decode(body, type=Reply).objects

    found = decode_rows(raws, partner_id=102, now=NOW)

    assert [(bad.reason, bad.created_second) for bad in found.rejected] == [
        ("created_at_zero_date", -62169966238)
    ]
    assert found.positions == [row["createdAt"] for row in served]
    assert len(found.tokens) == len(served) - 1
    loadable = [row for row in served if row["createdAt"] > 0]
    for token, row in zip(found.tokens, loadable, strict=True):
        assert token._asdict() == {
            "token_id": row["id"],
            "user_id": row.get("userId"),
            "status": row["status"],
            "file_name": stored(row.get("fileName")),
            "file_size_bytes": size(row.get("fileSize")),
            "uploaded_size_bytes": size(row.get("uploadedFileSize")),
            "created_at": moment(row["createdAt"]),
            "updated_at": moment(row.get("updatedAt")),
            "attached_object_type": row.get("attachedObjectType"),
            "attached_object_id": row.get("attachedObjectId"),
            "auto_finalize": row["autoFinalize"],
            "upload_url": row.get("uploadUrl"),
            "extra": None,
        }
    assert found.coercions["file_name_nul"] == 1
    assert found.coercions["file_name_unreadable"] == 1
