"""The first schema: tables and statuses.

The tables are written out here as they were then; ``etl/warehouse/schema`` goes on changing.
"""

from __future__ import annotations

from typing import Any, Final

from alembic import context, op
from alembic.operations.ops import CreateIndexOp, CreateTableOp
from sqlalchemy import (
    ARRAY,
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    DateTime,
    ForeignKeyConstraint,
    Identity,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    PrimaryKeyConstraint,
    SmallInteger,
    Table,
    Text,
    UniqueConstraint,
    func,
    text,
)
from sqlalchemy.dialects.postgresql import INT8MULTIRANGE, INT8RANGE, JSONB
from sqlalchemy.types import TypeEngine

from etl.errors import ConfigurationError
from etl.warehouse.schema.migration import enter_schema

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

STATUSES = [
    (0, "PENDING", "open", "Handed out; nothing uploaded yet."),
    (1, "PARTIAL_UPLOAD", "open", "Part of the file is uploaded."),
    (2, "FULL_UPLOAD", "open", "The whole file is uploaded, and not used yet."),
    (3, "CLOSED", "succeeded", "The file was used: the upload is over."),
    (4, "TIMED_OUT", "failed", "Given up by the service after waiting."),
    (5, "DELETED", "failed", "Deleted before it was used."),
    (6, "ERROR", "failed", "Failed on the server; Kaltura does not document this one."),
]

NAMING_CONVENTION: Final = {
    "pk": "pk_%(table_name)s",
    "uq": "uq_%(table_name)s_%(column_0_N_name)s",
    "ck": "ck_%(table_name)s_%(constraint_name)s",
    "fk": "fk_%(table_name)s_%(column_0_N_name)s",
    "ix": "ix_%(table_name)s_%(column_0_N_name)s",
}

CHANGE_KINDS: Final = ("first_seen", "changed", "absent", "relisted")
RUN_MODES: Final = ("full", "incremental", "backfill", "replay")
RUN_STATUSES: Final = ("running", "succeeded", "failed", "abandoned")
STAGED_KINDS: Final = ("present", "missing", "absent")

RUN_COUNTS: Final = {
    "requests": "Requests sent to the service, retries included.",
    "retries": "Requests that were sent again after a failure.",
    "pages": "Replies accepted: rows of sync_page.",
    "rows_read": "Rows on those pages; a token read on two pages counts twice.",
    "tokens_read": "Distinct tokens read: inserted + changed + relisted + unchanged + rejected.",
    "inserted": "Tokens seen for the first time: versions of kind first_seen.",
    "changed": "Versions of kind changed.",
    "unchanged": "Tokens read and equal to the version known before: nothing was written.",
    "rejected": "Rows not loaded; they are in rejected_row.",
    "absent": "Tokens found no longer listed: versions of kind absent.",
    "relisted": "Tokens listed again after an absence: versions of kind relisted.",
    "unreadable": "Positions of the list that the service could not serve; see holes.",
    "listed_before": "Tokens of the account with is_listed, just before publishing.",
    "staged": "Rows that the walk has appended to upload_token_staging.",
}


def upgrade() -> None:
    enter_schema()
    metadata = MetaData(naming_convention=NAMING_CONVENTION)
    sync_run = _sync_run(metadata)
    _sync_page(metadata, sync_run)
    _rejected_row(metadata, sync_run)
    _upload_token(metadata)
    _upload_token_superseded(metadata)
    _upload_token_staging(metadata)
    status = _upload_token_status(metadata)
    for table in metadata.sorted_tables:
        op.invoke(CreateTableOp.from_table(table))
        for index in sorted(table.indexes, key=lambda index: str(index.name)):
            op.invoke(CreateIndexOp.from_index(index))
    names = ("code", "name", "outcome_group", "description")
    op.bulk_insert(status, [dict(zip(names, row, strict=True)) for row in STATUSES])
    op.execute("comment on table alembic_version is 'Revision of this schema.'")
    op.execute("comment on column alembic_version.version_num is 'Number of the revision.'")


