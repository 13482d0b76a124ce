"""A healthy warehouse by plain SQL, and for each check corruptions that it must find.

``CORRUPTIONS`` has one for each check (a checker that is never seen to fail proves nothing),
``MORE_CORRUPTIONS`` the other ways in which a check can fail.
"""

# ruff: noqa: S608 - the statements are constants of this file
from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any, Final

import psycopg

from etl.tokens.columns import PageTokens
from etl.tokens.digest import DIGEST_COLUMNS
from etl.tokens.token import TOKEN_COLUMNS
from etl.verify.checks import CERTIFICATES, DIGESTS
from tests.support.moments import fill_moments

NIGHT: Final = datetime(2026, 3, 1, 2, tzinfo=UTC)
EVERYTHING: Final = "{(,)}"
CREATED: Final = 1_700_000_000
FULL_FILTER: Final = '{"orderBy":"+createdAt"}'
OPEN_FILTER: Final = '{"orderBy":"+createdAt","statusIn":"0,1,2"}'


def night(number: int, **more: float) -> datetime:
    return NIGHT + timedelta(days=number, **more)


class Builder:
    """Publishes, by plain SQL, what runs of the program would have published."""

    def __init__(self, connection: psycopg.Connection[Any]) -> None:
        self.connection = connection

    def insert(self, table: str, **values: object) -> None:
        names = ", ".join(values)
        marks = ", ".join(["%s"] * len(values))
        self.connection.execute(
            f"insert into {table} ({names}) values ({marks})".encode(),
            list(values.values()),
        )

    def run(self, run_id: int, partner_id: int, at: datetime, **values: object) -> None:
        succeeded = values.get("status", "succeeded") == "succeeded"
        defaults: dict[str, object] = {
            "run_id": run_id,
            "partner_id": partner_id,
            "walk_id": run_id,
            "mode": "full",
            "status": "succeeded",
            "started_at": at,
            "heartbeat_at": at + timedelta(minutes=10),
            "finished_at": at + timedelta(minutes=10),
            "published_at": at + timedelta(minutes=9) if succeeded else None,
            "coverage": EVERYTHING if succeeded else "{}",
        }
        self.insert("sync_run", **{**defaults, **values})

    def page(self, run_id: int, seq: int, span: str | None, rows: int, **values: object) -> None:
        defaults: dict[str, object] = {
            "run_id": run_id,
            "seq": seq,
            "page_index": seq + 1,
            "page_size": 500,
            "filter": FULL_FILTER,
            "requested_at": night(0),
            "received_at": night(0),
            "rows": rows,
            "first_created_at": datetime.fromtimestamp(CREATED, UTC),
            "last_created_at": datetime.fromtimestamp(CREATED + 1000, UTC),
            "span": span,
            "body_sha256": bytes(32),
        }
        self.insert("sync_page", **{**defaults, **values})

    def unobserved(self, token: str, run_id: int, reason: str) -> None:
        self.insert(
            "unobserved_token", partner_id=101, token_id=token, run_id=run_id, reason=reason
        )

    def version(
        self,
        token: str,
        version: int,
        run_id: int,
        at: datetime,
        *until: Any,
        **values: object,
    ) -> None:
        """Published by ``run_id``, which began ``at``; ``until`` is the same of the next one."""
        absent = values.get("change_kind") == "absent"
        row: dict[str, object] = {
            "partner_id": 101,
            "token_id": token,
            "user_id": "anna",
            "status": 0,
            "created_at": datetime.fromtimestamp(CREATED + 10, UTC),
            "upload_url": "https://upload.example",
            "auto_finalize": True,
            "is_listed": not absent,
            "version": version,
            "change_kind": "first_seen",
            "changed_columns": ["is_listed"] if absent else None,
            "valid_from": at + timedelta(minutes=9),
            "observed_at": at + timedelta(minutes=1),
            "last_listed_at": at - timedelta(days=1) if absent else None,
            "absence_confirmed_at": at + timedelta(minutes=1) if absent else None,
            "run_id": run_id,
            **values,
        }
        if not until:
            tokens = PageTokens.of([[row.get(name) for name in TOKEN_COLUMNS]])
            digests = (*tokens.digests(), *tokens.user_digests())
            self.insert("upload_token", **row, **dict(zip(DIGEST_COLUMNS, digests, strict=True)))
            return
        next_at, next_run_id = until
        self.insert(
            "upload_token_superseded",
            **row,
            valid_to=next_at + timedelta(minutes=9),
            superseded_by_run_id=next_run_id,
        )


