"""A notice tells how a run ended, and never changes it."""

from __future__ import annotations

import json
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from etl import notify
from etl.cli.run_ended import FIGURES
from etl.process.secrets import Scrubber
from etl.settings.values import notify_secrets
from etl.simulator import SimulatorServer, generate_account
from etl.warehouse.ledger.lease import open_run
from etl.warehouse.schema.database import open_database
from tests.support.calls import call_each
from tests.support.job import Ended, Job, ended, held_after, killed_at_exit, wait_until
from tests.support.tenants import tenants
from tests.support.webhook import TOKEN, Webhook, webhook


@pytest.fixture
def hook() -> Iterator[Webhook]:
    with webhook() as running:
        yield running


@pytest.fixture
def server() -> Iterator[SimulatorServer]:
    with SimulatorServer(generate_account(60, seed=4)) as running:
        yield running


@pytest.fixture
def job(server: SimulatorServer, database_url: str) -> Job:
    return Job.of(server, database_url, ETL_RETRY_ATTEMPTS="1")


def tells_no_secret(job: Job, done: list[Ended], hook: Webhook) -> bool:
    told = "".join([json.dumps(hook.got), *(each.out + each.err for each in done)])
    return not any(secret in told for secret in (job.admin_secret, TOKEN, TOKEN[-24:]))


def test_runs_that_fail_or_are_refused_are_told(
    job: Job, hook: Webhook, server: SimulatorServer, clean_environment: dict[str, str]
) -> None:
    server.configure(poison=[list(server.account.line)[30].id])
    nowhere = ("--service-url", "http://127.0.0.1:9")
    calls = [
        ["sync"],
        ["sync", "--max-unreadable", "0", "--run-label", "night <1>"],
        ["sync", *nowhere],
        # It never opened.
        ["sync", "--page-size", "0"],
        ["backfill", "--nonsense"],
        ["status", "--nonsense"],
    ]
    variables = job.environment(ETL_NOTIFY_URL=hook.url)
    done = call_each(clean_environment | variables, [[*call, "--json"] for call in calls])
    with open_database(job.database_url, "kaltura") as database:
        open_run(database, partner_id=102, mode="full", lease_seconds=900, resume_window=None)
    done += call_each(clean_environment | variables, [["sync", "--json"]])

    assert [each.code for each in done] == [0, 65, 69, 2, 2, 2, 75]
    told = [(each["status"], each["exit_code"], each["mode"]) for each in hook.got]
    assert told == [
        ("refused", 65, "full"),
        ("failed", 69, "full"),
        ("failed", 2, "full"),
        ("failed", 2, "backfill"),
    ]
    assert hook.paths == [f"/services/{TOKEN}?thread=a%20b"] * 4
    assert hook.headers[0]["Content-Type"].startswith("application/json")
    for each, call in zip(hook.got, done[1:], strict=False):
        assert each.keys() >= {*FIGURES, "text", "partner_id", "warehouse", "retryable"}
        for name in ("run_id", "partner_id", "warehouse", "error_kind", "reason", "retryable"):
            assert each[name] == call.report[name]
        assert each["message"] == call.report["error_message"]
    first, *rest = hook.texts[0].splitlines()
    assert first == (
        "kaltura-etl: the full run of account 102 (night &lt;1&gt;) was refused "
        "(exit code 65, unreadable)"
    )
    assert rest == [hook.got[0]["message"]]
    assert hook.texts[1].startswith("kaltura-etl: the full run of account 102 failed (exit code 69")
    assert tells_no_secret(job, done, hook)


