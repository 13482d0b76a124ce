"""An Airflow of a test's own: scheduler, executor, API server and database, and its public API."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

START_SECONDS = 300  # on a busy machine its five processes take a minute or two
ENDED = ("success", "failed")


@dataclass
class OwnAirflow:
    """Its database, DAGs and logs are in ``home``."""

    home: Path
    url: str
    token: str = ""

    def call(self, method: str, path: str, body: Any = None) -> dict[str, Any]:
        """A call of the public API; raises what urllib raises."""
        request = urllib.request.Request(  # noqa: S310 - our own server
            f"{self.url}/api/v2/{path}",
            None if body is None else json.dumps(body).encode(),
            {"Authorization": f"Bearer {self.token}", "Content-Type": "application/json"},
            method=method,
        )
        with urllib.request.urlopen(request, timeout=60) as reply:  # noqa: S310
            value = json.load(reply)
        assert isinstance(value, dict)
        return value

    def pause(self, dag: str, *, paused: bool) -> None:
        self.call("PATCH", f"dags/{dag}", {"is_paused": paused})

    def trigger(self, dag: str, run: str, **conf: Any) -> None:
        body = {"dag_run_id": run, "logical_date": None, "conf": conf}
        self.call("POST", f"dags/{dag}/dagRuns", body)

    def runs(self, dag: str) -> list[str]:
        """The ids of its runs."""
        return [run["dag_run_id"] for run in self.call("GET", f"dags/{dag}/dagRuns")["dag_runs"]]

    def state(self, dag: str, run: str) -> str:
        return str(self.call("GET", f"dags/{dag}/dagRuns/{_quoted(run)}")["state"])

    def tasks(self, dag: str, run: str) -> dict[str, tuple[str | None, int]]:
        """State and number of tries of each task; a mapped one has the name of its account."""
        path = f"dags/{dag}/dagRuns/{_quoted(run)}/taskInstances"
        return {
            each["rendered_map_index"] or each["task_id"]: (each["state"], each["try_number"])
            for each in self.call("GET", path)["task_instances"]
        }

    def fail(self, dag: str, run: str, task: str, index: int) -> None:
        """What somebody does who presses "mark as failed"."""
        path = f"dags/{dag}/dagRuns/{_quoted(run)}/taskInstances/{task}/{index}"
        self.call("PATCH", path, {"new_state": "failed"})

    def clear_failed(self, dag: str, run: str) -> None:
        """Run again what has failed in a run."""
        body = {"dry_run": False, "dag_run_id": run, "only_failed": True}
        self.call("POST", f"dags/{dag}/clearTaskInstances", body)

    def xcom(self, dag: str, run: str, task: str, index: int = -1) -> Any:
        """What a task returned."""
        path = f"dags/{dag}/dagRuns/{_quoted(run)}/taskInstances/{task}/xcomEntries/return_value"
        value = self.call("GET", f"{path}?map_index={index}&deserialize=true")["value"]
        return json.loads(value) if isinstance(value, str) else value

    def log(self, dag: str, run: str) -> str:
        """The logs of the tasks of a run."""
        found = (self.home / "logs").glob(f"dag_id={dag}/run_id={run}/**/*.log")
        return "".join(each.read_text(encoding="utf-8") for each in sorted(found))


@contextmanager
def own_airflow(
    programs: Path, home: Path, dags: Path, environment: Mapping[str, str]
) -> Iterator[OwnAirflow]:
    """A running Airflow, whose DAGs are paused; ``environment`` is that of its workers."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    url = f"http://127.0.0.1:{port}"
    variables = {
        "PATH": f"{programs}{os.pathsep}{os.environ.get('PATH', '')}",
        "HOME": str(home),
        "PYTHONDONTWRITEBYTECODE": "1",
        "AIRFLOW_HOME": str(home),
        "AIRFLOW__API__BASE_URL": url,
        "AIRFLOW__API__PORT": str(port),
        "AIRFLOW__API__WORKERS": "1",
        "AIRFLOW__CORE__DAGS_FOLDER": str(dags),
        "AIRFLOW__CORE__DEFAULT_TASK_RETRY_DELAY": "1",
        "AIRFLOW__CORE__EXECUTION_API_SERVER_URL": f"{url}/execution/",
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        "AIRFLOW__CORE__PARALLELISM": "8",
        "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_ALL_ADMINS": "True",
        "AIRFLOW__SCHEDULER__SCHEDULER_IDLE_SLEEP_TIME": "0.5",
        **environment,
    }
    with (
        open(home / "standalone.log", "wb") as output,
        subprocess.Popen(
            [programs / "airflow", "standalone"],
            env=variables,
            cwd=home,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        ) as process,
    ):
        try:
            yield _started(OwnAirflow(home, url), process)
        finally:
            process.send_signal(signal.SIGTERM)
            with suppress(subprocess.TimeoutExpired):
                process.wait(60)
            with suppress(ProcessLookupError):  # some of its children may not have heard it
                os.killpg(process.pid, signal.SIGKILL)


def _started(airflow: OwnAirflow, process: subprocess.Popen[bytes]) -> OwnAirflow:
    deadline = time.monotonic() + START_SECONDS
    while True:
        try:
            with urllib.request.urlopen(f"{airflow.url}/auth/token", timeout=10) as reply:  # noqa: S310
                airflow.token = json.load(reply)["access_token"]
            if airflow.call("GET", "dags")["dags"]:
                return airflow
            errors = airflow.call("GET", "importErrors")["import_errors"]
            assert not errors, errors
        except (OSError, urllib.error.URLError):
            pass
        said = (airflow.home / "standalone.log").read_text(errors="replace")
        assert process.poll() is None, said
        assert time.monotonic() < deadline, said
        time.sleep(1)


def _quoted(run: str) -> str:
    """The id of a scheduled run has a time in it."""
    return quote(run, safe="")