def build_healthy(connection: psycopg.Connection[Any]) -> None:
    """Runs 1, 4, 5, 6 of account 101 and 7 of 102 published; 2 and 3 (abandoned) did not."""
    build = Builder(connection)
    build.run(1, 101, night(1), pages=2, rows_read=5, tokens_read=5, inserted=4, rejected=1)
    build.page(1, 0, f"(,{CREATED + 500})", 3)
    build.page(1, 1, f"[{CREATED + 400},)", 2)
    build.insert("rejected_row", run_id=1, reason="bad_time", payload=b"{}")
    build.run(2, 101, night(2), status="refused", error_kind="refused")
    build.run(
        3,
        101,
        night(2, hours=1),
        status="abandoned",
        error_kind="abandoned",
        pages=1,
        rows_read=1,
        staged=1,
        coverage=f"{{(,{CREATED})}}",
    )
    # Resumes run 3, cannot read one second, and rejects the row of d, which it knows.
    build.run(
        4,
        101,
        night(2, hours=2),
        walk_id=3,
        resumed_from=3,
        pages=3,
        rows_read=5,
        tokens_read=3,
        changed=1,
        unchanged=1,
        rejected=1,
        absent=1,
        listed_before=4,
        unreadable=1,
        unobserved=1,
        coverage=f"{{(,{CREATED + 700}),[{CREATED + 701},)}}",
        holes=f'[{{"span": "[{CREATED + 700},{CREATED + 701})", "reason": "unreadable"}}]',
    )
    build.page(4, 0, f"(,{CREATED + 700})", 3)
    build.page(4, 1, f"[{CREATED + 701},)", 2)
    build.page(4, 2, None, 0, filter='{"idIn":"b,c","orderBy":"+createdAt"}', page_index=1)
    build.insert("rejected_row", run_id=4, token_id="d", reason="status_invalid", payload=b"{}")
    build.unobserved("d", 4, "rejected")
    # Reads the newest seconds and the open tokens, and asks for two that are not there: c is gone,
    # and d too young to be called so.
    build.run(
        5,
        101,
        night(3),
        mode="incremental",
        pages=3,
        rows_read=2,
        tokens_read=1,
        unchanged=1,
        absent=1,
        unobserved=1,
        listed_before=3,
        coverage=f"{{[{CREATED + 900},)}}",
        open_coverage=EVERYTHING,
        oldest_page_at=night(3, minutes=1),
    )
    asked = {"requested_at": night(3, minutes=1)}
    build.page(5, 0, f"[{CREATED + 900},)", 2, **asked)
    build.page(5, 1, "(,)", 0, filter=OPEN_FILTER, page_index=1, **asked)
    look_up = '{"idIn":"c,d","orderBy":"+createdAt"}'
    build.page(5, 2, None, 0, filter=look_up, page_index=1, **asked)
    build.unobserved("d", 5, "pending")
    # By ids: b is back.  Its pages are pruned.
    build.run(
        6,
        101,
        night(4),
        mode="backfill",
        pages=1,
        pages_pruned=1,
        rows_read=1,
        tokens_read=1,
        relisted=1,
        listed_before=2,
        coverage="{}",
    )
    build.run(7, 102, night(1), pages=1, rows_read=0)
    build.page(7, 0, "(,)", 0, first_created_at=None, last_created_at=None)
    build.run(8, 102, night(5), status="running", finished_at=None, published_at=None)

    build.version("a", 1, 1, night(1), night(2, hours=2), 4)
    build.version(
        "a",
        2,
        4,
        night(2, hours=2),
        change_kind="changed",
        changed_columns=["status", "auto_finalize"],
        status=3,
        auto_finalize=False,
    )
    build.version("b", 1, 1, night(1), night(2, hours=2), 4)
    build.version("b", 2, 4, night(2, hours=2), night(4), 6, change_kind="absent")
    build.version("b", 3, 6, night(4), change_kind="relisted", changed_columns=["is_listed"])
    build.version("c", 1, 1, night(1), night(3), 5)
    build.version("c", 2, 5, night(3), change_kind="absent")
    build.version("d", 1, 1, night(1), uploaded_size_bytes=10)
    build.insert(
        "upload_token_staging",
        **{"walk_id": 8, "partner_id": 102, "token_id": "x", "kind": "missing"},
        created_at=night(0),
        from_lookup=False,
        observed_at=night(5),
    )
    fill_moments(connection)


