"""``kaltura-etl`` without its second of imports: a process that has imported the program forks.

``start`` and ``call`` are ``subprocess.Popen`` and ``subprocess.run`` of the program, ``shim`` is
the program for shells.  Each start is a process of its own, with the arguments, environment,
working directory and standard streams of its caller.  It runs the command line's ``main`` as
``python -m etl`` does, and can be stopped and killed.

Statements are compiled once in a process, which is half of what a short command costs.  So the
forking process lives through two small nights first, in a copy of the database that
``rehearse_in`` has named, if it was named in time.

What is about an interpreter's own start (what it imports, ``PYTHON*``, its locale) needs a real
one: ``start`` and ``call`` take it where the environment asks an interpreter for something.
"""

from __future__ import annotations

import atexit
import gc
import importlib
import marshal
import os
import pkgutil
import select
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Mapping
from contextlib import suppress
from datetime import UTC
from functools import cache
from pathlib import Path
from typing import IO, Any, Final, NoReturn

from tests.support.environment import PYTHONPATH, ROOT

IMPORTED_LATE: Final = (
    *("alembic.command", "alembic.config", "cryptography.hazmat.primitives.ciphers", "jinja2"),
    *("prometheus_client", "rich.console", "rich.table", "sqlalchemy.dialects.postgresql.psycopg"),
)
"""What commands import when they need it, and most of them do."""
FOR_PYTHON: Final = {"PYTHONPATH": PYTHONPATH} | {
    name: value for name, value in os.environ.items() if name == "PYTHONPYCACHEPREFIX"
}
"""Where modules are found, and what is compiled: not what a test asks of an interpreter."""
FOR_THE_INTERPRETER: Final = ("PYTHON", "LC_", "LANG")
SECONDS_MAX: Final = 120.0
PIPE, DEVNULL = subprocess.PIPE, subprocess.DEVNULL
CALL = """
import _socket, marshal, os, sys
server = _socket.socket(_socket.AF_UNIX)
server.connect(sys.argv[1])
call = marshal.dumps([None, sys.argv[2:], os.getcwd(), dict(os.environ)])
streams = b"".join(number.to_bytes(4, sys.byteorder) for number in (0, 1, 2))
rights = [(_socket.SOL_SOCKET, _socket.SCM_RIGHTS, streams)]
server.sendmsg([len(call).to_bytes(4, "big")], rights)
server.sendall(call)
server.recv(4)
status = server.recv(4)
code = os.waitstatus_to_exitcode(int.from_bytes(status, "big")) if status else 1
sys.exit(code if code >= 0 else 128 - code)
"""
"""Of modules that are in the interpreter, or nearly: ``json`` and ``socket`` take it longer to
import than it takes to start."""
_rehearsal: list[str] = []
"""The URL of a server and the name of a database on it, once they are known."""


def rehearse_in(server_url: str, template: str) -> None:
    """``template`` is a migrated database to which nobody is connected; the first one counts."""
    if not _rehearsal:
        _rehearsal.extend((server_url, template))


def environment(**variables: str) -> dict[str, str]:
    """What the program needs as a process, nothing of the developer's, and ``variables``."""
    return {"PATH": os.environ.get("PATH", ""), **FOR_PYTHON, **variables}


def start(
    *arguments: str,
    env: Mapping[str, str],
    code: str | None = None,
    cwd: Path | None = None,
    stdin: int | IO[Any] = DEVNULL,
    stdout: int | IO[Any] = PIPE,
    stderr: int | IO[Any] = PIPE,
) -> subprocess.Popen[str]:
    """``kaltura-etl ARGUMENTS`` as a process; with ``code``, ``python -c CODE ARGUMENTS``."""
    own = {name: value for name, value in env.items() if name not in FOR_PYTHON}
    streams: dict[str, Any] = {"stdin": stdin, "stdout": stdout, "stderr": stderr, "text": True}
    if any(name.startswith(FOR_THE_INTERPRETER) for name in own):
        program = ["-m", "etl"] if code is None else ["-c", code]
        return subprocess.Popen([sys.executable, *program, *arguments], env=env, cwd=cwd, **streams)
    call: list[Any] = [code, *arguments]
    return _Forked(call, env=own, cwd=cwd, **streams)