def test_every_run_is_told_if_that_is_set(
    job: Job, hook: Webhook, clean_environment: dict[str, str]
) -> None:
    """Also by options; and a notice that cannot be posted changes nothing."""
    environment = clean_environment | job.environment()
    always = ["--notify", "always"]
    done = call_each(
        environment | {"ETL_NOTIFY_URL": hook.url, "ETL_NOTIFY": "always"},
        [["sync"], ["sync", "--dry-run"]],
    )
    done += call_each(
        environment,
        [
            ["sync", "--notify-url", hook.url, *always, "--wait", "x"],
            ["sync", "--notify-url", f"http://127.0.0.1:9/services/{TOKEN}", *always],
        ],
    )

    assert [each.code for each in done] == [0, 0, 2, 0]
    assert hook.texts == [
        "kaltura-etl: the full run of account 102 succeeded\n"
        "60 tokens read: 60 new, 0 changed, 0 absent.",
        "kaltura-etl: the full run of account 102 ended (dry run)\n"
        "60 tokens read: 0 new, 0 changed, 0 absent.",
        f"kaltura-etl: the full run of account 102 failed (exit code 2)\n{hook.got[2]['message']}",
    ]
    *_, warning, last = [json.loads(line) for line in done[-1].err.splitlines()]
    assert (last["event"], last["exit_code"]) == ("run ended", 0)
    assert warning["event"] == "the notice could not be posted"
    assert "Connection refused" in warning["reason"]
    assert tells_no_secret(job, done, hook)


def test_a_run_that_is_stopped_is_told(
    job: Job, hook: Webhook, server: SimulatorServer, tmp_path: Path
) -> None:
    """By a notice, and by the metrics."""
    file = tmp_path / "kaltura.prom"
    variables = {"ETL_NOTIFY_URL": hook.url, "ETL_METRICS_FILE": str(file)}
    with held_after(server, 0), killed_at_exit(job.start(**variables)) as process:
        wait_until(lambda: any(run["walk_id"] for run in job.runs()), 60)
        process.send_signal(signal.SIGTERM)
        done = ended(process)

    assert done.code == 143
    assert [(each["status"], each["error_kind"]) for each in hook.got] == [
        ("failed", "interrupted")
    ]
    assert 'last_exit_code{mode="full",partner_id="102"} 143.0' in file.read_text()
    event = json.loads(done.err.splitlines()[-1])
    for name in ("duration_seconds", "stage_seconds", "requests"):
        assert hook.got[0][name] == event[name]


@pytest.mark.parametrize(
    ("which", "status", "accounts", "wanted"),
    [
        ("failures", "succeeded", {}, False),
        ("failures", "dry_run", {}, False),
        ("failures", "skipped", {}, False),
        ("failures", "refused", {}, True),
        ("failures", "failed", {}, True),
        ("always", "skipped", {}, True),
        ("always", "succeeded", {"succeeded": 0}, True),
        ("failures", "succeeded", {"succeeded": 0}, False),
        ("failures", "skipped", {"succeeded": 0, "skipped": 75}, False),
        ("failures", "skipped", {"refused": 65, "skipped": 75}, True),
        # A bug after all accounts have ended.
        ("failures", "failed", {"succeeded": 0}, True),
    ],
)
def test_which_runs_are_told(
    which: str, status: str, accounts: dict[str, int], wanted: bool
) -> None:
    ends = [{"status": state, "exit_code": code} for state, code in accounts.items()]

    assert notify.is_wanted(which, {"status": status}, ends) == wanted


def test_an_address_without_a_path_is_posted_to(hook: Webhook) -> None:
    for url in (hook.address, f"{hook.address}?key=a/b"):
        notify.post_notice(url, {"text": "it failed"}, use_environment_proxies=False)

    assert hook.paths == ["/", "/?key=a/b"]