CORRUPTIONS: Final[dict[str, str]] = {
    "absence_changes_nothing_else": "update upload_token set status = 5 where token_id = 'c'",
    "absence_times_ordered": "update upload_token set absence_confirmed_at = last_listed_at "
    "- interval '1 second' where token_id = 'c'",
    "absences_observed": "update sync_page set filter = replace(filter, 'c,d', 'a,d') "
    "where run_id = 5",
    "brake_held": "update sync_run set absent = 11 where run_id = 4",
    "bytes_arrived_truthful": "update upload_bytes_arrival_log set bytes = '{9}'",
    "certificate_adds_up": f"update sync_page set span = '[{CREATED + 401},)' "
    f"where run_id = 1 and seq = 1; update sync_page set span = '(,{CREATED + 400})' "
    "where run_id = 1 and seq = 0",
    CERTIFICATES: f"update sync_page set span = '(,{CREATED + 5000})' where run_id = 1 and seq = 0",
    "change_kinds_truthful": "update upload_token_superseded set is_listed = true "
    "where token_id = 'b' and version = 2",
    "changed_columns_truthful": "update upload_token set changed_columns = '{file_name}' "
    "where token_id = 'a'",
    "coverage_complete": "update sync_run set holes = '[]' where run_id = 4",
    DIGESTS: "update upload_token set digest = digest + 1 where token_id = 'a'",
    "earlier_stays_truthful": "update upload_token set earlier_stays = '{9}' where token_id = 'a'",
    "first_closed_truthful": "update upload_token set first_closed_at = now() where token_id = 'a'",
    "guards_in_place": "drop index uq_sync_run_running",
    "known_values_kept": "update upload_token set user_id = null where token_id = 'a'",
    "ledger_counts_tokens": "update sync_run set unchanged = unchanged + 1 where run_id = 1",
    "ledger_counts_versions": "update sync_run set changed = 0 where run_id = 4",
    "ledger_states_truthful": "update sync_run set error_kind = null where run_id = 2",
    "oldest_page_truthful": "update sync_run set oldest_page_at = finished_at where run_id = 5",
    "one_running_run": "update sync_run set status = 'running' where run_id = 7",
    "open_certificate_adds_up": "update sync_page set filter = replace(filter, '0,1,2', '0,1')",
    "pages_counted": "delete from sync_page where run_id = 5 and seq = 2",
    "population_balance": "update upload_token set is_listed = false where token_id = 'a'",
    "published_in_order": "update sync_run set published_at = '2026-03-05 02:09Z' where run_id = 5",
    "published_within_run": "update sync_run set published_at = finished_at + interval '1 s' "
    "where run_id = 7",
    "rejected_rows_counted": "delete from rejected_row where run_id = 1",
    "resumed_runs_continue": "update sync_run set mode = 'incremental' where run_id = 3",
    "staging_empty": "update upload_token_staging set walk_id = 7",
    "superseded_by_published_runs": "update upload_token_superseded set superseded_by_run_id = 2 "
    "where token_id = 'a'",
    "status_counts_truthful": "update upload_token_status_count_log set quarter_hour = "
    "quarter_hour + interval '15 minutes'",
    "status_moments_truthful": "update upload_token_status_moment_log set happened_at = "
    "happened_after where token_id = 'a'",
    "status_since_truthful": "update upload_token set status_happened_before = now() "
    "where token_id = 'a'",
    "statuses_in_place": "delete from upload_token_status where code = 6",
    "unobserved_tokens_counted": "delete from unobserved_token where run_id = 5",
    "unobserved_tokens_truthful": "update unobserved_token set token_id = 'x'",
    "validity_contiguous": "update upload_token_superseded set valid_to = valid_to "
    "- interval '1 s' where token_id = 'a'",
    "versions_accounted_for": "insert into pruning (partner_id, kind, horizon, deleted, "
    "program_version) values (101, 'versions', '2026-01-01Z', 1, '')",
    "versions_contiguous": "delete from upload_token_superseded where token_id = 'b' "
    "and version = 2",
    "versions_differ": "update upload_token set status = 0 where token_id = 'a'",
    "versions_observed_in_walk": "update upload_token set observed_at = '2026-01-01Z' "
    "where token_id = 'a'",
    "versions_of_own_partner": "update sync_run set partner_id = 102 where run_id = 6",
    "versions_of_published_runs": "update upload_token set run_id = 2 where token_id = 'a'",
    "versions_stamped_by_run": "update upload_token set valid_from = valid_from "
    "+ interval '1 s' where token_id = 'a'",
}
"""For each check, one corruption that it must find."""