def call(
    *arguments: str,
    env: Mapping[str, str],
    code: str | None = None,
    cwd: Path | None = None,
    typed: str | None = None,
    timeout: float = SECONDS_MAX,
) -> subprocess.CompletedProcess[str]:
    """Such a process, waited for; ``typed`` is its standard input, which is empty otherwise."""
    stdin = DEVNULL if typed is None else PIPE
    with start(*arguments, env=env, code=code, cwd=cwd, stdin=stdin) as process:
        try:
            out, err = process.communicate(typed, timeout)
        except BaseException:
            process.kill()
            raise
    return subprocess.CompletedProcess(process.args, process.returncode, out, err)


def shim() -> str:
    """The text of a program for shells, whose calls are such processes."""
    return f"#!/bin/sh\nexec {sys.executable} -S -E -c '{CALL}' {_address()} \"$@\"\n"


class _Forked(subprocess.Popen[str]):
    """A child of the forking process, which tells its number and, at its end, its status."""

    def _execute_child(self, *given: Any) -> None:
        # In place of the standard library's own, which is given the same since Python 3.9.
        (code, *arguments), _, _, _, _, folder, variables, _, _, _, *ends = given[:16]
        read, _, _, written, _, errors = ends
        # Not valid UTF-8 is a lone surrogate, as in sys.argv.
        given_as = [os.fsdecode(each) for each in arguments]
        call = marshal.dumps([code, given_as, str(folder or Path.cwd()), variables])
        self._forking = socket.socket(socket.AF_UNIX)
        self._forking.connect(str(_address()))
        # -1: not redirected.
        streams = [
            number if end == -1 else end for number, end in enumerate((read, written, errors))
        ]
        socket.send_fds(self._forking, [len(call).to_bytes(4, "big")], streams)
        self._forking.sendall(call)
        self.pid = int.from_bytes(self._forking.recv(4), "big")
        assert self.pid, "the forking process is gone"
        self._child_created = True
        self._close_pipe_fds(*ends)  # type: ignore[attr-defined]

    def _internal_poll(self, *_: object, **__: object) -> int | None:
        with suppress(subprocess.TimeoutExpired):
            self._wait(0)
        return self.returncode

    def _wait(self, timeout: float | None) -> int:
        if self.returncode is None:
            if not select.select([self._forking], [], [], timeout)[0]:
                raise subprocess.TimeoutExpired(self.args, timeout or 0)
            with self._forking:
                status = self._forking.recv(4)
            assert status, "the forking process is gone"
            self.returncode = os.waitstatus_to_exitcode(int.from_bytes(status, "big"))
        return self.returncode


@cache
def _address() -> str:
    """The socket of the one forking process of this one, with which it ends."""
    address = f"{tempfile.mkdtemp(prefix='kaltura-etl-forking-')}/socket"
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.support.forked", address, *_rehearsal],
        stdin=PIPE,
        stdout=PIPE,
        env=environment(),
        cwd=ROOT,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == b"listening\n"
    atexit.register(process.communicate)
    return address


# --- in the forking process ----------------------------------------------------------------------


def _main(address: str, *rehearsal: str) -> None:
    import etl

    for module in pkgutil.walk_packages(etl.__path__, "etl."):
        if not module.name.endswith("__main__"):
            with suppress(ImportError):  # of an extra
                importlib.import_module(module.name)
    for name in IMPORTED_LATE:
        importlib.import_module(name)
    _prepare()
    if rehearsal:
        _rehearse(*rehearsal)
    gc.collect()
    gc.freeze()
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(address)
        listener.listen(64)
        os.write(1, b"listening\n")
        call = _fork_for_callers(listener)
    if call is None:
        Path(address).unlink()
        Path(address).parent.rmdir()
        return
    _run(*call)