def downgrade() -> None:
    enter_schema()
    if context.get_x_argument(as_dictionary=True).get("force") != "yes":
        raise ConfigurationError(
            "Revision 0001 cannot be undone without losing the whole history: "
            "pass -x force=yes to do it."
        )
    op.execute("drop view if exists upload_token_history")
    for name in (
        "rejected_row",
        "sync_page",
        "sync_run",
        "upload_token",
        "upload_token_superseded",
        "upload_token_staging",
        "upload_token_status",
    ):
        op.drop_table(name)


def _column(
    name: str, kind: TypeEngine[Any], comment: str, *, null: bool = False, default: str = ""
) -> Column[Any]:
    server_default = text(default) if default else None
    return Column(name, kind, nullable=null, server_default=server_default, comment=comment)


def _bytewise() -> Text:
    # Ids are opaque: bytewise order is the same on every server, and sorts twice as fast.
    return Text(collation="C")


def _time() -> DateTime:
    return DateTime(timezone=True)


def _one_of(column: str, values: tuple[str, ...]) -> CheckConstraint:
    listed = ", ".join(f"'{value}'" for value in values)
    return CheckConstraint(f"{column} in ({listed})", name=column)


def _token_columns() -> list[Column[Any]]:
    return [
        _column("token_id", _bytewise(), "Kaltura's id of the token, bytewise."),
        _column("user_id", Text(), "Kaltura user; once known, kept when sent empty.", null=True),
        _column("status", SmallInteger(), "Code of upload_token_status, or unknown.", null=True),
        _column("file_name", Text(), "Name of the file; NULL also if not valid UTF-8.", null=True),
        _column("file_size_bytes", BigInteger(), "Size announced, in bytes.", null=True),
        _column("uploaded_size_bytes", BigInteger(), "Bytes received so far.", null=True),
        _column("created_at", _time(), "When Kaltura made the token; whole seconds."),
        _column("updated_at", _time(), "When Kaltura last changed the token.", null=True),
        _column("attached_object_type", Text(), "Kind of object it was used for.", null=True),
        _column("attached_object_id", Text(), "Id of the object it was used for.", null=True),
        _column(
            "auto_finalize",
            Boolean(),
            "Close when complete.  Volatile: refreshed with a version, never a reason for one.",
            null=True,
        ),
        _column(
            "upload_url",
            Text(),
            "Where to upload.  Volatile: refreshed with a version, never a reason for one.",
            null=True,
        ),
        _column("extra", JSONB(), "Keys of the reply that have no column here.", null=True),
    ]


def _version_columns() -> list[Column[Any]]:
    return [
        _column("partner_id", Integer(), "Kaltura account (partner)."),
        *_token_columns(),
        _column("is_listed", Boolean(), "Whether the service listed the token."),
        _column("version", Integer(), "1, 2, ... without gaps, for each token."),
        _column("change_kind", Text(), "Why: first_seen, changed, absent or relisted."),
        _column(
            "changed_columns",
            ARRAY(Text()),
            "Columns that differ from the version before.",
            null=True,
        ),
        _column("valid_from", _time(), "Publication stamp: published_at of the run run_id."),
        _column("observed_at", _time(), "When the reply that showed this version arrived."),
        _column(
            "last_listed_at",
            _time(),
            "When absent: the token was listed then, and it went after that.",
            null=True,
        ),
        _column(
            "absence_confirmed_at",
            _time(),
            "When absent: the token was not listed then, and it went before that.",
            null=True,
        ),
        _column("run_id", BigInteger(), "The run that published this version."),
    ]


def _version_checks() -> list[CheckConstraint]:
    checks = {
        "created_at": "created_at >= '1990-01-01 00:00:00+00' "
        "and created_at < '2100-01-01 00:00:00+00'",
        "updated_at": "updated_at >= '1990-01-01 00:00:00+00' "
        "and updated_at < '2100-01-01 00:00:00+00'",
        "version": "version >= 1 and (version = 1) = (change_kind = 'first_seen')",
        "is_listed": "is_listed = (change_kind <> 'absent')",
        "absence": "(absence_confirmed_at is not null) = (not is_listed) "
        "and (is_listed or last_listed_at is not null)",
        "changed_columns": "change_kind <> 'changed' "
        "or coalesce(cardinality(changed_columns), 0) > 0",
        "valid_from": "isfinite(valid_from) and isfinite(observed_at)",
    }
    return [
        _one_of("change_kind", CHANGE_KINDS),
        *(CheckConstraint(condition, name=name) for name, condition in checks.items()),
    ]