ALSO_FOUND: Final[dict[str, set[str]]] = {
    "absence_changes_nothing_else": {"changed_columns_truthful", DIGESTS},
    "brake_held": {"ledger_counts_versions", "population_balance", "versions_accounted_for"},
    "certificate_adds_up": {CERTIFICATES},
    "change_kinds_truthful": {
        "changed_columns_truthful",
        "versions_differ",
        "status_moments_truthful",
    },
    "coverage_complete": {CERTIFICATES},
    "known_values_kept": {"changed_columns_truthful", DIGESTS},
    "ledger_counts_versions": {"ledger_counts_tokens", "versions_accounted_for"},
    "one_running_run": {"ledger_states_truthful"},
    "open_certificate_adds_up": {CERTIFICATES},
    "pages_counted": {"absences_observed"},
    "population_balance": {
        "changed_columns_truthful",
        "status_counts_truthful",
        "status_moments_truthful",
    },
    "published_in_order": {
        "population_balance",
        "published_within_run",
        "superseded_by_published_runs",
        "versions_stamped_by_run",
    },
    "status_moments_truthful": {
        *("status_since_truthful", "status_counts_truthful", "earlier_stays_truthful"),
    },
    "superseded_by_published_runs": {"validity_contiguous"},
    "validity_contiguous": {"superseded_by_published_runs"},
    "versions_contiguous": {
        "ledger_counts_versions",
        "versions_accounted_for",
        "status_moments_truthful",
    },
    "versions_differ": {
        "changed_columns_truthful",
        DIGESTS,
        "status_counts_truthful",
        "status_moments_truthful",
    },
    "versions_of_own_partner": {
        "population_balance",
        "published_in_order",
        "versions_accounted_for",
    },
    "versions_of_published_runs": {
        "ledger_counts_versions",
        "validity_contiguous",
        "status_moments_truthful",
    },
    "versions_stamped_by_run": {"validity_contiguous", "status_moments_truthful"},
    "absence_times_ordered": {"status_moments_truthful"},
    "changed_columns_truthful": {"status_moments_truthful"},
    "versions_observed_in_walk": {"status_moments_truthful"},
}
"""Other checks that the corruption of a check concerns as well; all the rest stay silent."""