def _prepare() -> None:
    """What commands make once in a process: the tables, and templates compiled.

    Of the schema and the time zone that are meant unless others are asked for.
    """
    from etl.report.page import page_environment
    from etl.warehouse.schema.tables import build_tables

    build_tables()
    templates = page_environment(UTC)
    for name in templates.list_templates(extensions=["j2"]):
        templates.get_template(name)


def _rehearse(server_url: str, template: str) -> None:
    """What the commands do that are started most often; nothing of it is left but what is cached.

    By their functions: a command line would set up this process's log and signals.
    """
    from etl.simulator import SimulatorServer, generate_account
    from etl.warehouse.read.status import status_summary
    from tests.support.job import Job
    from tests.support.roles import own_database

    account = generate_account(20, seed=1)
    with own_database(server_url, template) as url, SimulatorServer(account) as server:
        job = Job.of(server, url)
        job.run()
        changed, deleted = (token.id for token in list(account.line)[:2])
        account.change(changed, {"fileName": "another"})
        account.delete(deleted)
        job.run()
        status_summary(url, "kaltura", None)
    assert threading.active_count() == 1, "a process with threads cannot be forked"


def _run(code: str | None, arguments: list[str]) -> NoReturn:
    """End as an interpreter does, but for taking its modules apart, which is 0.15 s."""
    try:
        if code is None:
            from etl.cli import main

            sys.argv = ["kaltura-etl", *arguments]
            main(prog_name="kaltura-etl")
        else:
            sys.argv = ["-c", *arguments]
            exec(compile(code, "<string>", "exec"), {"__name__": "__main__"})  # noqa: S102
        status: object = 0
    except SystemExit as end:
        status = end.code or 0
    except BaseException:
        traceback.print_exc()
        status = 1
    if not isinstance(status, int):
        sys.stderr.write(f"{status}\n")
        status = 1
    threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()
    try:
        sys.stdout.flush()
    except OSError:
        status = 120
    with suppress(OSError):
        sys.stderr.flush()
    os._exit(status & 0xFF)


def _fork_for_callers(listener: socket.socket) -> tuple[str | None, list[str]] | None:
    """Return in each child, with what it is to run; at last in this process, with None."""
    callers: dict[int, socket.socket] = {}

    def tell(*_: object) -> None:
        with suppress(ChildProcessError):
            while (ended := os.waitpid(-1, os.WNOHANG))[0]:
                # One that was killed has no use for it.
                with callers.pop(ended[0]) as caller, suppress(OSError):
                    caller.sendall(ended[1].to_bytes(4, "big"))

    signal.signal(signal.SIGCHLD, tell)
    ends: list[Any] = [listener, 0]
    while listener in select.select(ends, [], [])[0]:
        caller, _ = listener.accept()
        head, streams, _, _ = socket.recv_fds(caller, 4, 3)
        body = b""
        while len(body) < int.from_bytes(head, "big"):
            body += caller.recv(1 << 20)
        # None may end before its caller is known.
        signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGCHLD])
        pid = os.fork()
        if pid == 0:
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGCHLD])
            for each in (*callers.values(), caller):
                each.close()
            code, arguments, folder, variables = marshal.loads(body)  # noqa: S302 - of our own
            _become(streams, folder, variables)
            return code, arguments
        callers[pid] = caller
        caller.sendall(pid.to_bytes(4, "big"))
        signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGCHLD])
        for stream in streams:
            os.close(stream)
    return None


def _become(streams: list[int], folder: str, variables: dict[str, str]) -> None:
    """The process that its caller wants."""
    for source, target in zip(streams, (0, 1, 2), strict=True):
        os.dup2(source, target)
        os.close(source)
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(variables)
    time.tzset()
    options: dict[str, Any] = {"encoding": "utf-8", "closefd": False}
    sys.stdin = open(0, errors="surrogateescape", **options)  # noqa: SIM115
    sys.stdout = open(1, "w", errors="surrogateescape", **options)  # noqa: SIM115
    sys.stderr = open(2, "w", 1, errors="backslashreplace", **options)  # noqa: SIM115


if __name__ == "__main__":
    _main(*sys.argv[1:])
