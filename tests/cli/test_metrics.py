"""The metrics file tells how the last run ended, and a run never fails because of it."""

from __future__ import annotations

from pathlib import Path

from prometheus_client.parser import text_string_to_metric_families

from etl.simulator import SimulatorServer, generate_account
from tests.support.job import Job


def samples(path: Path) -> dict[str, float]:
    """By name; each is of account 102."""
    families = text_string_to_metric_families(path.read_text("utf-8"))
    found = [sample for family in families for sample in family.samples]
    assert {sample.labels["partner_id"] for sample in found} == {"102"}
    return {sample.name: sample.value for sample in found}


def test_a_run_tells_what_it_did_and_a_failure_that_it_failed(
    database_url: str, tmp_path: Path
) -> None:
    file = tmp_path / "kaltura.prom"
    with SimulatorServer(generate_account(300, seed=4)) as server:
        job = Job.of(server, database_url, ETL_METRICS_FILE=str(file))
        assert job.call().code == 0
        told = samples(file)
        assert told["kaltura_etl_last_run_exit_code"] == 0
        assert told["kaltura_etl_last_run_inserted"] > 0
        published = told["kaltura_etl_published_time_seconds"]
        assert 0 <= told["kaltura_etl_last_run_end_time_seconds"] - published < 3600

        assert job.call(KALTURA_ADMIN_SECRET="0" * 32).code == 77

    told = samples(file)
    assert told["kaltura_etl_last_run_exit_code"] == 77
    # An alarm on the age of the last publication must go on counting.
    assert told["kaltura_etl_published_time_seconds"] == published
    assert "kaltura_etl_last_run_inserted" not in told


def test_a_file_that_cannot_be_written_is_a_warning(database_url: str, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with SimulatorServer(generate_account(50, seed=4)) as server:
        job = Job.of(server, database_url, ETL_METRICS_FILE=str(tmp_path / "file" / "kaltura.prom"))
        ended = job.call()

    assert ended.code == 0, ended.err
    assert "the metrics file could not be written" in ended.err
