"""The metrics file tells how the last runs ended, and a run never fails because of it."""

from __future__ import annotations

import os
import stat
import time
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from etl.simulator import SimulatorServer, generate_account
from etl.warehouse.ledger.lease import open_run
from etl.warehouse.read.metrics import warehouse_state
from etl.warehouse.schema.database import open_database
from tests.support import forked
from tests.support.calls import call_each
from tests.support.job import Job
from tests.support.tenants import tenants

NAMES = {
    "last_attempt_time_seconds",
    "last_success_time_seconds",
    "last_complete_time_seconds",
    "last_exit_code",
    "run_duration_seconds",
    "tokens",
    "run_tokens",
    "run_requests",
    "run_retries",
    "coverage_complete",
}
PRIVATE = """
import os
from etl.cli import main
os.umask(0o077)
main(prog_name="kaltura-etl")
"""
"""The program, of a user whose files nobody else may read."""
Samples = dict[tuple[str, ...], float]


def samples(path: Path, partner_id: str = "102") -> Samples:
    """Values by name, mode and the labels after that, of one account."""
    families = list(text_string_to_metric_families(path.read_text("utf-8")))
    assert all(family.type == "gauge" and family.documentation for family in families)
    found: Samples = {}
    for sample in (sample for family in families for sample in family.samples):
        labels = dict(sample.labels)
        if labels.pop("partner_id") == partner_id:
            key = (sample.name.removeprefix("kaltura_etl_"), labels.pop("mode"), *labels.values())
            assert key not in found
            found[key] = sample.value
    return found


def test_every_exit_is_told_and_what_cannot_be_asked_is_kept(
    database_url: str, tmp_path: Path, clean_environment: dict[str, str]
) -> None:
    """Whatever came of a run: published, refused, failed, skipped, not begun, wrongly called."""
    file = tmp_path / "kaltura.prom"
    began = time.time()
    codes: list[int] = []
    with SimulatorServer(generate_account(300, seed=4)) as server:
        server.configure(poison=[list(server.account.line)[30].id])
        job = Job.of(server, database_url, ETL_METRICS_FILE=str(file), ETL_RETRY_ATTEMPTS="1")

        def call(*arguments: str, **variables: str) -> Samples:
            environment = clean_environment | job.environment(**variables)
            codes.append(forked.call(*arguments, env=environment, code=PRIVATE).returncode)
            return samples(file)

        full = call("sync")
        assert stat.S_IMODE(file.stat().st_mode) == 0o644
        assert {name for name, *_ in full} == NAMES
        assert full["last_exit_code", "full"] == 0
        assert full["coverage_complete", "full"] == 1
        assert full["run_tokens", "full", "inserted"] == 299
        assert full["run_tokens", "full", "unreadable"] == 1
        assert full["run_requests", "full"] > full["run_retries", "full"] == 0
        assert full["run_duration_seconds", "full", "reading"] > 0
        assert sum(value for key, value in full.items() if key[0] == "tokens") == 299
        assert ("tokens", "full", "TIMED_OUT") in full
        for name in ("attempt", "success", "complete"):
            assert began < full[f"last_{name}_time_seconds", "full"] < time.time() + 1
        complete = full["last_complete_time_seconds", "full"]

        told = call("sync", "--mode", "incremental")
        assert told["last_exit_code", "incremental"] == 0
        assert told["coverage_complete", "incremental"] == 0
        assert ("last_complete_time_seconds", "incremental") not in told
        assert told["last_success_time_seconds", "incremental"] > complete
        # What the full run said is still there.
        kept = {key: value for key, value in told.items() if key[1] == "full"}
        assert kept == full

        before = file.read_bytes()
        call("sync", "--dry-run")
        call("sync", "--dry-run", "--nonsense")
        assert file.read_bytes() == before

        refused = call("sync", "--max-unreadable", "0")
        assert refused["last_exit_code", "full"] == 65
        assert refused["coverage_complete", "full"] == 0
        assert refused["run_requests", "full"] > 0
        assert refused["last_success_time_seconds", "full"] == complete
        assert refused["last_attempt_time_seconds", "full"] > complete

        told = call("sync", KALTURA_SERVICE_URL="http://127.0.0.1:9")
        assert told["run_tokens", "full", "inserted"] == 0
        call("sync", KALTURA_ADMIN_SECRET="0" * 32)
        call("sync", DATABASE_URL="postgresql://127.0.0.1:1/nothing")
        call("sync", "--page-size", "0")
        call("backfill")
        told = call("sync", "--mode=incremental", "--nonsense")
        with open_database(job.database_url, "kaltura") as database:
            open_run(
                database,
                partner_id=job.partner_id,
                mode="full",
                lease_seconds=900,
                resume_window=None,
            )
        told = call("sync")

        assert codes == [0, 0, 0, 2, 65, 69, 77, 74, 2, 2, 2, 75]
        exits = {mode: value for (name, mode, *_), value in told.items() if name.endswith("code")}
        assert exits == {"full": 75, "incremental": 2, "backfill": 2}
        for key, value in full.items():
            if key[0] in ("tokens", "last_success_time_seconds", "last_complete_time_seconds"):
                assert told[key] == value

        # Another machine has no file yet: the warehouse knows what it has published.
        file.unlink()
        asked = call("sync", "--max-unreadable", "0")
        assert asked["last_complete_time_seconds", "full"] == complete
        assert sum(value for key, value in asked.items() if key[0] == "tokens") == 299

        # Which account it is was not known; by now it is.
        call("sync", KALTURA_PARTNER_ID="acme")
        assert samples(file, "")["last_exit_code", "full", file.name] == 78
        call("sync")
        assert samples(file, "") == {}


