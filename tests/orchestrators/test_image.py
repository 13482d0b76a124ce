"""The steps of ``examples/docker/Dockerfile``, without an engine: in a clean environment."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from etl.simulator import SimulatorServer, generate_account
from tests.support.job import ROOT, Job

DOCKER = ROOT / "examples" / "docker"

pytestmark = [pytest.mark.campaign, pytest.mark.timeout(900)]


def test_what_the_image_installs_runs_the_job_of_compose(database_url: str, tmp_path: Path) -> None:
    dockerfile = (DOCKER / "Dockerfile").read_text()
    source, installed = tmp_path / "src", tmp_path / "kaltura-etl"
    build = re.split(r"^FROM ", dockerfile, flags=re.MULTILINE)[1]  # the first stage
    steps = re.findall(r"^(RUN|COPY) ((?:.*\\\n)*.*)$", build, re.MULTILINE)
    subprocess.run([sys.executable, "-m", "venv", tmp_path / "python"], check=True)

    assert [kind for kind, _ in steps] == ["COPY", "RUN", "COPY", "COPY", "COPY", "COPY", "RUN"]
    for kind, text in steps:
        if kind == "COPY":
            *names, target = text.split()
            _copied(names, source / (target if target != "./" else ""))
        else:
            _run(text.replace("/opt/kaltura-etl", str(installed)), source, tmp_path)

    assert not (installed / "bin" / "pip").exists()
    compilers = [name for name in ("cc", "gcc", "c++") if (installed / "bin" / name).exists()]
    assert compilers == []
    (entry_point,) = json.loads(re.findall(r"^ENTRYPOINT (.*)$", dockerfile, re.MULTILINE)[0])
    compose = yaml.safe_load((DOCKER / "compose.yaml").read_text())
    with SimulatorServer(generate_account(60, seed=8)) as server:
        job = Job.of(server, database_url)
        secret = tmp_path / "settings.env"
        variables = job.environment().items()
        secret.write_text("".join(f"{name}={value}\n" for name, value in variables))
        secret.chmod(0o400)
        done = subprocess.run(
            [installed / "bin" / entry_point, *compose["services"]["sync"]["command"]],
            env={"PATH": f"{installed}/bin:/usr/bin:/bin", "VARIABLE_FILE": str(secret)},
            cwd="/",
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )

    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["inserted"] == 60


def _copied(names: list[str], folder: Path) -> None:
    """As COPY: a file into the folder, a folder as the folder."""
    for name in names:
        path = ROOT / name
        if path.is_dir():
            ignored = shutil.ignore_patterns("__pycache__")
            shutil.copytree(path, folder, ignore=ignored, dirs_exist_ok=True)
        else:
            folder.mkdir(parents=True, exist_ok=True)
            shutil.copy(path, folder)


def _run(text: str, folder: Path, python: Path) -> None:
    """As RUN: by a shell, with a Python that has nothing but pip; a compiler would fail."""
    own = {
        "PATH": f"{python / 'python' / 'bin'}:{os.environ['PATH']}",
        "CC": "false",
        "PIP_DISABLE_PIP_VERSION_CHECK": "1",
        "PYTHONPATH": "",
    }
    done = subprocess.run(
        ["/bin/sh", "-ec", text],
        env={**os.environ, **own},
        cwd=folder,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
