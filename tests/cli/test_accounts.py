"""Many accounts in one call: each on its own, however the others end."""

from __future__ import annotations

import json
import resource
import signal
from pathlib import Path
from typing import Any

import psycopg
import pytest
from prometheus_client.parser import text_string_to_metric_families

from etl.cli.accounts import exit_code_of_job, one_name_each
from etl.verify.checks import verify
from etl.warehouse.schema.revision import migrate
from tests.support.calls import call_each
from tests.support.corruptions import build_healthy
from tests.support.job import Ended, ended, killed_at_exit, tell, wait_until
from tests.support.json_reference import contradictions, fields_of
from tests.support.tenants import Tenants, secret, tenants

JOB = ("sync", "--all", "--json", "--run-label", "night 1")


def _rows(call: Ended) -> dict[str, dict[str, Any]]:
    return {row["name"]: row for row in call.report["accounts"]}


def _contradictions(row: dict[str, Any]) -> list[str]:
    """Where an account's row is not what ``sync`` prints of one account."""
    has_result = row["exit_code"] == 0 and not row["done_before"]
    row = {key: value for key, value in row.items() if key not in ("name", "done_before")}
    fields = fields_of("sync" if has_result else "", failed=row["exit_code"] != 0)
    return contradictions(row, fields, set())


def test_accounts_that_fail_stop_no_other_and_a_retry_reads_only_them(
    database_url: str, tmp_path: Path
) -> None:
    migrate(database_url, "apart")
    archive, metrics = tmp_path / "archive", tmp_path / "metrics"
    metrics.mkdir()
    variables = {
        "ETL_ARCHIVE": str(archive),
        "ETL_METRICS_FILE": str(metrics / "kaltura.prom"),
        "ETL_CONCURRENCY": "2",
    }
    with tenants(8, database_url, tmp_path, latency_seconds=0.02) as many:
        many.write_file({"a08": 'schema = "apart"'})
        many.faults = {1_002: "foreign-partner", 1_003: "503-html"}
        first = many.call(*JOB, SECRET_a04="wrong", SECRET_a05="", **variables)
        asked = many.lists.copy()
        rows, files = many.rows(), len(list(metrics.iterdir()))
        ledger = many.query("select error_message from kaltura.sync_run where status <> 'running'")
        many.faults = {}
        second = many.call(*JOB, **variables)

        assert (first.code, second.code) == (69, 0), first.err + second.err
        assert (many.at_once, files) == (2, 8 + 1)
        failed = {
            name: (row["exit_code"], row["error_kind"], row["retryable"])
            for name, row in _rows(first).items()
            if row["exit_code"]
        }
        assert failed == {
            "a02": (65, "refused", False),
            "a03": (69, "service_unavailable", True),
            "a04": (77, "credentials", False),
            "a05": (78, "configuration", False),
        }
        assert rows == many.truth(1_002, 1_003, 1_004, 1_005, 1_008)
        assert many.rows() == many.truth(1_008)
        assert many.rows("apart") == many.truth(*range(1_001, 1_008))
        done = {name for name, row in _rows(second).items() if row["done_before"]}
        assert done == {"a01", "a06", "a07", "a08"}
        for name in done:
            assert _rows(second)[name]["run_id"] == _rows(first)[name]["run_id"]
            assert many.lists[many.partner(name)] == asked[many.partner(name)]
    for call in (first, second):
        fields = fields_of("sync --all", failed=call is first)
        assert contradictions(call.report, fields, set()) == []
        assert [_contradictions(row) for row in _rows(call).values()] == [[]] * 8
    assert _rows(first)["a08"]["warehouse"]["schema"] == "apart"
    assert first.report["error_message"].startswith("4 of 8 accounts failed: a02 (refused), a03")
    _check_log(first)
    wrong_secret = _rows(first)["a04"]["error_message"]
    assert f"check the secret and partner_id ({many.file} [accounts.a04])" in wrong_secret
    # The settings of a single account, which are not those to correct.
    for text in (first.out, first.err, str(ledger)):
        assert "check the session and partner_id" in text
        assert "KALTURA_" not in text
    _check_metrics(metrics, _rows(second))
    published = {str(path.parent.parent.relative_to(archive)) for path in archive.rglob("manif*")}
    assert published == {*(f"partner-{1_000 + n}" for n in range(1, 8)), "apart/partner-1008"}


