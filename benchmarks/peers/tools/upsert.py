"""What many write for themselves: requests, SQLAlchemy, and an upsert of each page."""

from __future__ import annotations

import os
from datetime import UTC, datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert

from benchmarks.peers.tools.pages import pages

TOKENS = sa.Table(
    "upload_token",
    sa.MetaData(schema="peer"),
    sa.Column("id", sa.Text, primary_key=True),
    sa.Column("user_id", sa.Text),
    sa.Column("status", sa.SmallInteger),
    sa.Column("file_name", sa.Text),
    sa.Column("file_size", sa.BigInteger),
    sa.Column("uploaded_file_size", sa.BigInteger),
    sa.Column("created_at", sa.DateTime(timezone=True)),
    sa.Column("updated_at", sa.DateTime(timezone=True)),
    sa.Column("attached_object_type", sa.Text),
    sa.Column("attached_object_id", sa.Text),
    sa.Column("auto_finalize", sa.Boolean),
    sa.Column("upload_url", sa.Text),
)


def _row(token: dict[str, Any]) -> dict[str, Any]:
    def whole(name: str) -> int | None:
        return None if token.get(name) is None else int(token[name])

    def time(name: str) -> datetime | None:
        second = whole(name)
        return None if second is None else datetime.fromtimestamp(second, UTC)

    final = token.get("autoFinalize")
    return {
        "id": token["id"],
        "user_id": token.get("userId"),
        "status": whole("status"),
        "file_name": token.get("fileName"),
        "file_size": whole("fileSize"),
        "uploaded_file_size": whole("uploadedFileSize"),
        "created_at": time("createdAt"),
        "updated_at": time("updatedAt"),
        "attached_object_type": token.get("attachedObjectType"),
        "attached_object_id": token.get("attachedObjectId"),
        "auto_finalize": None if final is None else bool(final),
        "upload_url": token.get("uploadUrl"),
    }


def main() -> None:
    engine = sa.create_engine(
        os.environ["DATABASE_URL"].replace("postgresql:", "postgresql+psycopg:")
    )
    new = insert(TOKENS)
    statement = new.on_conflict_do_update(
        index_elements=["id"],
        set_={
            column.name: new.excluded[column.name] for column in TOKENS.c if not column.primary_key
        },
    )
    with engine.begin() as connection:
        connection.execute(sa.schema.CreateSchema("peer", if_not_exists=True))
        TOKENS.metadata.create_all(connection)
        for page in pages():
            connection.execute(statement, [_row(token) for token in page])


if __name__ == "__main__":
    main()
