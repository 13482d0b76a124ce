"""The tables of the ledger: runs, their pages, and what they could not load or see."""

from __future__ import annotations

from typing import Final

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    Column,
    ForeignKeyConstraint,
    Identity,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    PrimaryKeyConstraint,
    Table,
    Text,
    func,
    text,
)
from sqlalchemy.dialects.postgresql import INT8MULTIRANGE, INT8RANGE, JSONB

from etl.warehouse.schema.columns import REPLICA_IDENTITY, bytewise, column, one_of, time

RUN_MODES: Final = ("full", "incremental", "backfill", "replay")
RUN_STATUSES: Final = (
    *("running", "succeeded", "refused", "failed", "abandoned", "skipped", "dry_run"),
)
COMPARED_BY: Final = ("fingerprint", "columns")
UNOBSERVED_REASONS: Final = ("pending", "rejected")

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
    "unreadable": "What could not be read: rows in holes, ids looked up, and one for each second "
    "that kept changing (hole tie_group), of which it is not known how many tokens are missing.",
    "listed_before": "Tokens of the account with is_listed, just before publishing.",
    "staged": "Rows that the walk has appended to upload_token_staging.",
}
"""The counters of ``sync_run``: bigint, 0 until counted.  A failed run keeps those of its walk
(requests to rows_read); those that publishing fills stay 0."""


def sync_run_table(metadata: MetaData) -> Table:
    table = Table(
        "sync_run",
        metadata,
        # By default, not always: a replay keeps the run ids of the runs that it replays.
        Column("run_id", BigInteger(), Identity(), nullable=False, comment="Number of the run."),
        column("partner_id", Integer(), "Kaltura account (partner)."),
        column(
            "walk_id",
            BigInteger(),
            "run_id of the first run of the walk; a resumed run inherits it.  NULL while the run "
            "is starting: it does not hold the lease yet.",
            null=True,
        ),
        column("mode", Text(), "full, incremental, backfill or replay."),
        column("range_from", time(), "Backfill: first createdAt wanted.", null=True),
        column("range_to", time(), "Backfill: last createdAt wanted, inclusive.", null=True),
        column(
            "status", Text(), "running, succeeded, refused, failed, abandoned, skipped or dry_run."
        ),
        column(
            "started_at",
            time(),
            "When the run took the lease; without it, when it started.",
            default="clock_timestamp()",
        ),
        column("heartbeat_at", time(), "Last heartbeat of the run.", default="clock_timestamp()"),
        column("finished_at", time(), "When the run ended; NULL while it runs.", null=True),
        column("published_at", time(), "Publication timestamp of its versions.", null=True),
        column("resumed_from", BigInteger(), "The run whose walk it resumed.", null=True),
        column("host", Text(), "Host name of its machine.", null=True),
        column("pid", Integer(), "Process id on that host.", null=True),
        column("program_version", Text(), "Version of the program.", null=True),
        *(column(name, BigInteger(), says, default="0") for name, says in RUN_COUNTS.items()),
        column("total_count_first", BigInteger(), "First totalCount received: a hint.", null=True),
        column("total_count_last", BigInteger(), "Last totalCount received: a hint.", null=True),
        column(
            "coverage",
            INT8MULTIRANGE(),
            "Seconds of createdAt that were read completely: the certificate.",
            default="'{}'",
        ),
        column(
            "holes",
            JSONB(),
            "What could not be read: objects with span (int8range of seconds), reason, tokens, and "
            "after (rows of the first second that come before them) where that is known.",
            default="'[]'",
        ),
        column(
            "overrides",
            JSONB(),
            "Checks that the operator overrode, such as accept_absences.",
            default="'{}'",
        ),
        column("error_kind", Text(), "Kind of the error that ended it.", null=True),
        column("error_message", Text(), "That error, redacted.", null=True),
        column(
            "open_coverage",
            INT8MULTIRANGE(),
            "Seconds of createdAt in which every open token was read (by status filter).",
            default="'{}'",
        ),
        column(
            "oldest_page_at",
            time(),
            "When the oldest reply of its walk was requested: the age of what it published.  "
            "NULL for runs of program versions that did not record it.",
            null=True,
        ),
        column(
            "digests_filled",
            BigInteger(),
            "Digests of known tokens filled in after publishing: maintenance without versions.",
            default="0",
        ),
        column(
            "pages_pruned",
            BigInteger(),
            "Pages of the run deleted by pruning: all of them or none.",
            default="0",
        ),
        column(
            "rejected_pruned",
            BigInteger(),
            "Rejected rows of the run deleted by pruning, counted like rejected.",
            default="0",
        ),
        column(
            "unobserved",
            BigInteger(),
            "Known tokens that it covered without seeing: rows of unobserved_token.",
            default="0",
        ),
        column(
            "process",
            Text(),
            "Identifies its process on its machine, so that a dead one is recognised.",
            null=True,
        ),
        column(
            "label", Text(), "What --run-label gave: the orchestrator's name for it.", null=True
        ),
        column(
            "attempts",
            Integer(),
            "Equal attempts that this row stands for, one after the other; 0: the row is spare, "
            "because its attempt is counted in an earlier one.",
            default="1",
        ),
        column(
            "service",
            Text(),
            "Address of the service that it read: a walk of another one is never resumed.  NULL "
            "for runs of program versions that did not record it.",
            null=True,
        ),
        PrimaryKeyConstraint("run_id"),
        one_of("mode", RUN_MODES),
        one_of("status", RUN_STATUSES),
        ForeignKeyConstraint(["resumed_from"], ["sync_run.run_id"]),
        CheckConstraint(
            "jsonb_typeof(holes) = 'array' and jsonb_typeof(overrides) = 'object'", name="json"
        ),
        comment="The ledger: one row per run.",
    )
    # The lease: at most one running run per account.  A start that has not got it has no walk.
    Index(
        "uq_sync_run_running",
        table.c.partner_id,
        unique=True,
        postgresql_where=text("status = 'running' and walk_id is not null"),
    )
    Index("ix_sync_run_partner", table.c.partner_id, table.c.run_id)
    # The last published run before a moment.  A run's batches touch no column of it: they stay HOT.
    Index(
        "ix_sync_run_published",
        table.c.partner_id,
        table.c.published_at,
        postgresql_where=text("published_at is not null"),
    )
    # What is at work, and what has failed: few, however long the ledger is.
    Index(
        "ix_sync_run_unpublished",
        table.c.partner_id,
        table.c.run_id,
        postgresql_where=text("published_at is null"),
    )
    return table


