"""How each question of ``sql/queries`` is asked of the known account, in the tests and the page."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import psycopg
from psycopg.rows import dict_row

from etl.demo import with_variables
from tests.questions.accounts import ACCOUNT

ROOT: Final = Path(__file__).resolve().parents[2]
QUERIES: Final = ROOT / "sql" / "queries"
COMMON: Final = {"partner_id": "102", "now": "2026-03-31 08:00+00", "since": "2026-03-20"}
"""What the page sets once, before the first question."""


@dataclass(frozen=True, slots=True)
class Question:
    """A file, and the variables that this question sets."""

    file: str
    variables: dict[str, str] = field(default_factory=dict)
    time_zone: str | None = None
    """``kaltura.time_zone`` of the session."""

    @property
    def text(self) -> str:
        return (QUERIES / self.file).read_text(encoding="utf-8")

    @property
    def words(self) -> str:
        """The question itself."""
        return self.text.splitlines()[0].removeprefix("-- ")

    @property
    def needs(self) -> set[str]:
        """The variables that the statement takes."""
        return set(re.findall(r"(?<![:\w]):'?([a-z_]+)", self.statement))

    @property
    def says_it_needs(self) -> set[str]:
        """The variables that its second line names."""
        line = self.text.splitlines()[1]
        if not line.startswith("-- Variables: "):
            return set()
        return set(line.removeprefix("-- Variables: ").partition(";")[0].split(", "))

    @property
    def statement(self) -> str:
        """The SQL without the lines of comment before it."""
        lines = self.text.splitlines()
        while lines[0].startswith("--"):
            lines.pop(0)
        return "\n".join(lines)

    def ask(self, connection: psycopg.Connection[Any], **others: str) -> list[dict[str, Any]]:
        """The answer of a warehouse; the search_path leads to its schema.

        ``others`` are variables of which the page says something else.
        """
        values = COMMON | self.variables | others
        sql = with_variables(self.statement, {name: values[name] for name in self.needs})
        with connection.transaction(), connection.cursor(row_factory=dict_row) as cursor:
            if self.time_zone is not None:
                cursor.execute("select set_config('kaltura.time_zone', %s, true)", [self.time_zone])
            return cursor.execute(sql.encode()).fetchall()


def _run_of(day: str) -> str:
    return str(ACCOUNT.night_of(day).run_id)


QUESTIONS: Final = {
    question.file: question
    for question in (
        Question("freshness.sql"),
        Question("troubled_nights.sql"),
        Question("troubled_runs.sql"),
        Question("rejected_rows.sql"),
        Question("status_now.sql"),
        Question("status_each_day.sql"),
        Question("stuck_now.sql"),
        Question("stuck_on_day.sql", {"day": "2026-03-24"}),
        Question("stuck_at_run.sql", {"run_id": _run_of("03-24")}),
        Question("then_and_now.sql", {"at": "2026-03-25 23:00+00"}),
        Question("history_of_token.sql", {"token_id": "0_23_resumed"}),
        Question("when_did_it_happen.sql", {"token_id": "0_mar_back"}),
        Question("what_changed_last_night.sql"),
        Question(
            "changed_between.sql", {"run_before": _run_of("03-24"), "run_id": _run_of("03-27")}
        ),
        Question("first_status.sql", {"since": "2026-03-21"}),
        Question("disappeared.sql"),
        Question("vanished_unfinished.sql"),
        Question("failed_uploads.sql"),
        Question("outcome_of_day.sql", {"day": "2026-03-23"}),
        Question("failure_rate_by_size.sql"),
        Question("time_to_complete_by_size.sql"),
        Question("slowest_users.sql", {"since": "2026-03-01"}),
        Question("busiest_users.sql", {"since": "2026-03-01"}),
        Question("growth.sql", {"months": "12"}),
        Question("resumed_uploads.sql"),
        Question("retries.sql"),
        Question("time_in_status.sql", {"since": "2026-03-01"}),
        Question("funnel_by_week.sql", {"since": "2026-02-16"}),
        Question("completed_in_time.sql", {"since": "2026-02-16", "within": "1 day"}),
        Question("hour_of_day.sql", {"since": "2026-03-01"}, time_zone="Europe/Berlin"),
        Question("cohorts.sql", {"since": "2026-02-09"}),
        Question("renamed_users.sql"),
        Question("accounts_side_by_side.sql"),
        Question("bytes_never_received.sql", {"since": "2026-03-01"}),
        Question("uploads_by_day.sql", {"since": "2026-03-27"}, time_zone="Europe/Berlin"),
    )
}