MORE_CORRUPTIONS: Final = [
    (
        "absences_observed",
        "update sync_page set requested_at = '2026-03-03Z' where run_id = 5 and seq = 2",
    ),
    (
        "resumed_runs_continue",
        "update sync_run set status = 'refused' where run_id = 3; "
        "update sync_run set oldest_page_at = started_at where run_id = 4",
    ),
    (
        "resumed_runs_continue",
        "update sync_run set service = 'https://video' || run_id || '.example'",
    ),
    ("versions_contiguous", "delete from upload_token where token_id = 'a'"),
    ("versions_contiguous", "update upload_token set version = 4 where token_id = 'b'"),
    ("coverage_complete", "update sync_run set coverage = '{(,5)}' where run_id = 5"),
    (
        "coverage_complete",
        "update sync_run set holes = jsonb_set(holes, '{0,reason}', '\"unstable\"')"
        " where run_id = 4",
    ),
    (
        "coverage_complete",
        "update sync_run set range_from = '2023-01-01Z', range_to = '2023-02-01Z' "
        "where run_id = 6",
    ),
    # Of a run before a pruning: the sum is not the present.
    (
        "status_counts_truthful",
        "update upload_token_status_count_log set tokens = tokens + 1 where run_id = 1; "
        "insert into pruning (partner_id, kind, horizon, deleted, program_version) "
        "values (101, 'versions', '2026-03-02Z', 1, '')",
    ),
    ("population_balance", "update sync_run set listed_before = 5 where run_id = 4"),
    ("population_balance", "delete from upload_token where token_id = 'b'"),
    ("ledger_states_truthful", "update sync_run set finished_at = null where run_id = 1"),
    ("ledger_states_truthful", "update sync_run set published_at = now() where run_id = 2"),
    ("ledger_states_truthful", "update sync_run set finished_at = now() where run_id = 8"),
    ("ledger_states_truthful", "update sync_run set finished_at = '2020-01-01Z' where run_id = 3"),
    ("published_within_run", "update sync_run set published_at = '2100-01-01Z', "
     "finished_at = '2101-01-01Z' where run_id = 7"),
    ("superseded_by_published_runs", "update upload_token_superseded set valid_to = valid_to "
     "+ interval '1 s' where token_id = 'a'"),
    ("versions_of_published_runs", "update upload_token set run_id = 99 where token_id = 'a'"),
    ("staging_empty", "update upload_token_staging set walk_id = 99"),
    ("staging_empty", "update upload_token_staging set walk_id = 2, partner_id = 101"),
    ("pages_counted", "update sync_page set rows = rows + 1 where run_id = 1 and seq = 1"),
    ("known_values_kept", "update upload_token set upload_url = null where token_id = 'a'"),
    ("brake_held", "update sync_run set absent = 50, overrides = '{\"accept_absences\": 49}' "
     "where run_id = 4"),
    (
        "absence_times_ordered",
        "update upload_token set observed_at = observed_at + interval '1 s' where token_id = 'c'",
    ),
    (
        "absence_times_ordered",
        "update upload_token set last_listed_at = '2026-01-01Z' where token_id = 'c'",
    ),
    ("changed_columns_truthful", "update upload_token set changed_columns = null"),
    ("changed_columns_truthful", "update upload_token set changed_columns = '{status}'"),
    ("coverage_complete", "update sync_run set open_coverage = '{(,5)}' where run_id = 5"),
    ("ledger_counts_tokens", "update sync_run set rows_read = 4 where run_id = 1"),
    ("open_certificate_adds_up", "update sync_run set open_coverage = '{}' where run_id = 5"),
    ("unobserved_tokens_truthful", "update unobserved_token set run_id = 2 where run_id = 4"),
    ("unobserved_tokens_truthful", "update unobserved_token set partner_id = 102"),
    ("unobserved_tokens_truthful", "delete from rejected_row where token_id = 'd'"),
    ("unobserved_tokens_truthful", "update rejected_row set reason = 'duplicate_id'"),
    ("unobserved_tokens_truthful", "update sync_run set open_coverage = '{}' where run_id = 5"),
    ("unobserved_tokens_truthful", "update upload_token set status = 3 where token_id = 'd'"),
    ("unobserved_tokens_truthful", "update unobserved_token set token_id = 'a' where run_id = 4"),
    ("unobserved_tokens_truthful", "update unobserved_token set token_id = 'b' where run_id = 5"),
    ("unobserved_tokens_truthful", "update upload_token set valid_from = '2026-03-20Z' "
     "where token_id = 'd'"),
    ("versions_observed_in_walk", "update upload_token set observed_at = '2026-03-20Z' "
     "where token_id = 'a'"),
    ("versions_of_own_partner", "update sync_run set partner_id = 102 where run_id = 5"),
    (CERTIFICATES, "update sync_run set open_coverage = '{(,7)}' where run_id = 5"),
    (CERTIFICATES, "update sync_page set filter = replace(filter, '0,1,2', '0')"),
    (CERTIFICATES, "delete from sync_page where filter like '%0,1,2%'; "
     "update sync_run set open_coverage = '{}' where run_id = 5"),
    (CERTIFICATES, "update sync_run set coverage = '{(,7)}' where run_id = 1"),
    (CERTIFICATES, "update sync_run set holes = '[]' where run_id = 4"),
    ("guards_in_place", "alter table upload_token drop constraint pk_upload_token"),
]  # fmt: skip