def _check_log(call: Ended) -> None:
    """Every line but the last, which sums up, says which account it is about; the last one of each
    account is that of a run of its own."""
    *lines, last = [json.loads(line) for line in call.err.splitlines()]
    assert (last["event"], last["exit_code"], last["label"]) == ("job ended", 69, "night 1")
    assert "account" not in last
    ends = {line["account"]: line for line in lines if line["event"] == "run ended"}
    rows = _rows(call)
    for key in ("exit_code", "partner_id", "run_id", "warehouse"):
        assert {name: line[key] for name, line in ends.items()} == {
            name: row[key] for name, row in rows.items()
        }
    assert {name: line["inserted"] for name, line in ends.items() if not line["exit_code"]} == {
        name: 30 for name, row in rows.items() if row["exit_code"] == 0
    }
    assert {line["event"] for line in lines} >= {"session_opened", "run opened"}
    ended = {line["account"]: line["status"] for line in lines if line["event"] == "run ended"}
    assert ended == {
        name: "refused" if row["exit_code"] == 65 else row["status"]
        for name, row in _rows(call).items()
    }
    accounts = {(line["account"], line["partner_id"]) for line in lines}
    assert accounts == {(f"a{number:02}", 1_000 + number) for number in range(1, 9)}


def _check_metrics(folder: Path, rows: dict[str, dict[str, Any]]) -> None:
    """A file of each account, and one of the job; tests/cli/test_metrics.py reads them together."""
    names = {"kaltura.prom", *(f"kaltura-{name}.prom" for name in rows)}
    assert {path.name for path in folder.iterdir()} == names
    codes = {
        sample.labels.get("account"): (sample.labels["partner_id"], sample.value)
        for path in folder.iterdir()
        for family in text_string_to_metric_families(path.read_text("utf-8"))
        for sample in family.samples
        if sample.name == "kaltura_etl_last_exit_code"
    }
    told = {name: (str(row["partner_id"]), 0) for name, row in rows.items()}
    assert codes == told | {None: ("", 0)}


def test_a_stop_ends_all_accounts_with_true_ledgers_and_the_next_call_goes_on(
    database_url: str, tmp_path: Path
) -> None:
    with tenants(4, database_url, tmp_path) as many:
        many.faults = dict.fromkeys((1_002, 1_003), "no-answer")
        with killed_at_exit(many.start(*JOB, ETL_ACCOUNTS_AT_ONCE="2")) as process:
            wait_until(lambda: many.lists[1_003])  # it has begun when the first has ended
            process.send_signal(signal.SIGTERM)
            stopped = ended(process)
        many.faults = {}
        ledger = many.query("select partner_id, status, error_kind from kaltura.sync_run")
        again = many.call("sync", "--all", SECRET_a04="")

        assert (stopped.code, stopped.report["exit_code"]) == (143, 143), stopped.err
        states = {name: (row["status"], row["exit_code"]) for name, row in _rows(stopped).items()}
        assert states == {
            "a01": ("succeeded", 0),
            "a02": ("failed", 143),
            "a03": ("failed", 143),
            "a04": ("failed", 143),
        }
        assert sorted((row["partner_id"], row["status"], row["error_kind"]) for row in ledger) == [
            (1_001, "succeeded", None),
            (1_002, "failed", "interrupted"),
            (1_003, "failed", "interrupted"),
        ]
        assert again.code == 78, again.err
        assert many.rows() == many.truth(1_004)
    for line in ("a02         1002  succeeded", "the variable SECRET_a04 is not"):
        assert line in again.out


def test_an_account_whose_service_is_down_keeps_no_other_waiting(
    database_url: str, tmp_path: Path, clean_environment: dict[str, str]
) -> None:
    """Nothing listens at a01's; every retry is a wait of its own."""
    with tenants(3, database_url, tmp_path) as many:
        many.write_file({"a01": 'service_url = "http://127.0.0.1:1"'})
        environment = clean_environment | many.environment(
            ETL_ACCOUNTS_AT_ONCE="1", ETL_RETRY_ATTEMPTS="2"
        )
        (call,) = call_each(environment, [[*JOB]])
        ledger = many.query("select status, attempts from kaltura.sync_run order by run_id")

    assert call.code == 69, call.err
    lines = [json.loads(line) for line in call.err.splitlines()]
    ends = [line["account"] for line in lines if line["event"] == "run ended"]
    assert ends == ["a02", "a03", "a01"]
    message = _rows(call)["a01"]["error_message"]
    assert message.endswith(f"(after 2 attempt(s)); try again later ({many.file} [accounts.a01])")
    assert "check service_url" in message
    of_a01 = [line["event"] for line in lines if line.get("account") == "a01"]
    assert of_a01 == ["account_set_back", "service_retry", "run ended"]
    assert [(row["status"], row["attempts"]) for row in ledger if row["attempts"]] == [
        *(("failed", 2), ("succeeded", 1), ("succeeded", 1)),
    ]


