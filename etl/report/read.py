"""The rows that the page shows: all of one snapshot, each list bounded."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from typing import Any, Final

from etl.errors import UsageError
from etl.resources import sql_directory
from etl.warehouse.read.queries import Reader, reading

Row = dict[str, Any]

STUCK_ROWS: Final = 50
VANISHED_ROWS: Final = 50
USER_ROWS: Final = 20
RUN_ROWS: Final = 14
NIGHT_ROWS: Final = 14


@dataclass(frozen=True, slots=True, kw_only=True)
class ReportRows:
    """What the queries in ``sql/report`` found; each list is empty if there is nothing."""

    partner_id: int | None
    """None: the warehouse has no account yet."""
    time_zone: str
    first_day: date
    last_day: date
    """The days shown, in ``time_zone``: up to that of the last publication; nothing is known of
    later ones."""
    read_at: datetime
    freshness: Row | None = None
    certificates: list[Row] = field(default_factory=list)
    outcomes: list[Row] = field(default_factory=list)
    stuck: list[Row] = field(default_factory=list)
    vanished: list[Row] = field(default_factory=list)
    users: list[Row] = field(default_factory=list)
    nights: list[Row] = field(default_factory=list)
    """Newest first: today, so far."""
    runs: list[Row] = field(default_factory=list)


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


def _only_account(reader: Reader) -> int | None:
    accounts = [row["partner_id"] for row in reader.rows("accounts")]
    if len(accounts) > 1:
        shown = ", ".join(map(str, accounts[:10])) + (", …" if len(accounts) > 10 else "")
        raise UsageError(
            f"The warehouse holds several accounts ({shown}): choose one with --partner-id."
        )
    return accounts[0] if accounts else None


def _read_account(reader: Reader, freshness: Row, days: int, time_zone: str) -> ReportRows:
    account = {"partner_id": freshness["partner_id"]}
    last_day = freshness["last_day"] or freshness["read_at"].date()
    first_day = last_day - timedelta(days=days - 1)
    shown = account | {"first_day": first_day, "time_zone": time_zone}
    day_after = last_day + timedelta(days=1)
    return ReportRows(
        partner_id=freshness["partner_id"],
        time_zone=time_zone,
        first_day=first_day,
        last_day=last_day,
        read_at=freshness["read_at"],
        freshness=freshness,
        certificates=reader.rows("certificates", **account),
        outcomes=reader.rows("outcomes", **shown, day_after=day_after),
        stuck=reader.rows("stuck", **account, rows=STUCK_ROWS),
        vanished=reader.rows("vanished", **shown, rows=VANISHED_ROWS),
        users=reader.rows("users", **account, rows=USER_ROWS),
        nights=reader.rows("nights", **account, rows=NIGHT_ROWS),
        runs=reader.rows("runs", **account, rows=RUN_ROWS),
    )
