"""Kaltura's upload tokens in Airflow 3: every night, every quarter of an hour, and on demand.

    kaltura_nightly      a full run of each account, one mapped task per account
    kaltura_incremental  what is new or open, of all accounts in one process
    kaltura_backfill     a range of createdAt, with a form for it
    kaltura_marts        an example of what follows: it waits until the data are fresh

On every worker: install kaltura-etl in an environment of its own, and set

    SYNC_PROGRAM   path of the program; without it, ``kaltura-etl`` on PATH
    VARIABLE_FILE  its settings and secrets, a file that only the worker's user may read
    ETL_ACCOUNTS   path of accounts.toml, the list of the accounts

No setting passes through Airflow: what an operator is given is shown in the interface, and a
password in a URL is written there in another form than the one that Airflow knows to mask.

A task that has failed is tried again only where that can help (RETRYABLE).  The program resumes the
walk of the run before, and the label keeps a retry from repeating what is done.
"""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
import tomllib
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from airflow.sdk import Asset, BaseOperator, Param, dag, task
from airflow.sdk.exceptions import AirflowException, AirflowFailException, AirflowSkipException

PROGRAM = os.environ.get("SYNC_PROGRAM", "kaltura-etl")
RETRYABLE = {69, 74, 75}
"""The service failed, the warehouse failed, another run is at work: a later try may succeed."""
INTERRUPTED = {129, 130, 143}
"""Stopped by a signal: the next try resumes.  Of a killed process Python says -9."""
HELD = 75
STALE = 79
STOP_SECONDS = 60

UPLOAD_TOKENS = Asset("kaltura://upload_token")
# The first retry waits for Airflow's default_task_retry_delay (5 minutes), the next ones longer.
RUN = {
    "retries": 4,
    "retry_exponential_backoff": 2.0,
    "max_retry_delay": timedelta(minutes=30),
    "execution_timeout": timedelta(hours=4),
}
CHOSEN = {"accounts": Param([], type="array", title="Accounts (none: all)")}
DAYS = {"start_date": datetime(2026, 1, 1, tzinfo=UTC), "catchup": False}