def test_every_mode_takes_accounts(
    database_url: str, tmp_path: Path, clean_environment: dict[str, str]
) -> None:
    ids = tmp_path / "ids.txt"
    ids.write_text("0_unknown\n")
    calls = [
        ["sync", "--accounts", "a01", "--dry-run"],
        ["sync", "--all", "--run-label", "5 minutes"],
        ["status", "--all", "--max-age", "1h"],
        ["status", "--accounts", "a02"],
        ["sync", "--mode", "incremental", "--all", "--run-label", "5 minutes"],
        ["sync", "--mode", "incremental", "--all", "--run-label", "5 minutes"],
        ["backfill", "--from", "2020-01-01", "--accounts", "a02", "a01", "--run-label", "b"],
        ["backfill", "--from", "2020-01-02", "--accounts", "a02", "--run-label", "b"],
        ["backfill", "--from", "2020-01-01", "--all", "--run-label", "b"],
        ["backfill", "--ids", str(ids), "--accounts", "a01", "--run-label", "c"],
        ["backfill", "--ids", str(ids), "--accounts", "a01", "--run-label", "c"],
    ]
    wrong = [
        ["sync", "--all", "--accounts", "a01"],
        ["sync", "--all", "--partner-id", "1001"],
        ["sync", "--accounts", "a1"],
        ["sync", "--all", "--accept-absences", "5"],
        ["backfill", "--ids", str(ids), "--all"],
        ["sync", "a01"],
        ["sync", "--accounts", "-q"],
        ["status", "--accounts"],
        ["sync", "--accounts=", "--all"],
    ]
    with tenants(2, database_url, tmp_path) as many:
        environment = clean_environment | many.environment()
        done = call_each(environment, [[*call, "--json"] for call in [*calls, *wrong]])
    dry, full, fresh, one, fast, again, back, other, every, by_id, by_id_again = done[: len(calls)]
    codes = [each.code for each in done]

    assert codes == [0] * len(calls) + [2] * len(wrong), [each.err for each in done]
    assert {row["status"] for row in _rows(dry).values()} == {"dry run"}
    assert {row["inserted"] for row in _rows(full).values()} == {30}
    assert list(_rows(fresh)) == ["a01", "a02"]
    for part in ("accounts", "last_nights", "last_runs", "tokens_by_status"):
        assert {(row["name"], row["partner_id"]) for row in one.report[part]} == {("a02", 1_002)}
    assert {row["mode"] for row in _rows(fast).values()} == {"incremental"}  # full is another mode
    assert {row["done_before"] for row in _rows(again).values()} == {True}
    assert list(_rows(back)) == ["a02", "a01"]
    assert {row["mode"] for row in _rows(back).values()} == {"backfill"}
    assert not _rows(other)["a02"]["done_before"]  # the same label, and another range
    assert {name for name, row in _rows(every).items() if row["done_before"]} == {"a01", "a02"}
    for each in (by_id, by_id_again):  # perhaps of other ids, which the ledger does not have
        assert _rows(each)["a01"]["not_found"] == ["0_unknown"]
    messages = [each.report["error_message"] for each in done[len(calls) :]]
    for message, part in zip(
        messages,
        [
            "--accounts and --all contradict each other",
            "--partner-id cannot be combined",
            "no account a1 in the accounts file; did you mean a01?",
            "--accept-absences is for one account",
            "--ids is for one account",
            "unexpected extra argument (a01)",
            "--accounts needs a name: --accounts NAME…, or --all.",
            "--accounts needs a name: --accounts NAME…, or --all.",
            "--accounts needs a name: --accounts NAME…, or --all.",
        ],
        strict=True,
    ):
        assert part in message


