"""A model of the truth: what a warehouse must hold after each night, in plain Python.

``Model`` is a second implementation of what a version is (docs/reference/schema.md).  It knows
nothing of pages, staging or SQL: it gets what the service lists at the end of each night, and says
what the warehouse must then hold, column by column.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, TypeVar

Row = dict[str, Any]
"""A row of a query, or a JSON object of the service: values by name."""
Key = TypeVar("Key", str, tuple[str, int])
REPLACEMENT = "\ufffd"
TEXTS = ("user_id", "file_name", "attached_object_type", "attached_object_id", "upload_url")
VALUES = (
    *("user_id", "status", "file_name", "file_size_bytes", "uploaded_size_bytes", "created_at"),
    *("updated_at", "attached_object_type", "attached_object_id", "auto_finalize", "upload_url"),
    "extra",
)
"""The columns of a token that the service tells, but its id."""
VOLATILE = ("auto_finalize", "upload_url")
KEPT = ("user_id", *VOLATILE)
VERSION = ("is_listed", "version", "change_kind", "changed_columns")
KEYS_WITH_A_COLUMN = {
    "userId": "user_id",
    "status": "status",
    "fileName": "file_name",
    "fileSize": "file_size_bytes",
    "uploadedFileSize": "uploaded_size_bytes",
    "createdAt": "created_at",
    "updatedAt": "updated_at",
    "attachedObjectType": "attached_object_type",
    "attachedObjectId": "attached_object_id",
    "autoFinalize": "auto_finalize",
    "uploadUrl": "upload_url",
}
NOT_EXTRA = {*KEYS_WITH_A_COLUMN, "id", "partnerId", "objectType"}


def columns_of(fields: Row) -> Row:
    """What a token's JSON object must become, by docs/reference/records.md alone."""
    row: Row = dict.fromkeys(VALUES)
    for key, column in KEYS_WITH_A_COLUMN.items():
        value = fields.get(key)
        if value is None:
            continue
        if column in TEXTS:
            row[column] = "".join(
                REPLACEMENT if char == "\0" or "\ud800" <= char <= "\udfff" else char
                for char in str(value)
            )
        elif column.endswith("_bytes"):
            row[column] = int(value)
        elif column.endswith("_at"):
            row[column] = datetime.fromtimestamp(value, UTC)
        else:
            row[column] = value
    extra = {key: value for key, value in fields.items() if key not in NOT_EXTRA}
    row["extra"] = extra or None
    return row


@dataclass
class Model:
    """What the warehouse must hold after each night."""

    versions: dict[str, list[Row]] = field(default_factory=dict)
    """For each token its versions: the values, and ``VERSION`` (changed_columns sorted)."""

    def night(self, listed: Iterable[Row]) -> Counter[str]:
        """The service lists these at the end of a quiet night; returns what was published."""
        kinds: Counter[str] = Counter()
        here = {fields["id"]: columns_of(fields) for fields in listed}
        for token_id, row in here.items():
            versions = self.versions.setdefault(token_id, [])
            kind = self._take(versions, row)
            kinds[kind] += 1
        for token_id, versions in self.versions.items():
            if token_id not in here and versions[-1]["is_listed"]:
                versions.append(
                    versions[-1]
                    | {
                        "is_listed": False,
                        "version": len(versions) + 1,
                        "change_kind": "absent",
                        "changed_columns": ["is_listed"],
                    }
                )
                kinds["absent"] += 1
        return kinds

    @staticmethod
    def _take(versions: list[Row], row: Row) -> str:
        if not versions:
            first = {"is_listed": True, "version": 1, "change_kind": "first_seen"}
            versions.append(row | first | {"changed_columns": None})
            return "first_seen"
        known = versions[-1]
        row = row | {name: known[name] for name in KEPT if row[name] is None}
        differing = [name for name in VALUES if row[name] != known[name]]
        reasons = [name for name in differing if name not in VOLATILE]
        if known["is_listed"] and not reasons:
            return "unchanged"
        kind = "changed" if known["is_listed"] else "relisted"
        if kind == "relisted":
            reasons.append("is_listed")
        versions.append(
            row
            | {
                "is_listed": True,
                "version": len(versions) + 1,
                "change_kind": kind,
                "changed_columns": sorted(reasons),
            }
        )
        return kind

    def current(self) -> dict[str, Row]:
        """The latest version of each token."""
        return {token_id: versions[-1] for token_id, versions in self.versions.items()}

    def superseded(self) -> dict[tuple[str, int], Row]:
        """The earlier versions by id and number."""
        return {
            (token_id, version["version"]): version
            for token_id, versions in self.versions.items()
            for version in versions[:-1]
        }


def assert_same(found: Mapping[Key, Row], expected: Mapping[Key, Row]) -> None:
    """Two dicts of rows are equal; a few of the differences are shown if they are not."""
    if found == expected:
        return
    lost, extra = expected.keys() - found.keys(), found.keys() - expected.keys()
    differing = {
        key: {
            name: (found[key].get(name), value)
            for name, value in expected[key].items()
            if found[key].get(name) != value
        }
        for key in expected.keys() & found.keys()
        if found[key] != expected[key]
    }
    raise AssertionError(
        f"lost {len(lost)}: {sorted(lost)[:3]}; not expected {len(extra)}: {sorted(extra)[:3]}; "
        f"differing (found, expected) {len(differing)}: {dict(list(differing.items())[:3])}"
    )


def as_model(row: Row) -> Row:
    values = {name: row[name] for name in (*VALUES, *VERSION)}
    if values["changed_columns"] is not None:
        values["changed_columns"] = sorted(values["changed_columns"])
    return values
