"""What is installed from the wheel works without the checkout."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from etl.simulator import SimulatorServer, generate_account

CHECKOUT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built from the checkout's files without a network and without git."""
    source = tmp_path_factory.mktemp("source")
    for name in ("etl", "migrations", "sql"):
        shutil.copytree(
            CHECKOUT / name, source / name, ignore=shutil.ignore_patterns("__pycache__")
        )
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(CHECKOUT / name, source)
    built = tmp_path_factory.mktemp("wheel")
    _run("-m", "build", "--wheel", "--no-isolation", "--outdir", str(built), cwd=source)
    (found,) = built.glob("*.whl")
    return found


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The ``bin`` folder of an environment that has the wheel, and nothing of the checkout.

    The dependencies are those of this environment (the locked ones), by a .pth file; this
    environment's own .pth files, and so the checkout, are not followed from there.
    """
    environment = tmp_path_factory.mktemp("environment")
    _run("-m", "venv", "--without-pip", str(environment))
    (site_packages,) = environment.glob("lib/python*/site-packages")
    with zipfile.ZipFile(wheel) as archive:
        entry_points = archive.read(
            next(name for name in archive.namelist() if name.endswith("entry_points.txt"))
        ).decode()
    assert "kaltura-etl = etl.cli:main" in entry_points
    uv = Path(sys.prefix) / "bin" / "uv"
    subprocess.run(
        [uv, "pip", "install", "-q", "--no-deps", "--no-index", "--offline", "--no-cache", wheel],
        env={**os.environ, "VIRTUAL_ENV": str(environment)},
        check=True,
        cwd="/",
    )
    dependencies = Path(pytest.__file__).resolve().parents[1]
    (site_packages / "dependencies.pth").write_text(f"{dependencies}\n")
    yield environment / "bin"
    shutil.rmtree(environment)


def _run(*arguments: str, cwd: Path | str = "/") -> None:
    subprocess.run([sys.executable, *arguments], check=True, cwd=cwd, capture_output=True)


def _in_installed(installed: Path, *command: str, **environment: str) -> str:
    done = subprocess.run(
        [installed / command[0], *command[1:]],
        cwd="/",
        env={"PATH": os.environ["PATH"], "HOME": "/nonexistent", **environment},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_wheel_holds_every_migration_and_sql_file(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        packed = set(archive.namelist())
    for folder in ("migrations", "sql"):
        for file in (CHECKOUT / folder).rglob("*"):
            if file.is_file() and "__pycache__" not in file.parts:
                assert f"etl/_{folder}/{file.relative_to(CHECKOUT / folder)}" in packed
    outside = {name for name in packed if not name.startswith(("etl/", "kaltura_etl-"))}
    assert not outside


def test_installed_program_finds_its_files(installed: Path) -> None:
    said = _in_installed(
        installed,
        "python",
        "-c",
        "import etl.resources as r; print(r.sql_directory(), r.migrations_directory())",
    )
    assert str(CHECKOUT) not in said
    for folder in said.split():
        assert re.search(r"/site-packages/etl/_(sql|migrations)$", folder)
        assert Path(folder).is_dir()


def test_installed_program_shows_its_help(installed: Path) -> None:
    assert "migrate" in _in_installed(installed, "kaltura-etl", "--help")
    assert "migrate" in _in_installed(installed, "python", "-m", "etl", "--help")


def test_installed_program_migrates_an_empty_database(
    installed: Path, empty_database_url: str
) -> None:
    _in_installed(installed, "kaltura-etl", "migrate", DATABASE_URL=empty_database_url)
    # A second time there is nothing to do.
    _in_installed(installed, "kaltura-etl", "migrate", DATABASE_URL=empty_database_url)


def test_installed_program_syncs_and_verifies(installed: Path, empty_database_url: str) -> None:
    with SimulatorServer(generate_account(600, seed=3)) as server:
        account = {
            "DATABASE_URL": empty_database_url,
            "KALTURA_SERVICE_URL": server.url,
            "KALTURA_PARTNER_ID": str(server.account.partner_id),
            "KALTURA_ADMIN_SECRET": server.partner.admin_secrets[0],
        }
        _in_installed(installed, "kaltura-etl", "migrate", **account)
        said = json.loads(_in_installed(installed, "kaltura-etl", "sync", "--json", **account))
        assert said["inserted"] + said["rejected"] == len(server.account)
    found = json.loads(_in_installed(installed, "kaltura-etl", "verify", "--json", **account))
    assert [check["name"] for check in found["checks"] if not check["ok"]] == []
    counted = ("psql", "-XAt", "-c", "select count(*) from upload_token")
    assert int(_in_installed(installed, "kaltura-etl", *counted, **account)) == said["inserted"]


def test_locks_name_no_registry() -> None:
    """Which registry serves the packages is the installing machine's business."""
    for lock in CHECKOUT.glob("requirements*.txt"):
        text = lock.read_text("utf-8")
        assert "--hash=sha256:" in text
        assert not re.search(r"://|--(extra-)?index|--find-links|file:", text), lock.name
        for line in text.splitlines():
            assert re.match(r"[A-Za-z0-9._-]+(\[[a-z,]+\])?==[^ ]+ |    --hash=sha256:", line), line


def test_locks_agree_with_one_another() -> None:
    def pins(name: str) -> set[str]:
        found = re.findall(r"^([a-zA-Z0-9._-]+==\S+)", (CHECKOUT / name).read_text("utf-8"), re.M)
        return set(found)

    assert pins("requirements.txt") <= pins("requirements-dev.txt")
