"""After ``kill -9`` the next command of the same machine knows that the run is dead."""

from __future__ import annotations

from etl.simulator import SimulatorServer, generate_account
from tests.support.job import Job, held_after, killed_at_exit, wait_until


def test_the_next_command_takes_the_lease_at_once(database_url: str) -> None:
    """Long before the lease ends, whichever command it is."""
    with SimulatorServer(generate_account(2_000, seed=8), page_cap=50) as server:
        job = Job.of(server, database_url)
        with killed_at_exit(job.start()) as killed, held_after(server, 30):
            wait_until(lambda: any(run["pages"] for run in job.runs()), 60)
            killed.kill()
            killed.wait(60)
        (dead,) = job.runs()
        assert (dead["status"], dead["pid"]) == ("running", killed.pid)

        erased = job.call_command("erase", "--user-id", "nobody", "--apply")
        assert (erased.code, job.runs()[0]["status"]) == (0, "abandoned"), erased.err
        job.query(
            "update kaltura.sync_run set status = 'running', finished_at = null, "
            "error_kind = null, error_message = null where run_id = %s",
            dead["run_id"],
        )
        synced = job.call()

    assert (synced.code, synced.report["resumed_from"]) == (0, dead["run_id"]), synced.err
    assert [run["status"] for run in job.runs()] == ["abandoned", "succeeded"]
    assert "process of the run died" in job.runs()[0]["error_message"]
