"""The rows that the page shows: all of one snapshot, each list bounded."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from typing import Any, Final

from etl.errors import UsageError
from etl.resources import sql_directory
from etl.warehouse.read.queries import Reader, reading

Row = dict[str, Any]

STUCK_ROWS: Final = 100
FAILED_ROWS: Final = 100
VANISHED_ROWS: Final = 100
CHANGE_ROWS: Final = 1 + 10
"""The totals, and the users with most trouble."""
USER_ROWS: Final = 20
RUN_ROWS: Final = 3
NIGHT_ROWS: Final = 14
WEEKS: Final = 8
QUIET_DAYS: Final = 30
"""Of an account without uploads for so long, the days that had the newest ones are shown."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ReportRows:
    """What the queries in ``sql/report`` found; each list is empty if there is nothing."""

    partner_id: int | None
    """None: the warehouse has no account yet."""
    time_zone: str
    first_day: date
    last_day: date
    """The days shown, in ``time_zone``: up to that of the last publication; nothing is known of
    later ones.  Of an account that has been quiet for long, up to that of the newest upload."""
    read_at: datetime
    freshness: Row | None = None
    certificates: list[Row] = field(default_factory=list)
    seen_from: date | None = None
    """First day of the lists of what failed and vanished: ``first_day``, unless the account has
    been quiet for long."""
    newest_day: date | None = None
    """That of the newest upload."""
    last_full_day: date | None = None
    """The last day that was over when all open uploads were last read; weeks end with it."""
    changes: Row | None = None
    """What changed since the complete run before the last one; None without such a run."""
    changed_users: list[Row] = field(default_factory=list)
    """Whose uploads got into trouble since then."""
    outcomes: list[Row] = field(default_factory=list)
    """By day, from the first of the weeks or of the days shown; and by day and ``size_bucket``."""
    stuck: list[Row] = field(default_factory=list)
    failed: list[Row] = field(default_factory=list)
    vanished: list[Row] = field(default_factory=list)
    users: list[Row] = field(default_factory=list)
    nights: list[Row] = field(default_factory=list)
    """Newest first: today, so far."""
    runs: list[Row] = field(default_factory=list)
    """The newest runs, newest first."""


def read_accounts(url: str, schema: str) -> list[int]:
    """The accounts that have a run, in the order of their numbers."""
    with reading(url, schema, sql_directory() / "report") as reader:
        return _accounts(reader)


def read_report(
    url: str, schema: str, *, partner_id: int | None, days: int, time_zone: str
) -> ReportRows:
    """Read what the page shows of one account; without ``partner_id``, of the only one there is.

    Raises:
        UsageError: there are several accounts and none is named; Postgres lacks the time zone.
        ConfigurationError: the schema is not of this program's version.
    """
    with reading(url, schema, sql_directory() / "report") as reader:
        if time_zone != "UTC" and not reader.knows_time_zone(time_zone):
            raise UsageError(f"--time-zone: Postgres knows no time zone named {time_zone}.")
        reader.set_time_zone(time_zone)
        if partner_id is None:
            partner_id = _only_account(reader)
        freshness = reader.rows("freshness", partner_id=partner_id, time_zone=time_zone)
        if not freshness:
            today = datetime.now(UTC)
            return ReportRows(
                partner_id=partner_id,
                time_zone=time_zone,
                first_day=today.date(),
                last_day=today.date(),
                read_at=today,
            )
        return _read_account(reader, freshness[0], days, time_zone)


def _accounts(reader: Reader) -> list[int]:
    return [row["partner_id"] for row in reader.rows("accounts")]


def _only_account(reader: Reader) -> int | None:
    accounts = _accounts(reader)
    if len(accounts) > 1:
        shown = ", ".join(map(str, accounts[:10])) + (", …" if len(accounts) > 10 else "")
        raise UsageError(
            f"The warehouse holds several accounts ({shown}): choose one with --partner-id."
        )
    return accounts[0] if accounts else None


def _read_account(reader: Reader, freshness: Row, days: int, time_zone: str) -> ReportRows:
    account = {"partner_id": freshness["partner_id"]}
    zoned = account | {"time_zone": time_zone}
    last_day = freshness["last_day"] or freshness["read_at"].date()
    seen_from = last_day - timedelta(days=days - 1)
    newest = reader.rows("newest", **zoned)[0]["day"]
    if newest is not None and (last_day - newest).days >= max(days, QUIET_DAYS):
        last_day = newest
    first_day = last_day - timedelta(days=days - 1)
    open_seen_day = freshness["open_seen_day"]
    last_full_day = open_seen_day and open_seen_day - timedelta(days=1)
    weeks_from = last_full_day and last_full_day - timedelta(days=7 * WEEKS - 1)
    first_counted = first_day if weeks_from is None else min(first_day, weeks_from)
    shown = zoned | {"first_day": first_day, "day_after": last_day + timedelta(days=1)}
    since = {
        "since": freshness["since_published_at"],
        "since_seen_at": freshness["since_seen_at"],
    }
    changes = (
        reader.rows("changes", **account, **since, rows=CHANGE_ROWS)
        if since["since"] is not None
        else []
    )
    recent = zoned | {"seen_from": seen_from, "since": since["since"]}
    return ReportRows(
        partner_id=freshness["partner_id"],
        time_zone=time_zone,
        first_day=first_day,
        last_day=last_day,
        read_at=freshness["read_at"],
        freshness=freshness,
        certificates=reader.rows("certificates", **account),
        seen_from=seen_from,
        newest_day=newest,
        last_full_day=last_full_day,
        changes=changes[0] if changes else None,
        changed_users=changes[1:],
        outcomes=reader.rows(
            "outcomes",
            **shown | {"first_day": first_counted},
            open_seen_at=freshness["open_seen_at"],
        ),
        stuck=reader.rows(
            "stuck", **account, since_seen_at=since["since_seen_at"], rows=STUCK_ROWS
        ),
        failed=reader.rows("failed", **recent, rows=FAILED_ROWS),
        vanished=reader.rows("vanished", **recent, rows=VANISHED_ROWS),
        users=reader.rows("users", **shown, rows=USER_ROWS),
        nights=reader.rows("nights", **zoned, rows=NIGHT_ROWS),
        runs=reader.rows("runs", **account, rows=RUN_ROWS),
    )
