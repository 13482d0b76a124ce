"""Each peer's own virtual environment, in the user's cache folder, with pinned versions."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from benchmarks.program import clean_environment
from benchmarks.tools import Tool

TOOLS = Path(__file__).with_name("tools")


class NotInstalled(Exception):
    """An environment could not be made; the message is what the installer said."""


@dataclass(frozen=True, slots=True)
class Peer:
    """Another way to do the same."""

    name: str
    title: str
    module: str
    """In ``tools/``: a program of this name, and its pinned requirements beside it."""
    packages: tuple[str, ...]
    """Those whose versions matter to a reader."""
    listed: str
    keeps_history: bool

    @property
    def requirements(self) -> Path:
        return TOOLS / f"{self.module}.txt"

    def versions(self) -> str:
        """The pinned versions of its main packages."""
        pins = dict(
            line.split(";")[0].strip().split("==")
            for line in self.requirements.read_text(encoding="utf-8").splitlines()
            if "==" in line and not line.startswith("#")
        )
        return ", ".join(f"{name} {pins[name]}" for name in self.packages)

    def environment(self) -> Path:
        """Where its environment is: another one for other versions or another Python."""
        pinned = self.requirements.read_bytes() + sys.version.encode()
        return cache_folder() / f"{self.name}-{hashlib.sha256(pinned).hexdigest()[:12]}"

    def as_tool(self) -> Tool:
        python = self.environment() / "bin" / "python"
        return Tool(
            name=self.name,
            command=(str(python), "-m", f"benchmarks.peers.tools.{self.module}"),
            listed=self.listed,
            work_mem="256MB",
            environment={
                "RUNTIME__DLTHUB_TELEMETRY": "false",
                "RUNTIME__LOG_LEVEL": "ERROR",
                "SINGER_SDK_LOG_LEVEL": "ERROR",
                "LOGLEVEL": "ERROR",
            },
        )


PEERS = (
    Peer(
        name="dlt-csv",
        title="dlt as its documentation has it: scd2, csv loader",
        module="dlt_csv",
        packages=("dlt", "psycopg2-binary"),
        listed="select id from peer.upload_token where _dlt_valid_to is null",
        keeps_history=True,
    ),
    Peer(
        name="dlt-arrow",
        title="dlt at its fastest: scd2, Arrow tables, parquet loader (ADBC)",
        module="dlt_arrow",
        packages=("dlt", "pyarrow", "adbc-driver-postgresql"),
        listed="select id from peer.upload_token where _dlt_valid_to is null",
        keeps_history=True,
    ),
    Peer(
        name="singer",
        title="a Singer tap and MeltanoLabs target-postgres (upsert, by COPY)",
        module="singer",
        packages=("meltanolabs-target-postgres", "singer-sdk"),
        listed="select id from peer.upload_token",
        keeps_history=False,
    ),
    Peer(
        name="upsert",
        title="a script: requests and a SQLAlchemy upsert",
        module="upsert",
        packages=("requests", "sqlalchemy", "psycopg"),
        listed="select id from peer.upload_token",
        keeps_history=False,
    ),
)


def cache_folder() -> Path:
    """``kaltura-etl/peers`` in the user's cache folder."""
    home = os.environ.get("XDG_CACHE_HOME")
    return (Path(home) if home else Path.home() / ".cache") / "kaltura-etl" / "peers"


def install(peer: Peer) -> bool:
    """Make the peer's environment unless it is there; returns whether it was made.

    Raises NotInstalled.
    """
    folder = peer.environment()
    ready = folder / "ready"
    if ready.exists():
        return False
    shutil.rmtree(folder, ignore_errors=True)
    folder.parent.mkdir(parents=True, exist_ok=True)
    beside = Path(sys.executable).with_name("uv")
    uv = str(beside) if beside.exists() else shutil.which("uv")
    python = str(folder / "bin" / "python")
    if uv:
        _run(uv, "venv", "-q", "--no-project", "--python", sys.executable, str(folder))
        _run(uv, "pip", "sync", "-q", "--python", python, str(peer.requirements))
    else:
        _run(sys.executable, "-m", "venv", str(folder))
        _run(python, "-m", "pip", "install", "-q", "-r", str(peer.requirements))
    ready.touch()
    return True


def _run(*command: str) -> None:
    environment = {
        "UV_SYSTEM_CERTS": "1",  # an inspecting proxy's certificate is the system's
        "UV_NO_CONFIG": "1",
        "UV_PYTHON_DOWNLOADS": "never",
    } | clean_environment()
    if "PIP_INDEX_URL" in environment:  # uv does not read pip's settings
        environment.setdefault("UV_DEFAULT_INDEX", environment["PIP_INDEX_URL"])
    done = subprocess.run(
        command, env=environment, check=False, capture_output=True, text=True, errors="replace"
    )
    if done.returncode:
        raise NotInstalled((done.stderr or done.stdout).strip()[-500:])
