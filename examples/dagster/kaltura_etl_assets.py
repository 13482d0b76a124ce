"""Kaltura's upload tokens as an asset of Dagster: a partition per account, a check of freshness.

    upload_token            the history of an account; its metadata are the figures of the run
    upload_token_is_fresh   whether every account has a complete run that is recent enough

The process that runs Dagster's steps needs

    SYNC_PROGRAM   path of the program; without it, ``kaltura-etl`` on PATH
    VARIABLE_FILE  its settings and secrets, a file that only the process's user may read
    ETL_ACCOUNTS   path of accounts.toml, the list of the accounts

Try it: ``dagster dev -f kaltura_etl_assets.py``.
"""

import json
import os
import subprocess
import tempfile
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dagster as dg

PROGRAM = os.environ.get("SYNC_PROGRAM", "kaltura-etl")
RETRYABLE = {69, 74, 75}
"""The service failed, the warehouse failed, another run is at work: a later try may succeed."""
INTERRUPTED = {129, 130, 143}
"""Stopped by a signal: the next try resumes.  Of a killed process Python says -9."""
STALE = 79
STOP_SECONDS = 60
SHOWN = ("run_id", "published_at", "tokens_read", "inserted", "changed", "absent", "requests")


def account_names() -> list[str]:
    path = Path(os.environ.get("ETL_ACCOUNTS", "accounts.toml"))
    return list(tomllib.loads(path.read_text(encoding="utf-8"))["accounts"])


ACCOUNTS = dg.StaticPartitionsDefinition(account_names())


class Sync(dg.Config):
    """What a run may be given in the launchpad."""

    mode: str = "full"
    """``full``: the proof that nothing is missing.  ``incremental``: what is new or open."""
    retries: int = 4
    retry_seconds: float = 300
    """The pause before the first retry; each further one is twice as long."""


@dg.asset(
    key_prefix="kaltura",
    partitions_def=ACCOUNTS,
    group_name="kaltura",
    kinds={"postgres"},
    metadata={"table": "kaltura.upload_token", "history": "kaltura.upload_token_history"},
)
def upload_token(context: dg.AssetExecutionContext, config: Sync) -> dg.MaterializeResult:
    """Every upload token that Kaltura ever listed, and its history.

    One row per token, in its latest known version; `upload_token_history` has all versions.  Each
    column has a comment in the database.  After a full run it is proven that nothing is missing:
    `sync_run.coverage` is the certificate.
    """
    # The same for all tries of a run: a retry leaves out what is done.
    label = f"dagster {context.run_id}"
    arguments = ["sync", "--mode", config.mode, "--accounts", context.partition_key]
    code, summary = _call(context, [*arguments, "--wait", "30m", "--json", "--run-label", label])
    if code == 0:
        (account,) = summary["accounts"]
        shown = {name: account[name] for name in SHOWN if account.get(name) is not None}
        return dg.MaterializeResult(metadata=shown)
    message = f"exit code {code}: {summary.get('error_message', 'see the log above')}"
    if (code in RETRYABLE | INTERRUPTED or code < 0) and config.retries:
        pause = config.retry_seconds * 2**context.retry_number
        raise dg.RetryRequested(config.retries, pause) from RuntimeError(message)
    # No retry mends it: a setting, a secret, the audit.
    raise dg.Failure(message, allow_retries=False)


@dg.asset_check(asset=upload_token, blocking=True)
def upload_token_is_fresh() -> dg.AssetCheckResult:
    """Every account has a complete run of the last 30 hours."""
    done = subprocess.run(
        [PROGRAM, "status", "--all", "--max-age", "30h", "--json", "--quiet"],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        text=True,
        check=False,
    )
    if done.returncode not in (0, STALE):
        raise dg.Failure(f"status: exit code {done.returncode}", allow_retries=True)
    accounts = json.loads(done.stdout)["accounts"]
    hours = {str(each["name"]): each["complete_age_hours"] for each in accounts}
    return dg.AssetCheckResult(passed=done.returncode == 0, metadata={"hours": hours})


def _call(context: dg.AssetExecutionContext, arguments: list[str]) -> tuple[int, dict[str, Any]]:
    """The exit code, and the object that the command prints; its log goes to Dagster's."""
    with tempfile.TemporaryFile("w+") as printed:
        process = subprocess.Popen(
            [PROGRAM, *arguments],
            env={"ETL_LOG_FORMAT": "text", **os.environ},
            stdin=subprocess.DEVNULL,
            stdout=printed,
            stderr=subprocess.PIPE,
            text=True,
        )
        try:
            for line in process.stderr or ():
                context.log.info(line.rstrip())
            code = process.wait()
        except (
            BaseException
        ):  # Dagster terminates the run: the program closes its row in the ledger
            process.terminate()
            try:
                process.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()
            raise
        printed.seek(0)
        return code, json.loads(printed.read() or "{}")


nightly = dg.define_asset_job("kaltura_nightly", selection=[upload_token])


@dg.schedule(job=nightly, cron_schedule="30 2 * * *", execution_timezone="UTC")
def every_night() -> Iterator[dg.RunRequest]:
    for account in ACCOUNTS.get_partition_keys():
        yield dg.RunRequest(partition_key=account)


definitions = dg.Definitions(
    assets=[upload_token],
    asset_checks=[upload_token_is_fresh],
    jobs=[nightly],
    schedules=[every_night],
)