def sync_page_table(metadata: MetaData, sync_run: Table) -> Table:
    return Table(
        "sync_page",
        metadata,
        column("run_id", BigInteger(), "The run that read the page."),
        Column(
            "seq",
            BigInteger(),
            nullable=False,
            autoincrement=False,
            comment="Number of the page in the run, in the order of acceptance.",
        ),
        column("page_index", Integer(), "Requested pageIndex, from 1."),
        column("page_size", Integer(), "Requested pageSize."),
        column("filter", Text(), "Filter that was sent, as canonical JSON."),
        column("requested_at", time(), "When the request was sent."),
        column("received_at", time(), "When the reply had arrived."),
        column("rows", Integer(), "Rows on the page."),
        column("total_count", BigInteger(), "totalCount of the reply: a hint.", null=True),
        column("first_created_at", time(), "createdAt of its first row.", null=True),
        column("last_created_at", time(), "createdAt of its last row.", null=True),
        column(
            "span",
            INT8RANGE(),
            "Seconds of createdAt in which the page shows every listed token; NULL if none.",
            null=True,
        ),
        column("body_sha256", LargeBinary(), "SHA-256 of the reply's body."),
        column(
            "compared_by",
            Text(),
            "How its rows were compared: fingerprint or columns; NULL if nothing was known, and "
            "for lookups.",
            null=True,
        ),
        PrimaryKeyConstraint("run_id", "seq"),
        ForeignKeyConstraint(["run_id"], [sync_run.c.run_id]),
        CheckConstraint("rows >= 0 and page_index >= 1 and page_size >= 1", name="numbers"),
        CheckConstraint("octet_length(body_sha256) = 32", name="body_sha256"),
        one_of("compared_by", COMPARED_BY),
        comment="One row per page read; the spans of a run add up to its coverage.  Pruned.",
    )


def rejected_row_table(metadata: MetaData, sync_run: Table) -> Table:
    table = Table(
        "rejected_row",
        metadata,
        column("run_id", BigInteger(), "The run that read the row."),
        column("token_id", bytewise(), "Id of the token, if it has one.", null=True),
        column("reason", Text(), "Why it was not loaded; see docs/reference/records.md."),
        column("payload", LargeBinary(), "The row as it was sent, byte for byte."),
        column("created_second", BigInteger(), "Its createdAt in Unix seconds.", null=True),
        ForeignKeyConstraint(["run_id"], [sync_run.c.run_id]),
        comment="Rows of the service that were not loaded.  Pruned.",
        # It has no key: a publication of all tables would forbid to delete from it.
        info={REPLICA_IDENTITY: "full"},
    )
    # Pages overlap, so a row may occur twice; the hash keeps large payloads out of the index.
    Index(
        "uq_rejected_row_payload",
        table.c.run_id,
        table.c.reason,
        func.sha256(table.c.payload),
        unique=True,
    )
    # A lookup takes back the rejection of what it shows to be the token itself.
    Index(
        "ix_rejected_row_duplicate",
        table.c.run_id,
        table.c.token_id,
        postgresql_where=text("reason = 'duplicate_id'"),
    )
    return table


def unobserved_token_table(metadata: MetaData, sync_run: Table) -> Table:
    return Table(
        "unobserved_token",
        metadata,
        column("partner_id", Integer(), "Kaltura account (partner)."),
        column("token_id", bytewise(), "Kaltura's id of the token, bytewise."),
        column("run_id", BigInteger(), "The run that published without it."),
        column(
            "reason",
            Text(),
            "pending (missing, not confirmed) or rejected (its row could not be loaded).",
        ),
        PrimaryKeyConstraint("partner_id", "token_id", "run_id"),
        ForeignKeyConstraint(["run_id"], [sync_run.c.run_id]),
        one_of("reason", UNOBSERVED_REASONS),
        comment="Known tokens that a published run covered without seeing their state; rare.",
    )
