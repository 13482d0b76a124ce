"""PgBouncer as tests run it."""

from __future__ import annotations

import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import psycopg


@contextmanager
def pgbouncer(
    program: str, folder: Path, url: str, *, mode: str = "transaction", connections: int = 3
) -> Iterator[str]:
    """A URL through PgBouncer, by default in transaction mode; three connections used in turn."""
    parts = urlsplit(url)
    query = parse_qs(parts.query)
    user = parts.username or "postgres"
    settings_file = folder / "pgbouncer.ini"
    settings_file.write_text(
        "[databases]\n"
        f"* = host={query['host'][0]} port={query.get('port', ['5432'])[0]} user={user}\n"
        "[pgbouncer]\nlisten_addr =\n"
        f"unix_socket_dir = {folder}\nlisten_port = 6432\nauth_type = any\n"
        f"pool_mode = {mode}\nserver_round_robin = 1\nmin_pool_size = {connections}\n"
        f"default_pool_size = {connections}\n"
        f"logfile = {folder}/pgbouncer.log\npidfile = {folder}/pid\n"
    )
    for path in (settings_file, folder):
        path.chmod(0o777)
    command = [program, str(settings_file)]
    if Path("/proc/self").stat().st_uid == 0:
        # It refuses to be root; the server's own user can reach the server's socket.
        owner = Path(query["host"][0]).owner()
        shutil.chown(folder, owner)
        command[1:1] = ["-u", owner]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    through = parts._replace(netloc=f"{user}@", query=f"host={folder}&port=6432").geturl()
    try:
        deadline = time.monotonic() + 20
        while True:
            try:
                psycopg.connect(through).close()
                break
            except psycopg.OperationalError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.1)
        yield through
    finally:
        process.terminate()
        process.wait(20)