def _upload_token(metadata: MetaData) -> Table:
    table = Table(
        "upload_token",
        metadata,
        *_version_columns(),
        PrimaryKeyConstraint("partner_id", "token_id"),
        *_version_checks(),
        comment="Upload tokens: one row for each ever seen, its latest version.",
    )
    # The first finds what a span ought to show; the second what an incremental run must ask for.
    Index(
        "ix_upload_token_listed",
        table.c.partner_id,
        table.c.created_at,
        postgresql_where=text("is_listed"),
    )
    Index(
        "ix_upload_token_open",
        table.c.partner_id,
        table.c.status,
        postgresql_where=text("status in (0, 1, 2) and is_listed"),
    )
    return table


def _upload_token_superseded(metadata: MetaData) -> Table:
    return Table(
        "upload_token_superseded",
        metadata,
        *_version_columns(),
        _column("valid_to", _time(), "When the next version was published; not included."),
        _column("superseded_by_run_id", BigInteger(), "The run that published the next version."),
        PrimaryKeyConstraint("partner_id", "token_id", "version"),
        *_version_checks(),
        CheckConstraint("valid_to > valid_from and isfinite(valid_to)", name="valid_to"),
        comment="Earlier versions of upload tokens; append-only.",
    )


def _upload_token_staging(metadata: MetaData) -> Table:
    return Table(
        "upload_token_staging",
        metadata,
        _column("walk_id", BigInteger(), "The walk that observed it: sync_run.walk_id."),
        _column("partner_id", Integer(), "Kaltura account (partner)."),
        *_token_columns(),
        _column("kind", Text(), "present, missing (not on its page) or absent (confirmed)."),
        _column("from_lookup", Boolean(), "Whether the token was asked for by its id."),
        _column("observed_at", _time(), "When the reply arrived."),
        _one_of("kind", STAGED_KINDS),
        prefixes=["UNLOGGED"],
        comment="Observations of open walks that differ from upload_token.  Not for analysts.",
    )


def _upload_token_status(metadata: MetaData) -> Table:
    return Table(
        "upload_token_status",
        metadata,
        Column(
            "code",
            SmallInteger(),
            nullable=False,
            autoincrement=False,
            comment="Kaltura's code, as in upload_token.status.",
        ),
        _column("name", Text(), "Kaltura's name of the code."),
        _column("outcome_group", Text(), "open, succeeded or failed."),
        _column("description", Text(), "What the status means."),
        PrimaryKeyConstraint("code"),
        UniqueConstraint("name"),
        _one_of("outcome_group", ("open", "succeeded", "failed")),
        comment="The statuses that an upload token can have.",
    )