class KalturaEtl(BaseOperator):
    """Runs ``kaltura-etl``; its XCom is the object that the command prints with ``--json``.

    ``account`` is for mapping: one task per account.  ``skip_if_held``: if nothing is wrong but
    that another run of the account is at work, the task is skipped.
    """

    template_fields = ("arguments", "account")

    def __init__(
        self,
        *,
        arguments: list[str],
        account: str | None = None,
        skip_if_held: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.arguments = arguments
        self.account = account
        self.skip_if_held = skip_if_held
        self.process: subprocess.Popen[str] | None = None

    def execute(self, context: Any) -> dict[str, Any]:
        accounts = ["--all"] if self.account is None else ["--accounts", self.account]
        # The same for all tries of a task, and another one for the next run of the DAG.
        label = f"{context['ti'].dag_id} {context['run_id']}"
        command = [PROGRAM, *self.arguments, *accounts, "--json", "--run-label", label]
        self.log.info("%s", command)
        with tempfile.TemporaryFile("w+") as printed:
            self.process = subprocess.Popen(
                command,
                env={"ETL_LOG_FORMAT": "text", **os.environ},
                stdin=subprocess.DEVNULL,
                stdout=printed,
                stderr=subprocess.PIPE,
                text=True,
                # Airflow signals the process group of the task: once is enough (on_kill).
                start_new_session=True,
            )
            try:
                for line in self.process.stderr or ():
                    self.log.info("%s", line.rstrip())
                code = self.process.wait()
            except BaseException:  # the execution_timeout, for one
                self._stop()
                raise
            printed.seek(0)
            summary = json.loads(printed.read() or "{}")
        return self._ended(code, summary)

    def on_kill(self) -> None:
        """Ask the program to stop: it closes its row in the ledger, and ``execute`` goes on."""
        if self.process is not None and self.process.poll() is None:
            self.process.terminate()

    def _stop(self) -> None:
        if self.process is not None:
            self.process.terminate()
            try:
                self.process.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                self.process.kill()

    def _ended(self, code: int, summary: dict[str, Any]) -> dict[str, Any]:
        if code == 0:
            return summary
        message = f"exit code {code}: {summary.get('error_message', 'see the log above')}"
        codes = {account["exit_code"] for account in summary.get("accounts", [])} or {code}
        if self.skip_if_held and codes <= {0, HELD}:
            raise AirflowSkipException(message)
        if code in RETRYABLE | INTERRUPTED or code < 0:
            raise AirflowException(message)
        raise AirflowFailException(message)  # no retry mends it: a setting, a secret, the audit


@task(retries=0)
def accounts(params: dict[str, Any] | None = None) -> list[str]:
    """The names in accounts.toml, or those that were given to this run of the DAG."""
    path = Path(os.environ.get("ETL_ACCOUNTS", "accounts.toml"))
    known = list(tomllib.loads(path.read_text(encoding="utf-8"))["accounts"])
    return (params or {}).get("accounts") or known


@task
def figures(summaries: Any) -> dict[str, Any]:
    """What the mapped tasks have done, by account: one XCom for alerts and reports."""
    names = ("run_id", "published_at", "inserted", "changed", "absent", "requests")
    done = [account for summary in summaries for account in summary["accounts"]]
    return {account["name"]: {name: account.get(name) for name in names} for account in done}


@task.sensor(
    mode="reschedule", poke_interval=timedelta(minutes=5), timeout=timedelta(hours=8), retries=0
)
def fresh(max_age: str) -> bool:
    """Wait until every account has a complete run that is not older than ``max_age``."""
    command = [PROGRAM, "status", "--all", "--max-age", max_age, "--quiet"]
    done = subprocess.run(command, stdin=subprocess.DEVNULL, check=False)
    if done.returncode not in {0, STALE} | RETRYABLE:
        raise AirflowFailException(f"status: exit code {done.returncode}, see the log above")
    return done.returncode == 0


def last_second(exclusive_end: str) -> str:
    """The end of one of Airflow's intervals, as ``--to`` wants it.

    An interval of Airflow ends before its end; ``--to`` is inclusive, and createdAt has whole
    seconds.
    """
    return (datetime.fromisoformat(exclusive_end) - timedelta(seconds=1)).isoformat()


@dag(schedule="30 2 * * *", max_active_runs=1, params=CHOSEN, **DAYS)
def kaltura_nightly() -> None:
    # --wait: a killed try may leave a process that is still at work, and a backfill may be.
    synced = KalturaEtl.partial(
        task_id="sync",
        arguments=["sync", "--wait", "30m"],
        max_active_tis_per_dag=4,
        map_index_template="{{ task.account }}",
        **RUN,
    ).expand(account=accounts())
    figures.override(outlets=[UPLOAD_TOKENS])(synced.output)


@dag(schedule="*/15 * * * *", max_active_runs=1, **DAYS)
def kaltura_incremental() -> None:
    # While the nightly run is at work there is nothing to do: the next one starts soon.
    KalturaEtl(
        task_id="sync",
        arguments=["sync", "--mode", "incremental"],
        skip_if_held=True,
        retries=1,
        execution_timeout=timedelta(hours=1),
    )


@dag(
    schedule=None,
    params={
        "interval_start": Param(type="string", format="date-time", title="From (inclusive)"),
        "interval_end": Param(type="string", format="date-time", title="Until (exclusive)"),
        **CHOSEN,
    },
    user_defined_filters={"last_second": last_second},
    **DAYS,
)
def kaltura_backfill() -> None:
    KalturaEtl.partial(
        task_id="backfill",
        arguments=[
            *("backfill", "--wait", "2h"),  # for a nightly run that is at work
            *("--from", "{{ params.interval_start }}"),
            *("--to", "{{ params.interval_end | last_second }}"),
        ],
        map_index_template="{{ task.account }}",
        **RUN,
    ).expand(account=accounts())


@dag(schedule=[UPLOAD_TOKENS], **DAYS)
def kaltura_marts() -> None:
    """Started by kaltura_nightly, by hand, or by a clock (then ``fresh`` waits for the night)."""

    @task
    def build() -> None:
        """Yours: dbt, a report, an export."""

    fresh("30h") >> build()


kaltura_nightly()
kaltura_incremental()
kaltura_backfill()
kaltura_marts()
