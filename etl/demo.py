"""``kaltura-etl demo``: syncs a simulated account over some simulated nights.

Real are the HTTP, the sync and the Postgres; simulated is the account and its calendar: its nights
end yesterday, whereas the syncs run now, seconds apart.  So ``created_at`` and ``updated_at`` are
of those nights, ``valid_from`` and ``observed_at`` are of now, and the number of the run says which
night a version belongs to.  No stamp of the warehouse is made up.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
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
from etl.warehouse.read.demo import busiest_token, demo_lock, recreate_demo_schema
from etl.warehouse.read.queries import Reader, reading
from etl.warehouse.schema.database import open_database
from etl.warehouse.schema.revision import migrate

SCHEMA: Final = "kaltura_demo"
OPEN_SHARE: Final = 0.03
"""Uploads that were never finished: few, so that those of the nights stand out."""
SYNC_HOUR: Final = 23
"""UTC.  At least an hour ago for last night, so that no absence waits for its grace to end."""
TUESDAY: Final = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Night:
    """A night of the account, and the run that read it.  Counts are of tokens."""

    night: int
    """0 is the first load, before the account changes."""
    at: datetime
    """The account's time when it was read."""
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
            for night in _live(ours, server.life(), nights, stop):
                lived.append(night)
                yield night
        yield from _answers(url, lived, {"partner_id": str(account.partner_id)})


def _settings_for(settings: Settings, server: SimulatorServer) -> Settings:
    return dataclasses.replace(
        settings,
        schema=SCHEMA,
        service_url=server.url,
        partner_id=server.account.partner_id,
        admin_secret=server.partner.admin_secrets[0],
    )


def _live(settings: Settings, life: Life, nights: int, stop: Stop) -> Iterator[Night]:
    options = SyncOptions(resume=False)
    for number in range(nights + 1):
        stop.check()
        if number:
            life.advance(hours=24)
        report = sync(settings, options, stop=stop, progress=NoProgress())
        yield _night(number, datetime.fromtimestamp(life.now, UTC), report)


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


def _answers(url: str, lived: list[Night], account: dict[str, str]) -> Iterator[Answer]:
    with reading(url, SCHEMA, sql_directory() / "queries") as reader:
        last, asked = lived[-1], night_to_ask_for(lived)
        day = f"{asked.at:%A}"
        yield _ask(
            reader,
            f"What changed last night (run {last.run_id})?",
            "what_changed_last_run.sql",
        )
        yield _ask(
            reader,
            f"What was stuck last {day} (run {asked.run_id}), and what became of it?",
            "stuck_at_run.sql",
            {"run_id": str(asked.run_id)},
            note="Kaltura itself can say only what is stuck now.",
        )
        yield _ask(
            reader,
            "What disappeared, and when?",
            "disappeared.sql",
            account | {"now": "now"},
            note="It went between the last two times. They are of now, as the syncs are; "
            "run_id tells the night.",
        )
        yield _ask(
            reader,
            "Did the large uploads of these nights fail more often?",
            "failure_rate_by_size.sql",
            account | {"since": f"{lived[0].at:%Y-%m-%d}"},
            note="By what has become of them up to now: yesterday's may still fail.",
        )
        yield _ask(
            reader,
            "What has this token been through?",
            "history_of_token.sql",
            account | {"token_id": busiest_token(reader)},
        )


def night_to_ask_for(lived: list[Night]) -> Night:
    """The last Tuesday; of a life too short to have one, the night in the middle."""
    tuesdays = [night for night in lived[1:] if night.at.weekday() == TUESDAY]
    return tuesdays[-1] if tuesdays else lived[len(lived) // 2]


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
    """A sum comes as a Decimal, which is no number in JSON."""
    if not isinstance(value, Decimal):
        return value
    return int(value) if value == value.to_integral_value() else float(value)


def with_variables(sql: str, variables: Mapping[str, str]) -> str:
    """``sql`` as ``psql -v NAME=VALUE`` would send it: ``:name`` bare, ``:'name'`` as a literal."""

    def fill(match: re.Match[str]) -> str:
        value = variables[match["name"]]
        return "'" + value.replace("'", "''") + "'" if match["quote"] else value

    return re.sub(r"(?<![:\w]):(?P<quote>'?)(?P<name>[a-z_]+)(?P=quote)", fill, sql)
