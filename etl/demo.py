"""``kaltura-etl demo``: syncs a simulated account over some simulated nights.

Real are the HTTP, the sync and the Postgres; simulated is the account and its calendar.  Its nights
end yesterday, whereas the syncs run now, seconds apart, so the times that a run has written are set
to its night before the next one: an analyst's query finds a week of history, as after a real week.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from itertools import dropwhile
from typing import Any, Final, TypeAlias

from etl.process.progress import NoProgress
from etl.process.stop import Stop
from etl.resources import sql_directory
from etl.run.plan import SyncOptions
from etl.run.report import RunReport
from etl.run.sync import sync
from etl.settings.table import Settings
from etl.simulator import Life, SimulatorServer, generate_account
from etl.warehouse.read.demo import (
    demo_lock,
    most_eventful_token,
    move_run,
    recreate_demo_schema,
)
from etl.warehouse.read.queries import Reader, reading
from etl.warehouse.schema.database import Database, open_database
from etl.warehouse.schema.revision import migrate

SCHEMA: Final = "kaltura_demo"
OPEN_SHARE: Final = 0.03
"""Uploads before the first night that were never finished: as many as in the nights."""
SYNC_HOUR: Final = 23
"""UTC.  At least an hour ago for last night, so that no absence waits for its grace to end."""
NIGHTS_SINCE: Final = 3
"""Nights from the one that is asked about to the last: time for what was stuck to move."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Night:
    """A night of the account, and the run that read it.  Counts are of tokens."""

    night: int
    """0 is the first load, before the account changes."""
    at: datetime
    """When it was read, by the account's calendar and the ledger's."""
    run_id: int
    tokens: int
    new: int
    changed: int
    absent: int
    relisted: int
    requests: int
    seconds: float
    coverage: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """An analyst's question, and the answer from the warehouse."""

    question: str
    file: str
    sql: str
    rows: list[dict[str, Any]]
    note: str = ""
    variables: dict[str, str] = field(default_factory=dict)
    """Of the file, as ``psql -v`` takes them."""


Event: TypeAlias = Night | Answer


def first_load_at(nights: int, now: datetime) -> datetime:
    """When the first load is, so that the last of ``nights`` is yesterday's."""
    midnight = now.astimezone(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    return midnight - timedelta(days=nights + 1) + timedelta(hours=SYNC_HOUR)


def run_demo(
    settings: Settings,
    *,
    nights: int,
    tokens: int,
    seed: int,
    stop: Stop,
    now: Callable[[], datetime] = lambda: datetime.now(UTC),
) -> Iterator[Event]:
    """Yield each night as soon as it is synced, then the answers.

    ``settings.database_url`` is the embedded server.  Schema ``kaltura_demo`` is recreated; one
    that this program did not create is a ConfigurationError, and another running demo is LeaseHeld.
    """
    url = str(settings.database_url)
    with open_database(url, SCHEMA) as database, demo_lock(database):
        recreate_demo_schema(database)
        migrate(url, SCHEMA)
        lived: list[Night] = []
        begin = int(first_load_at(nights, now()).timestamp())
        account = generate_account(tokens, seed=seed, now=begin, open_share=OPEN_SHARE)
        with SimulatorServer(account, seed=seed) as server:
            ours = _settings_for(settings, server)
            for night in _live(ours, database, server.life(), nights, stop):
                lived.append(night)
                yield night
        with reading(url, SCHEMA, sql_directory() / "queries") as reader:
            yield from _answers(reader, lived, {"partner_id": str(account.partner_id)})


def _settings_for(settings: Settings, server: SimulatorServer) -> Settings:
    return dataclasses.replace(
        settings,
        schema=SCHEMA,
        service_url=server.url,
        partner_id=server.account.partner_id,
        admin_secret=server.partner.admin_secrets[0],
    )


def _live(
    settings: Settings, database: Database, life: Life, nights: int, stop: Stop
) -> Iterator[Night]:
    options = SyncOptions(resume=False)
    for number in range(nights + 1):
        stop.check()
        if number:
            life.advance(hours=24)
        report = sync(settings, options, stop=stop, progress=NoProgress())
        at = datetime.fromtimestamp(life.now, UTC)
        move_run(database, report.run_id, at)
        yield _night(number, at, report)


def _night(number: int, at: datetime, report: RunReport) -> Night:
    return Night(
        night=number,
        at=at,
        run_id=report.run_id,
        tokens=report.tokens_read,
        new=report.inserted,
        changed=report.changed,
        absent=report.absent,
        relisted=report.relisted,
        requests=report.requests,
        seconds=report.duration_seconds,
        coverage=report.coverage,
    )


# --- the questions -----------------------------------------------------------------------------


def _answers(reader: Reader, lived: list[Night], account: dict[str, str]) -> Iterator[Answer]:
    """The questions that the warehouse of these nights is asked; the first is what it is for."""
    last, asked = lived[-1], night_to_ask_for(lived)
    since = account | {"since": f"{lived[0].at:%Y-%m-%d}"}
    yield _ask(
        reader,
        f"What was stuck last {asked.at:%A} (run {asked.run_id}), and what became of it?",
        "stuck_at_run.sql",
        account | {"run_id": str(asked.run_id)},
        note="Kaltura itself can say only what is stuck now.",
    )
    yield _ask(
        reader,
        "How many tokens were in each status at the end of each day?",
        "status_each_day.sql",
        since | {"now": f"{last.at + timedelta(days=1):%Y-%m-%d}"},
    )
    yield _ask(
        reader,
        f"What changed last night (run {last.run_id})?",
        "what_changed_last_night.sql",
        account,
    )
    yield _ask(
        reader,
        "Do large uploads fail more often?",
        "failure_rate_by_size.sql",
        since,
        note="By what has become of them up to now: yesterday's may still fail.",
    )
    yield _ask(
        reader,
        "What has this token been through?",
        "history_of_token.sql",
        account | {"token_id": most_eventful_token(reader)},
    )


def night_to_ask_for(lived: list[Night]) -> Night:
    """A night of the last week, with enough nights after it for an answer in which things move."""
    return lived[max(1, len(lived) - 1 - NIGHTS_SINCE)]


def _ask(
    reader: Reader,
    question: str,
    file: str,
    variables: Mapping[str, str] | None = None,
    *,
    note: str = "",
) -> Answer:
    variables = dict(variables or {})
    lines = (sql_directory() / "queries" / file).read_text(encoding="utf-8").splitlines()
    statement = "\n".join(dropwhile(lambda line: line.startswith("--"), lines))
    sql = with_variables(statement, variables)
    rows = [{name: _plain(value) for name, value in row.items()} for row in reader.query(sql)]
    return Answer(question=question, file=file, sql=sql, rows=rows, note=note, variables=variables)


def _plain(value: Any) -> Any:
    """A sum comes as a Decimal, which is no number in JSON; a day is its ISO form."""
    if isinstance(value, date) and not isinstance(value, datetime):
        return value.isoformat()
    if not isinstance(value, Decimal):
        return value
    return int(value) if value == value.to_integral_value() else float(value)


def with_variables(sql: str, variables: Mapping[str, str]) -> str:
    """``sql`` as ``psql -v NAME=VALUE`` would send it: ``:name`` bare, ``:'name'`` as a literal."""

    def fill(match: re.Match[str]) -> str:
        value = variables[match["name"]]
        return "'" + value.replace("'", "''") + "'" if match["quote"] else value

    return re.sub(r"(?<![:\w]):(?P<quote>'?)(?P<name>[a-z_]+)(?P=quote)", fill, sql)
