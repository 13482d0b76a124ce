"""Every setting does something: each has a test in which a run differs by it alone."""

from __future__ import annotations

import ast
import threading
import time
from collections.abc import Iterator
from functools import cache
from itertools import pairwise
from pathlib import Path
from types import TracebackType

import pytest

from etl.errors import ConfigurationError, CredentialsRefused, LeaseHeld, ServiceUnavailable
from etl.kaltura.request_rate import RequestRate
from etl.settings.table import SETTINGS
from etl.simulator import SimulatorServer, generate_account
from etl.simulator.client import SimulatorClient
from tests.support.job import Job, requests_of
from tests.support.nights import MakeNights
from tests.support.refusals import break_half_way, let_hours_pass
from tests.support.wire import Authority

TESTS = Path(__file__).resolve().parents[1]
HERE = "integration/test_setting_effects.py"
TOKENS = 240

EFFECTS = {
    "KALTURA_SERVICE_URL": f"{HERE}::test_the_address_is_where_it_reads",
    "KALTURA_PARTNER_ID": f"{HERE}::test_the_account_is_the_one_that_is_asked_for",
    "KALTURA_APP_TOKEN_ID": f"{HERE}::test_an_app_token_opens_the_session",
    "KALTURA_APP_TOKEN": f"{HERE}::test_an_app_token_opens_the_session",
    "KALTURA_APP_TOKEN_HASH": f"{HERE}::test_a_known_hash_type_saves_the_trials",
    "KALTURA_ADMIN_SECRET": f"{HERE}::test_an_admin_secret_opens_the_session",
    "KALTURA_KS": f"{HERE}::test_a_ready_session_is_used_as_it_is",
    "DATABASE_URL": f"{HERE}::test_the_warehouse_is_where_it_writes",
    "ETL_EMBEDDED": ("cli/test_embedded_setting.py::test_no_command_uses_it_unasked"),
    "ETL_SCHEMA": f"{HERE}::test_the_schema_is_where_it_writes",
    "ETL_DATA_DIR": ("cli/test_psql.py::test_it_opens_the_embedded_postgres_of_the_variable_file"),
    "ETL_CONCURRENCY": f"{HERE}::test_as_many_requests_are_in_flight_as_allowed",
    "ETL_ACCOUNTS": (
        "cli/test_accounts.py::test_status_fails_for_an_account_that_is_old_or_was_never_read"
    ),
    "ETL_ACCOUNTS_AT_ONCE": (
        "cli/test_accounts.py::"
        "test_a_stop_ends_all_accounts_with_true_ledgers_and_the_next_call_goes_on"
    ),
    "ETL_PAGE_SIZE": f"{HERE}::test_a_page_has_as_many_tokens_as_set",
    "ETL_REQUESTS_PER_SECOND": f"{HERE}::test_as_many_requests_begin_per_second_as_set",
    "ETL_REQUEST_TIMEOUT_SECONDS": f"{HERE}::test_a_request_without_an_answer_ends_in_time",
    "ETL_RETRY_ATTEMPTS": (
        "integration/modes/test_outages.py::test_the_attempts_of_the_settings_are_made_and_told"
    ),
    "ETL_RETRY_TOTAL_SECONDS": f"{HERE}::test_no_attempt_is_later_than_the_total",
    "ETL_USE_ENVIRONMENT_PROXIES": f"{HERE}::test_a_proxy_is_used_if_that_is_set",
    "ETL_CA_FILE": f"{HERE}::test_an_authority_is_trusted_if_it_is_set",
    "ETL_LEASE_SECONDS": f"{HERE}::test_a_silent_run_is_taken_over_after_its_lease",
    "ETL_RESUME_WINDOW": f"{HERE}::test_a_failed_run_is_resumed_within_the_window",
    "ETL_PUBLISH_AGE_MAX": (
        "integration/load/test_refused_runs.py::test_a_walk_that_takes_too_long_is_refused"
    ),
    "ETL_ABSENCE_GRACE": f"{HERE}::test_a_young_token_is_absent_after_the_grace",
    "ETL_MAX_UNREADABLE": (
        "integration/modes/test_sync_refusals.py::test_eleven_unreadable_rows_are_too_many"
    ),
    "ETL_KEEP_PAGES_DAYS": f"{HERE}::test_pages_are_kept_for_as_long_as_set",
    "ETL_ERASURE_KEY": (
        "integration/privacy/test_erase_key.py::test_the_setting_must_be_the_key_that_is_kept"
    ),
    "ETL_ARCHIVE": f"{HERE}::test_replies_are_kept_where_the_archive_is",
    "ETL_LAKE": (
        "export/test_export_command.py::"
        "test_an_erasure_that_cannot_reach_the_delta_tables_is_not_begun"
    ),
    "ETL_METRICS_FILE": (
        "cli/test_metrics.py::test_every_exit_is_told_and_what_cannot_be_asked_is_kept"
    ),
    "ETL_NOTIFY_URL": "cli/test_notify.py::test_runs_that_fail_or_are_refused_are_told",
    "ETL_NOTIFY": "cli/test_notify.py::test_every_run_is_told_if_that_is_set",
    "ETL_LOG_LEVEL": f"{HERE}::test_the_log_begins_at_its_level",
    "ETL_LOG_FORMAT": "cli/test_program.py::test_a_wrong_call_gets_one_line_and_its_exit_code",
}
"""The test of each setting's effect; what the other tests of a setting are about is not told."""


