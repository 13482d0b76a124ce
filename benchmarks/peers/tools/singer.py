"""A Singer tap piped into MeltanoLabs target-postgres, which upserts by COPY."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

WHOLE = ("partnerId", "createdAt", "updatedAt")
TEXT = (
    *("userId", "fileName", "uploadUrl", "attachedObjectType", "attachedObjectId"),
    *("fileSize", "uploadedFileSize", "objectType", "status"),
)
SCHEMA = {
    "type": "object",
    "properties": {
        "id": {"type": "string", "maxLength": 255},
        **{name: {"type": ["integer", "null"]} for name in WHOLE},
        **{name: {"type": ["string", "null"]} for name in TEXT},
        "autoFinalize": {"type": ["boolean", "null"]},
    },
}


def tap() -> None:
    """Write the tokens as Singer messages to standard output."""
    from benchmarks.peers.tools.pages import pages

    write = sys.stdout.write
    head = {"type": "SCHEMA", "stream": "upload_token", "key_properties": ["id"]}
    write(json.dumps({**head, "schema": SCHEMA}) + "\n")
    for page in pages():
        for row in page:
            record: dict[str, Any] = {"id": row["id"]}
            for name in TEXT:
                value = row.get(name)
                record[name] = value if value is None else str(value)
            for name in WHOLE:
                value = row.get(name)
                record[name] = value if value is None else int(value)
            final = row.get("autoFinalize")
            record["autoFinalize"] = final if final is None else bool(final)
            message = {"type": "RECORD", "stream": "upload_token", "record": record}
            write(json.dumps(message) + "\n")
    write(json.dumps({"type": "STATE", "value": {"done": True}}) + "\n")


def main() -> None:
    """Run tap and target, as ``tap | target-postgres`` would."""
    config = Path(os.environ["PEER_FOLDER"]) / "target.json"
    settings = {
        "sqlalchemy_url": os.environ["DATABASE_URL"].replace("postgresql:", "postgresql+psycopg:"),
        "default_target_schema": "peer",
        "load_method": "upsert",
        "use_copy": True,
    }
    config.write_text(json.dumps(settings), encoding="utf-8")
    target = Path(sys.executable).with_name("target-postgres")
    with (
        subprocess.Popen(
            [sys.executable, "-m", __spec__.name, "tap"], stdout=subprocess.PIPE
        ) as one,
        subprocess.Popen(
            [str(target), "--config", str(config)], stdin=one.stdout, stdout=subprocess.DEVNULL
        ) as other,
    ):
        assert one.stdout is not None  # noqa: S101
        one.stdout.close()
    if one.returncode or other.returncode:
        sys.exit(f"the tap ended with {one.returncode}, the target with {other.returncode}")


if __name__ == "__main__":
    if sys.argv[1:] == ["tap"]:
        tap()
    else:
        main()