def _sync_run(metadata: MetaData) -> Table:
    table = Table(
        "sync_run",
        metadata,
        # By default, not always: a replay keeps the run ids of the runs that it replays.
        Column("run_id", BigInteger(), Identity(), nullable=False, comment="Number of the run."),
        _column("partner_id", Integer(), "Kaltura account (partner)."),
        _column(
            "walk_id",
            BigInteger(),
            "run_id of the first run of the walk; a resumed run inherits it.",
            null=True,
        ),
        _column("mode", Text(), "full, incremental, backfill or replay."),
        _column("range_from", _time(), "Backfill: first createdAt wanted.", null=True),
        _column("range_to", _time(), "Backfill: last createdAt wanted, included.", null=True),
        _column("status", Text(), "running, succeeded, failed or abandoned."),
        _column("started_at", _time(), "When the run took the lease.", default="clock_timestamp()"),
        _column("heartbeat_at", _time(), "Last sign of life.", default="clock_timestamp()"),
        _column("finished_at", _time(), "When the run ended; NULL while it runs.", null=True),
        _column("published_at", _time(), "Stamp of all that it published.", null=True),
        _column("resumed_from", BigInteger(), "The run whose walk it went on with.", null=True),
        _column("host", Text(), "Machine that it ran on.", null=True),
        _column("pid", Integer(), "Its process there.", null=True),
        _column("program_version", Text(), "Version of the program.", null=True),
        *(_column(name, BigInteger(), says, default="0") for name, says in RUN_COUNTS.items()),
        _column("total_count_first", BigInteger(), "First totalCount told: a hint.", null=True),
        _column("total_count_last", BigInteger(), "Last totalCount told: a hint.", null=True),
        _column(
            "coverage",
            INT8MULTIRANGE(),
            "Seconds of createdAt that were read completely: the certificate.",
            default="'{}'",
        ),
        _column(
            "holes",
            JSONB(),
            "What could not be read: objects with span (int8range of seconds), reason, tokens.",
            default="'[]'",
        ),
        _column(
            "overrides",
            JSONB(),
            "Checks that the operator overrode, such as accept_absences.",
            default="'{}'",
        ),
        _column("error_kind", Text(), "Kind of the error that ended it.", null=True),
        _column("error_message", Text(), "That error, redacted.", null=True),
        PrimaryKeyConstraint("run_id"),
        _one_of("mode", RUN_MODES),
        _one_of("status", RUN_STATUSES),
        ForeignKeyConstraint(["resumed_from"], ["sync_run.run_id"]),
        CheckConstraint(
            "jsonb_typeof(holes) = 'array' and jsonb_typeof(overrides) = 'object'", name="json"
        ),
        comment="The ledger: one row a run.",
    )
    # The lease: at most one live run an account.
    Index(
        "uq_sync_run_running",
        table.c.partner_id,
        unique=True,
        postgresql_where=text("status = 'running'"),
    )
    Index("ix_sync_run_partner", table.c.partner_id, table.c.run_id)
    return table


def _sync_page(metadata: MetaData, sync_run: Table) -> Table:
    return Table(
        "sync_page",
        metadata,
        _column("run_id", BigInteger(), "The run that read the page."),
        Column(
            "seq",
            BigInteger(),
            nullable=False,
            autoincrement=False,
            comment="Number of the page in the run, in the order of acceptance.",
        ),
        _column("page_index", Integer(), "pageIndex that was asked for, from 1."),
        _column("page_size", Integer(), "pageSize that was asked for."),
        _column("filter", Text(), "Filter that was sent, as canonical JSON."),
        _column("requested_at", _time(), "When the request was sent."),
        _column("received_at", _time(), "When the reply had arrived."),
        _column("rows", Integer(), "Rows on the page."),
        _column("total_count", BigInteger(), "totalCount that came with it: a hint.", null=True),
        _column("first_created_at", _time(), "createdAt of its first row.", null=True),
        _column("last_created_at", _time(), "createdAt of its last row.", null=True),
        _column(
            "span",
            INT8RANGE(),
            "Seconds of createdAt in which the page shows all that was listed; NULL if none.",
            null=True,
        ),
        _column("body_sha256", LargeBinary(), "SHA-256 of the reply's body."),
        PrimaryKeyConstraint("run_id", "seq"),
        ForeignKeyConstraint(["run_id"], [sync_run.c.run_id]),
        CheckConstraint("rows >= 0 and page_index >= 1 and page_size >= 1", name="numbers"),
        CheckConstraint("octet_length(body_sha256) = 32", name="body_sha256"),
        comment="One row a page read; the spans of a run add up to its coverage.  Pruned.",
    )


def _rejected_row(metadata: MetaData, sync_run: Table) -> Table:
    table = Table(
        "rejected_row",
        metadata,
        _column("run_id", BigInteger(), "The run that read the row."),
        _column("token_id", _bytewise(), "Id of the token, if it has one.", null=True),
        _column("reason", Text(), "Why it was not loaded; see docs/reference/records.md."),
        _column("payload", LargeBinary(), "The row as it was sent, byte for byte."),
        _column("created_second", BigInteger(), "Its createdAt in Unix seconds.", null=True),
        ForeignKeyConstraint(["run_id"], [sync_run.c.run_id]),
        comment="Rows of the service that were not loaded.  Pruned.",
    )
    # Pages overlap, so the same row comes twice; the hash keeps large payloads out of the index.
    Index(
        "uq_rejected_row_payload",
        table.c.run_id,
        table.c.reason,
        func.sha256(table.c.payload),
        unique=True,
    )
    return table