@pytest.mark.parametrize("name", [each.name for each in SETTINGS.values()])
def test_every_setting_has_a_test_of_its_effect(name: str) -> None:
    assert name in EFFECTS, "write a test in which a run differs by it alone"
    file, _, function = EFFECTS[name].partition("::")
    assert f'"{name}"' in source_of(file, function) or f"{name}=" in source_of(file, function)


def test_no_effect_is_told_of_a_setting_that_is_gone() -> None:
    assert list(EFFECTS) == [each.name for each in SETTINGS.values()]


def source_of(file: str, function: str) -> str:
    """The source of a test; raises if there is none of that name."""
    return functions_of(TESTS / file)[function]


@cache
def functions_of(path: Path) -> dict[str, str]:
    text = path.read_text(encoding="utf-8")
    return {
        node.name: "".join(
            ast.get_source_segment(text, part) or "" for part in (*node.decorator_list, node)
        )
        for node in ast.parse(text).body
        if isinstance(node, ast.FunctionDef)
    }


@pytest.fixture
def server() -> Iterator[SimulatorServer]:
    with SimulatorServer(generate_account(TOKENS, seed=11)) as running:
        yield running


@pytest.fixture
def job(server: SimulatorServer, database_url: str) -> Job:
    return Job.of(server, database_url, ETL_ABSENCE_GRACE="0s")


# --- who is asked, and by whom ------------------------------------------------------------------


def test_the_address_is_where_it_reads(server: SimulatorServer, job: Job) -> None:
    with SimulatorServer(generate_account(30, seed=3)) as other:
        assert job.run(KALTURA_SERVICE_URL=f"{other.url}/api_v3/index.php").inserted == 30
    assert len(server.service.log) == 0


def test_the_account_is_the_one_that_is_asked_for(database_url: str) -> None:
    with SimulatorServer(generate_account(30, seed=3, partner_id=103)) as server:
        job = Job.of(server, database_url)
        with pytest.raises(CredentialsRefused):
            job.run(KALTURA_PARTNER_ID="102")
        assert job.run(KALTURA_PARTNER_ID="103").partner_id == 103


def app_token(server: SimulatorServer) -> dict[str, str]:
    with SimulatorClient(server.url) as client:
        made = client.call(
            "appToken",
            "add",
            ks=client.start_session(server.settings()["admin_secret"]),
            appToken={"hashType": "SHA512", "sessionType": 2, "sessionUserId": "kaltura-etl"},
        )
    return {
        "KALTURA_ADMIN_SECRET": "",
        "KALTURA_APP_TOKEN_ID": made["id"],
        "KALTURA_APP_TOKEN": made["token"],
    }


def logins(server: SimulatorServer) -> int:
    return sum(record.service.lower() == "apptoken" for record in server.service.log)


def test_an_app_token_opens_the_session(server: SimulatorServer, job: Job) -> None:
    own = app_token(server)
    with pytest.raises(CredentialsRefused):
        job.run(options=None, **own | {"KALTURA_APP_TOKEN": "0" * 32})
    with pytest.raises(CredentialsRefused):
        job.run(options=None, **own | {"KALTURA_APP_TOKEN_ID": "0_nothing"})
    assert job.run(options=None, **own).inserted == TOKENS