def test_a_job_of_many_accounts_posts_one_notice(
    database_url: str, clean_environment: dict[str, str], tmp_path: Path, hook: Webhook
) -> None:
    with tenants(3, database_url, tmp_path) as many:
        many.faults = {1_002: "foreign-partner"}
        variables = many.environment(SECRET_a03="", ETL_NOTIFY_URL=hook.url)
        calls = [["sync", "--all"], *(["sync", "--accounts", name] for name in ("a01", "a02"))]
        done = call_each(clean_environment | variables, calls)
        many.file.write_text("[accounts.a01]\n")
        done += call_each(clean_environment | variables, calls[:1])

    assert [each.code for each in done] == [65, 0, 65, 78]
    job, one, broken = hook.got
    assert (job["exit_code"], job["accounts_total"]) == (65, 3)
    told = [(each["name"], each["status"], each["exit_code"]) for each in job["accounts"]]
    assert sorted(told) == [("a02", "refused", 65), ("a03", "failed", 78)]
    first, second, *others = job["text"].splitlines()
    assert first.startswith("kaltura-etl: the full run of 3 accounts failed (exit code 65")
    assert second.startswith("2 of 3 accounts failed: a02 (refused), a03 (configuration)")
    assert sorted(line[:30] for line in others) == [
        "a02 (account 1002): refused, e",
        "a03 (account 1003): failed, ex",
    ]
    assert one["text"].startswith("kaltura-etl: the full run of 1 account failed (exit code 65")
    assert one["message"].startswith("1 of 1 account failed: a02 (refused)")
    assert broken["text"].startswith("kaltura-etl: a full run failed (exit code 78)\n")
    assert "partner_id is missing" in broken["text"]


@pytest.mark.parametrize(
    ("statuses", "asked", "reason"),
    [
        ([], 1, None),
        ([204], 1, None),
        ([500], 2, None),
        ([429, 503], 2, "HTTP 503"),
        ([404], 1, "HTTP 404"),
        ([302], 1, "HTTP 302"),
        ([0], 2, None),
        ([0, 0], 2, "no answer in time"),
    ],
)
def test_a_notice_is_posted_again_once_if_that_may_help(
    statuses: list[int],
    asked: int,
    reason: str | None,
    hook: Webhook,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(notify, "ATTEMPT_SECONDS", 0.2 if 0 in statuses else 3.0)
    hook.statuses = list(statuses)
    failure = None
    try:
        notify.post_notice(hook.url, {"text": "it failed"}, use_environment_proxies=False)
    except notify.NotPosted as error:
        failure = error

    assert hook.got == [{"text": "it failed"}] * asked
    assert set(hook.paths) == {f"/services/{TOKEN}?thread=a%20b"}  # a redirect is not followed
    assert (failure is None) == (reason is None)
    if reason is not None:
        assert reason in str(failure)
        assert TOKEN not in str(failure)


def test_the_address_is_shown_nowhere_and_check_posts_nothing(
    job: Job, hook: Webhook, clean_environment: dict[str, str]
) -> None:
    environment = clean_environment | job.environment()
    bad = f"http://hooks.example/services/{TOKEN}"
    done = [
        *call_each(environment | {"ETL_NOTIFY_URL": hook.url}, [["check"], ["check", "--json"]]),
        *call_each(
            environment | {"ETL_NOTIFY_URL": bad},
            [["check", "--json"], ["sync"], ["sync", "--json", "--notify-url", bad]],
        ),
    ]

    assert [each.code for each in done] == [0, 0, 78, 78, 2]
    settings = {row["name"]: row for row in done[1].report["settings"]}
    assert settings["ETL_NOTIFY_URL"]["value"] == "***"
    parts = {row["part"]: row for row in done[1].report["parts"]}
    assert parts["notices"]["state"] == "ok"
    assert "set and valid" in parts["notices"]["detail"]
    assert "must begin with https://" in done[2].report["error_message"]
    assert hook.got == []
    assert tells_no_secret(job, done, hook)


@pytest.mark.parametrize(
    "shown",
    [
        f"https://hooks.slack.com/services/{TOKEN}",
        f"POST /services/{TOKEN} failed",
        f"'{TOKEN[-24:]}' is not known",
    ],
)
def test_no_part_of_the_address_gets_into_a_text(shown: str) -> None:
    scrub = Scrubber(notify_secrets(f"https://hooks.slack.com/services/{TOKEN}"))

    assert TOKEN[-24:] not in scrub(shown)
    assert scrub("the services of hooks.slack.com") == "the services of hooks.slack.com"