def test_the_warehouse_knows_what_is_published_by_the_modes_of_the_original_runs(
    database_url: str,
) -> None:
    """Also where a replay made its rows, and for a status that nobody knows."""
    with SimulatorServer(generate_account(40, seed=4)) as server:
        job = Job.of(server, database_url)
        report = job.run()
    before = warehouse_state(database_url, "kaltura", 102)
    job.query(
        "update kaltura.sync_run set mode = 'replay', "
        "overrides = jsonb_build_object('replayed_mode', 'full')"
    )
    for status in (99, None):
        job.query(
            "update kaltura.upload_token set status = %s where token_id = "
            "(select min(token_id) from kaltura.upload_token where status = 3)",
            status,
        )
    after = warehouse_state(database_url, "kaltura", 102)

    assert before.published_at == before.complete_at == {"full": report.published_at}
    assert (after.published_at, after.complete_at) == (before.published_at, before.complete_at)
    assert sum(before.tokens.values()) == 40
    closed = before.tokens["CLOSED"] - 2
    assert after.tokens == {**before.tokens, "CLOSED": closed, "UNKNOWN_99": 1, "UNKNOWN": 1}
    assert warehouse_state(database_url, "kaltura", 103).published_at == {}


def test_a_file_that_cannot_be_written_is_a_warning(database_url: str, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with SimulatorServer(generate_account(50, seed=4)) as server:
        job = Job.of(server, database_url, ETL_METRICS_FILE=str(tmp_path / "file" / "kaltura.prom"))
        ended = job.call()

    assert ended.code == 0, ended.err
    assert "the metrics file could not be written" in ended.err


def test_the_files_of_ten_accounts_are_read_together(
    database_url: str, clean_environment: dict[str, str], tmp_path: Path
) -> None:
    """node_exporter reads all files of a folder; it drops a sample that it has already, in silence,
    and refuses a family with two texts of help."""
    folder = tmp_path / "metrics"
    folder.mkdir()
    with tenants(10, database_url, tmp_path) as many:
        many.faults = {1_002: "foreign-partner", 1_003: "503-html"}
        variables = {"ETL_METRICS_FILE": str(folder / "kaltura.prom"), "SECRET_a04": ""}
        calls = [["sync", "--all"], ["sync", "--all", "--mode", "incremental", "--nonsense"]]
        done = call_each(clean_environment | many.environment(**variables), calls)
        # Another job, and one of an account that it does not know.
        variables["ETL_METRICS_FILE"] = str(folder / "other.prom")
        wrong = [["sync", "--all", "--nonsense"], ["sync", "--mode", "incremental"]]
        done += call_each(clean_environment | many.environment(**variables), wrong)

    assert [each.code for each in done] == [69, 2, 2, 78]
    names = {"kaltura.prom", "other.prom", *(f"kaltura-{name}.prom" for name in many.names)}
    assert {path.name for path in folder.iterdir()} == names
    together: dict[tuple[str, ...], float] = {}
    texts: dict[str, str] = {}
    for path in folder.iterdir():
        for family in text_string_to_metric_families(path.read_text("utf-8")):
            assert texts.setdefault(family.name, family.documentation) == family.documentation
            for sample in family.samples:
                key = (sample.name, *(f"{k}={v}" for k, v in sorted(sample.labels.items())))
                assert together.setdefault(key, sample.value) is sample.value, key
    codes = {key[1:]: value for key, value in together.items() if key[0].endswith("exit_code")}
    failed = {"a02": 65, "a03": 69, "a04": 78}
    expected: dict[tuple[str, ...], float] = {
        (f"account={name}", "mode=full", f"partner_id={1000 + number}"): failed.get(name, 0)
        for number, name in enumerate(many.names, 1)
    }
    # The job as a whole.
    assert codes == expected | {
        ("file=kaltura.prom", "mode=full", "partner_id="): 69,
        ("file=kaltura.prom", "mode=incremental", "partner_id="): 2,
        ("file=other.prom", "mode=full", "partner_id="): 2,
        ("file=other.prom", "mode=incremental", "partner_id="): 78,
    }
    outcomes = {key[1:]: value for key, value in together.items() if "job_accounts" in key[0]}
    assert outcomes == {  # the second call did not get as far as its accounts
        ("file=kaltura.prom", "mode=full", f"outcome={outcome}", "partner_id="): count
        for outcome, count in {"succeeded": 7, "refused": 1, "failed": 2, "skipped": 0}.items()
    }


def test_accounts_that_share_a_file_keep_what_the_others_said(tmp_path: Path) -> None:
    """Also at the same time, and beside a file that is none of ours."""
    from concurrent.futures import ProcessPoolExecutor

    file = tmp_path / "kaltura.prom"
    file.write_text("kaltura_etl_last_run_exit_code 0\nnonsense{\n")
    with ProcessPoolExecutor(4) as pool:
        list(pool.map(_write, [str(file)] * 40, range(40)))

    families = text_string_to_metric_families(file.read_text("utf-8"))
    codes = {
        sample.labels["partner_id"]: sample.value
        for family in families
        for sample in family.samples
        if sample.name == "kaltura_etl_last_exit_code"
    }
    assert codes == {str(number + 1): number for number in range(40)}
    assert list(tmp_path.iterdir()) == [file]


def _write(path: str, number: int) -> None:
    from etl.process.metrics import Attempt, write_metrics

    write_metrics(
        Path(path),
        Attempt(
            account={"partner_id": str(number + 1)},
            mode="full",
            exit_code=number,
            run=None,
            state=None,
        ),
    )


@pytest.mark.parametrize("kind", ["pipe", "link"])
def test_the_file_may_be_a_pipe_or_a_link(kind: str, tmp_path: Path) -> None:
    file, target = tmp_path / "kaltura.prom", tmp_path / "target"
    if kind == "pipe":
        os.mkfifo(file)
        reader = os.open(file, os.O_RDONLY | os.O_NONBLOCK)
        _write(str(file), 7)
        text = os.read(reader, 1 << 16).decode()
        os.close(reader)
    else:
        file.symlink_to(target)
        _write(str(file), 7)
        text = target.read_text()
        assert file.is_symlink()
    assert 'kaltura_etl_last_exit_code{mode="full",partner_id="8"} 7.0' in text