def test_a_known_hash_type_saves_the_trials(server: SimulatorServer, job: Job) -> None:
    own, tried = app_token(server), logins(server)
    job.run(options=None, **own)
    assert logins(server) - tried == 3  # SHA1, SHA256, SHA512
    tried = logins(server)
    job.run(options=None, **own, KALTURA_APP_TOKEN_HASH="SHA512")
    assert logins(server) - tried == 1


def test_an_admin_secret_opens_the_session(job: Job) -> None:
    with pytest.raises(CredentialsRefused):
        job.run(KALTURA_ADMIN_SECRET="0" * 32)
    assert job.run(KALTURA_ADMIN_SECRET=job.admin_secret).inserted == TOKENS


def test_a_ready_session_is_used_as_it_is(server: SimulatorServer, job: Job) -> None:
    with SimulatorClient(server.url) as client:
        ks = client.start_session(job.admin_secret)
        assert job.run(KALTURA_ADMIN_SECRET="", KALTURA_KS=ks).inserted == TOKENS
        client.call("session", "end", ks=ks)
    with pytest.raises(CredentialsRefused, match="KALTURA_KS"):
        job.run(KALTURA_ADMIN_SECRET="", KALTURA_KS=ks)


# --- where it writes ----------------------------------------------------------------------------


def test_the_warehouse_is_where_it_writes(job: Job, empty_database_url: str) -> None:
    with pytest.raises(ConfigurationError, match="migrate"):
        job.run(DATABASE_URL=empty_database_url)
    assert job.runs() == []
    job.run(DATABASE_URL=job.database_url)
    assert len(job.runs()) == 1


def test_the_schema_is_where_it_writes(job: Job) -> None:
    job.query("alter schema kaltura rename to elsewhere")
    with pytest.raises(ConfigurationError, match="kaltura"):
        job.run()
    report = job.run(ETL_SCHEMA="elsewhere")
    assert job.query("select run_id from elsewhere.sync_run") == [{"run_id": report.run_id}]


def test_replies_are_kept_where_the_archive_is(job: Job, tmp_path: Path) -> None:
    job.run()
    assert list(tmp_path.iterdir()) == []
    job.run(ETL_ARCHIVE=str(tmp_path / "kept"))
    assert list(tmp_path.glob("kept/partner-102/run-*/manifest.json")) != []


def test_pages_are_kept_for_as_long_as_set(job: Job) -> None:
    first = job.run().run_id
    let_hours_pass(job, 72)
    kept = "select count(*)::int as n from kaltura.sync_page where run_id = %s"
    job.run(ETL_KEEP_PAGES_DAYS="4")
    assert job.query(kept, first)[0]["n"] > 0
    job.run(ETL_KEEP_PAGES_DAYS="2")
    assert job.query(kept, first)[0]["n"] == 0


# --- how it asks --------------------------------------------------------------------------------


class Gauge:
    """Counts requests in flight: each is held a moment, or until there are more than allowed."""

    def __init__(self, allowed: int) -> None:
        self._allowed = allowed
        self._changed = threading.Condition()
        self._now = 0
        self.most = 0

    def __enter__(self) -> None:
        with self._changed:
            self._now += 1
            self.most = max(self.most, self._now)
            self._changed.notify_all()
            self._changed.wait_for(lambda: self.most > self._allowed, 0.1)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        with self._changed:
            self._now -= 1


def test_as_many_requests_are_in_flight_as_allowed(
    server: SimulatorServer, job: Job, monkeypatch: pytest.MonkeyPatch
) -> None:
    gauge = Gauge(allowed=3)
    monkeypatch.setattr(server.service, "workers", gauge)
    job.run(ETL_CONCURRENCY="3", ETL_PAGE_SIZE="40")
    assert gauge.most == 3