def test_status_fails_for_an_account_that_is_old_or_was_never_read(
    database_url: str, tmp_path: Path, clean_environment: dict[str, str]
) -> None:
    migrate(database_url, "apart")
    with psycopg.connect(database_url) as connection:
        connection.execute("set search_path = kaltura")
        build_healthy(connection)
    (tmp_path / "accounts.toml").write_text(
        "[accounts.known]\npartner_id = 101\nks = { env = 'K' }\n"
        "[accounts.new]\npartner_id = 7\nks = { env = 'K' }\n"
        "[accounts.twin]\npartner_id = 101\nschema = 'apart'\nks = { env = 'K' }\n"
    )
    environment = clean_environment | {
        "DATABASE_URL": database_url,
        "ETL_ACCOUNTS": str(tmp_path / "accounts.toml"),
        "K": "a-session",
    }
    ages = ("--max-age", "366d", "--json")
    every, known, table, status, sync = call_each(
        environment,
        [
            ["status", "--all", *ages],
            ["status", "--accounts", "known", *ages],
            ["status", "--all"],
            ["status", "--all", "--schema", "nowhere"],
            ["sync", "--accounts", "new", "--schema", "nowhere", "--run-label", "night 1"],
        ],
    )

    assert (every.code, every.report["reason"]) == (79, "never_complete")
    message = every.report["error_message"]
    assert message.startswith("Account new has never had a complete run; account twin has never")
    assert [
        (row["name"], row["partner_id"], row["complete_at"] is None)
        for row in every.report["accounts"]
    ] == [("known", 101, False), ("new", 7, True), ("twin", 101, True)]
    assert (known.code, {row["partner_id"] for row in known.report["last_runs"]}) == (0, {101})
    assert table.code == 0
    assert "no run yet" in table.out
    # An account with a schema of its own is not helped by a migration of the other one.
    for each in (status, sync):
        assert (each.code, "migrate --schema nowhere." in each.err) == (78, True)


@pytest.mark.campaign
@pytest.mark.timeout(1_800)
def test_fifty_accounts_as_one_job(database_url: str, tmp_path: Path) -> None:
    failing = {1_007: "foreign-partner", 1_023: "503-html"}
    with tenants(50, database_url, tmp_path, tokens=400) as many:
        many.faults = dict(failing)
        first, first_seconds = _with_processor_time(many, *JOB, SECRET_a40="wrong")
        rows = many.rows()
        many.faults = {}
        retry, retry_seconds = _with_processor_time(many, *JOB)
        again, again_seconds = _with_processor_time(many, "sync", "--all", "--json")
        alone, alone_seconds = _with_processor_time(
            many, "sync", "--json", KALTURA_PARTNER_ID="1001", KALTURA_ADMIN_SECRET=secret("a01")
        )
        tell(
            {
                "processor_seconds_of_an_account": {
                    "first load": first_seconds / 50,
                    "nothing changed": again_seconds / 50,
                    "nothing changed, in a process of its own": alone_seconds,
                },
                "processor_seconds_of_the_retry": retry_seconds,
            }
        )

        assert [first.code, retry.code, again.code, alone.code] == [69, 0, 0, 0], first.err
        codes = {name: row["exit_code"] for name, row in _rows(first).items() if row["exit_code"]}
        assert codes == {"a07": 65, "a23": 69, "a40": 77}
        assert rows == many.truth(*failing, 1_040)
        assert sum(not row["done_before"] for row in _rows(retry).values()) == 3
        assert {row["unchanged"] for row in _rows(again).values()} == {400}
        assert many.rows() == many.truth()
        assert many.at_once <= 4
    assert [each.name for each in verify(database_url) if not each.ok] == []


def _with_processor_time(many: Tenants, *arguments: str, **variables: str) -> tuple[Ended, float]:
    """A call, and the seconds that processors worked for its process."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = ended(many.start(*arguments, **variables), timeout=600)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return done, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


@pytest.mark.parametrize(
    ("codes", "expected"),
    [
        ([0, 0], 0),
        ([0, 65, 75, 78], 75),
        ([69, 75, 1], 69),
        ([75, 74, 69], 74),
        ([65, 77, 78], 65),
        ([78, 77], 77),
        ([78, 1, 65], 1),
        ([78], 78),
    ],
)
def test_the_exit_code_of_a_job_is_worth_a_retry_if_one_account_is(
    codes: list[int], expected: int
) -> None:
    assert exit_code_of_job(codes) == expected


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (["--accounts", "a", "b", "--json"], ["--accounts", "a", "--accounts", "b", "--json"]),
        (["--json", "--accounts=a", "b"], ["--json", "--accounts=a", "--accounts", "b"]),
        (["--accounts", "a", "--mode", "full"], ["--accounts", "a", "--mode", "full"]),
        (["--mode", "full", "a"], ["--mode", "full", "a"]),
        (["--accounts", "a", "--", "b"], ["--accounts", "a", "--", "b"]),
        (["--accounts", "a", "-q", "b"], ["--accounts", "a", "-q", "b"]),
    ],
)
def test_an_option_may_be_followed_by_several_names(given: list[str], expected: list[str]) -> None:
    assert one_name_each("--accounts", given) == expected
