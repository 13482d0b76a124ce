"""Writes ``sql/dbt/models/sources.yml`` from the catalog of a migrated schema.

Descriptions are the COMMENTs; what dbt then tests follows from the constraints (not_null, unique,
relationships, accepted values of a CHECK), and for views from the few lines below.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import psycopg

from etl.warehouse.access.privileges import READABLE_COLUMNS, RIGHTS

HEAD: Final = """\
# The warehouse of kaltura-etl as a source of dbt: a part of the package (docs/howto/dbt.md), and it
# also works alone, copied into the models of another project.
#
# The schema is kaltura; for another: dbt ... --vars 'kaltura_schema: name'.  dbt connects as a role
# with the rights of an analyst (kaltura-etl grant).  Written by tests/dbt from the COMMENTs and
# constraints of the schema: change those, not this file.
version: 2

sources:
  - name: kaltura
    description: Kaltura's upload tokens and their history; what is in it and how complete it is.
    schema: "{{ var('kaltura_schema', 'kaltura') }}"
    tables:
"""

VIEW_KEYS: Final = {
    "stuck_upload": ("partner_id", "token_id"),
    "sync_freshness": ("partner_id",),
    "sync_night": ("partner_id", "day"),
    "upload_bytes_daily": ("partner_id", "day"),
    "upload_failure": ("partner_id", "token_id"),
    "upload_mart": ("partner_id", "token_id"),
    "upload_outcome": ("partner_id", "token_id"),
    "upload_outcome_daily": ("partner_id", "day", "size_bucket"),
    "upload_status_duration": ("partner_id", "token_id", "status"),
    "upload_status_now": ("partner_id", "token_id"),
    "upload_status_passed": ("partner_id", "token_id", "status"),
    "upload_status_stay": ("partner_id", "token_id", "status", "version"),
    "upload_token_daily_status": ("partner_id", "day", "status"),
    "upload_token_earlier_stay": ("partner_id", "token_id"),
    "upload_token_history": ("partner_id", "token_id", "version"),
    "upload_token_horizon": ("partner_id",),
    "upload_token_snapshot_dbt": ("dbt_scd_id",),
    "upload_token_status_history": ("partner_id", "token_id", "version"),
    "upload_token_status_moment": ("partner_id", "token_id", "version"),
    "upload_token_status_count": ("partner_id", "run_id", "quarter_hour", "status"),
    "upload_bytes_arrival": ("partner_id", "run_id", "is_long", "utc_day"),
    "upload_user_rename": ("partner_id", "user_id_before", "user_id_after"),
    "upload_user_summary": ("partner_id", "user_id"),
}
NULL_IN_KEY: Final = {"upload_status_stay": "version", "upload_user_summary": "user_id"}
CHANGE_KINDS: Final = ("first_seen", "changed", "absent", "relisted")
OPEN_NAMES: Final = ("PENDING", "PARTIAL_UPLOAD", "FULL_UPLOAD")
VIEW_VALUES: Final = {
    ("stuck_upload", "status"): OPEN_NAMES,
    ("sync_freshness", "last_run_status"): (
        *("running", "succeeded", "refused", "failed", "abandoned"),
    ),
    ("sync_night", "outcome"): ("complete", "partial", "failed", "no_run"),
    **dict.fromkeys(
        (("upload_outcome", "outcome"), ("upload_mart", "outcome")),
        ("succeeded", "failed", "deleted", "abandoned", "still_open"),
    ),
    ("upload_failure", "status"): ("TIMED_OUT", "ERROR"),
    ("upload_token_history", "change_kind"): CHANGE_KINDS,
    ("upload_token_snapshot_dbt", "dbt_is_deleted"): ("True", "False"),
    ("upload_token_status_history", "change_kind"): CHANGE_KINDS,
}
RUN: Final = ("sync_run", "run_id")
RELATIONSHIPS: Final = {
    ("upload_token", "run_id"): RUN,
    ("upload_token_superseded", "run_id"): RUN,
    ("upload_token_superseded", "superseded_by_run_id"): RUN,
    ("unobserved_token", "token_id"): ("upload_token", "token_id"),
    ("upload_token_status_history", "run_id"): RUN,
    ("upload_failure", "token_id"): ("upload_token", "token_id"),
    ("upload_mart", "run_id"): RUN,
    ("upload_status_duration", "token_id"): ("upload_token", "token_id"),
    ("upload_status_stay", "token_id"): ("upload_token", "token_id"),
    ("upload_user_rename", "run_id"): RUN,
}
"""What is true without a foreign key."""
WARNINGS: Final = {("upload_token", "status"): ("upload_token_status", "code")}
"""Not always true: Kaltura may send a code that it does not document."""
FRESHNESS: Final[Mapping[str, Mapping[str, Any]]] = {
    # A night that was missed is a warning, two are an error.
    "sync_run": {"loaded_at_field": "published_at", "warn": 26, "error": 50},
    # Of several accounts the stalest decides; one without a complete run is as stale as can be.
    "sync_freshness": {
        "loaded_at_query": "select min(coalesce(last_complete_at, 'epoch')) from {{ this }}",
        "warn": 26,
        "error": 50,
    },
}


@dataclass
class Relation:
    """A table or view, with what the catalog says of it."""

    name: str
    comment: str
    columns: dict[str, str] = field(default_factory=dict)
    """Comments by column, in their order."""
    not_null: set[str] = field(default_factory=set)
    keys: list[tuple[str, ...]] = field(default_factory=list)
    references: dict[str, tuple[str, str]] = field(default_factory=dict)
    values: dict[str, tuple[str, ...]] = field(default_factory=dict)


def published(connection: psycopg.Connection[Any], schema: str = "kaltura") -> list[Relation]:
    """The tables and views that an analyst reads, by name."""
    found = {
        name: Relation(name, comment or "")
        for name, kind, comment in connection.execute(
            "select relname, relkind, obj_description(oid, 'pg_class') from pg_class "
            "where relnamespace = %s::regnamespace and relkind in ('r', 'v') order by relname",
            [schema],
        )
        if kind in (b"v", "v") or name in RIGHTS["analyst"].tables or name in READABLE_COLUMNS
    }
    for name, column, comment, not_null in connection.execute(
        "select relname, attname, col_description(attrelid, attnum), attnotnull "
        "from pg_attribute inner join pg_class on pg_class.oid = attrelid "
        "where relnamespace = %s::regnamespace and attnum > 0 and not attisdropped "
        "order by relname, attnum",
        [schema],
    ):
        readable = READABLE_COLUMNS.get(name)
        if name in found and (readable is None or column in readable):
            found[name].columns[column] = comment or ""
            if not_null:
                found[name].not_null.add(column)
    for name, kind, columns, other, other_columns, definition in connection.execute(
        "select table_.relname, contype, "
        "array(select attname from unnest(conkey) with ordinality as part (number, place) "
        "inner join pg_attribute on attrelid = conrelid and attnum = number order by place), "
        "referred.relname, "
        "array(select attname from unnest(confkey) as number "
        "inner join pg_attribute on attrelid = confrelid and attnum = number), "
        "pg_get_constraintdef(pg_constraint.oid) "
        "from pg_constraint inner join pg_class as table_ on table_.oid = conrelid "
        "left join pg_class as referred on referred.oid = confrelid "
        "where connamespace = %s::regnamespace order by conname",
        [schema],
    ):
        if name not in found:
            continue
        constraint = kind.decode() if isinstance(kind, bytes) else kind
        if constraint in "pu":
            found[name].keys.append(tuple(columns))
        elif constraint == "f":
            found[name].references[columns[0]] = (other, other_columns[0])
        elif constraint == "c" and "= ANY (ARRAY[" in definition and len(columns) == 1:
            values = tuple(re.findall(r"'([^']*)'::text", definition))
            found[name].values[columns[0]] = values
    return [_with_what_is_known(relation) for relation in found.values()]


def _with_what_is_known(relation: Relation) -> Relation:
    if relation.name in VIEW_KEYS:
        relation.keys.append(VIEW_KEYS[relation.name])
        relation.not_null |= {*VIEW_KEYS[relation.name]} - {NULL_IN_KEY.get(relation.name)}
    for (name, column), values in VIEW_VALUES.items():
        if name == relation.name:
            relation.values[column] = values
    for (name, column), referred in RELATIONSHIPS.items():
        if name == relation.name:
            relation.references[column] = referred
    return relation


def sources_yml(relations: Sequence[Relation]) -> str:
    """The whole file."""
    return HEAD + "".join(f"{line}\n" for each in relations for line in _table(each))


def _table(relation: Relation) -> Iterator[str]:
    yield f"      - name: {relation.name}"
    yield f"        description: {_text(relation.comment)}"
    yield from _freshness(relation.name)
    composite = [key for key in relation.keys if len(key) > 1]
    if composite:
        yield "        data_tests:"
        for key in composite:
            yield "          - unique:"
            yield "              arguments:"
            yield f"                column_name: {_text(_joined(key))}"
    yield "        columns:"
    for column, comment in relation.columns.items():
        yield f"          - name: {column}"
        yield f"            description: {_text(comment)}"
        tests = list(_column_tests(relation, column))
        if tests:
            yield "            data_tests:"
            yield from (f"              {line}" for line in tests)


def _freshness(name: str) -> Iterator[str]:
    if name in FRESHNESS:
        known = FRESHNESS[name]
        yield "        config:"
        for key in ("loaded_at_field", "loaded_at_query"):
            if key in known:
                yield f"          {key}: {_text(known[key])}"
        yield "          freshness:"
        for level in ("warn", "error"):
            yield f"            {level}_after: {{count: {known[level]}, period: hour}}"


def _column_tests(relation: Relation, column: str) -> Iterator[str]:
    if column in relation.not_null:
        yield "- not_null"
    if (column,) in relation.keys:
        yield "- unique"
    if column in relation.values:
        yield "- accepted_values:"
        yield "    arguments:"
        yield f"      values: {json.dumps(relation.values[column])}"
    warned = WARNINGS.get((relation.name, column))
    referred = relation.references.get(column) or warned
    if referred is not None:
        table, field_ = referred
        yield "- relationships:"
        yield "    arguments:"
        yield f"      to: source('kaltura', '{table}')"
        yield f"      field: {field_}"
        if warned:
            yield "    config:"
            yield "      severity: warn"


def _joined(key: tuple[str, ...]) -> str:
    # concat_ws leaves NULLs out; only the last column of a key may be one.
    return f"concat_ws('|', {', '.join(key)})"


def _text(words: str) -> str:
    """YAML reads JSON's strings; plain ones stay plain."""
    return words if re.fullmatch(r"[a-z_]+", words) else json.dumps(words, ensure_ascii=False)