def test_as_many_requests_begin_per_second_as_set(
    server: SimulatorServer, job: Job, monkeypatch: pytest.MonkeyPatch
) -> None:
    turns: list[float] = []
    take_turn = RequestRate.take_turn

    def taken(rate: RequestRate, now: float) -> float:
        turns.append(take_turn(rate, now))
        return turns[-1]

    monkeypatch.setattr(RequestRate, "take_turn", taken)
    job.run(ETL_PAGE_SIZE="12")
    assert turns == []
    sent = len(server.service.log)
    job.run(ETL_PAGE_SIZE="12", ETL_REQUESTS_PER_SECOND="250")
    assert len(turns) == len(server.service.log) - sent >= TOKENS / 12
    turns.sort()
    assert all(one - other >= 0.99 / 250 for other, one in pairwise(turns))


def test_a_page_has_as_many_tokens_as_set(server: SimulatorServer, job: Job) -> None:
    job.run(ETL_PAGE_SIZE="50")
    assert max(record.page_size or 0 for record in server.service.log) == 50
    assert requests_of(server) >= TOKENS / 50


def test_a_request_without_an_answer_ends_in_time(server: SimulatorServer, job: Job) -> None:
    server.faults.schedule("no-answer", where="list")
    once = {"ETL_RETRY_ATTEMPTS": "1"}
    with pytest.raises(ServiceUnavailable, match=r"no complete reply .* within 1 s"):
        job.run(options=None, **once, ETL_REQUEST_TIMEOUT_SECONDS="1")


@pytest.mark.parametrize("total", [20, 50])
def test_no_attempt_is_later_than_the_total(server: SimulatorServer, job: Job, total: int) -> None:
    server.faults.schedule("429", where="list", retry_after=100)
    with pytest.raises(ServiceUnavailable, match=f"would be later than {total} s"):
        job.run(ETL_RETRY_TOTAL_SECONDS=str(total))
    assert requests_of(server) <= 4  # those that were in flight


def test_a_proxy_is_used_if_that_is_set(
    server: SimulatorServer, job: Job, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    assert job.run().inserted == TOKENS
    sent = len(server.service.log)
    with pytest.raises(ServiceUnavailable):
        job.run(ETL_USE_ENVIRONMENT_PROXIES="yes", ETL_RETRY_ATTEMPTS="1")
    assert len(server.service.log) == sent


def test_an_authority_is_trusted_if_it_is_set(database_url: str, tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    with SimulatorServer(generate_account(30, seed=3), tls=authority.context()) as server:
        job = Job.of(server, database_url)
        with pytest.raises(ConfigurationError, match="certificate"):
            job.run()
        assert job.run(ETL_CA_FILE=str(authority.file)).inserted == 30


# --- what may be published ----------------------------------------------------------------------


def test_a_silent_run_is_taken_over_after_its_lease(job: Job, make_nights: MakeNights) -> None:
    silent = make_nights(small=True).open().run_id
    job.query(
        "update kaltura.sync_run set host = 'elsewhere', "
        "heartbeat_at = now() - interval '60 seconds'"
    )
    with pytest.raises(LeaseHeld):
        job.run(ETL_LEASE_SECONDS="2m")
    job.run(ETL_LEASE_SECONDS="30")
    assert [run["status"] for run in job.runs() if run["run_id"] == silent] == ["abandoned"]


@pytest.mark.parametrize(("window", "resumed"), [("2h", False), ("4h", True)])
def test_a_failed_run_is_resumed_within_the_window(
    server: SimulatorServer, job: Job, window: str, resumed: bool
) -> None:
    job.variables["ETL_PAGE_SIZE"] = "12"
    broken = break_half_way(server, job)
    let_hours_pass(job, 3)
    assert job.run(ETL_RESUME_WINDOW=window).resumed_from == (broken if resumed else None)


def test_a_young_token_is_absent_after_the_grace(server: SimulatorServer, job: Job) -> None:
    an_hour_ago = int(time.time()) - 3_600
    for number in range(3):
        server.account.insert({"id": f"young{number}", "createdAt": an_hour_ago + number})
    job.run()
    server.account.delete("young1")
    assert job.run(ETL_ABSENCE_GRACE="2h").absent == 0
    assert job.run(ETL_ABSENCE_GRACE="30m").absent == 1


# --- what it tells ------------------------------------------------------------------------------


def test_the_log_begins_at_its_level(job: Job) -> None:
    done = job.call("--dry-run", ETL_LOG_LEVEL="WARNING")  # without it, "run opened" is there
    assert (done.code, done.err) == (0, "")
