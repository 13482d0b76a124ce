"""``kaltura-etl`` as a command that shells can call often: a process that has imported it forks.

As ``tests.support.warm``, but for commands in a shell's hands: each call has the working directory,
environment and standard streams of its caller.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec

from tests.support.environment import PYTHONPATH

CALL = """
import json, os, socket, sys
with socket.socket(socket.AF_UNIX) as server:
    server.connect(sys.argv[1])
    call = json.dumps([sys.argv[2:], os.getcwd(), dict(os.environ)]).encode()
    socket.send_fds(server, [len(call).to_bytes(4, "big")], [0, 1, 2])
    server.sendall(call)
    code = server.recv(1)
sys.exit(code[0] if code else 255)
"""


def shim(address: Path) -> str:
    """The text of a program that has its calls run by the process at ``address``."""
    return f"#!/bin/sh\nexec {sys.executable} -S -E -c '{CALL}' {address} \"$@\"\n"


@contextmanager
def forking(address: Path) -> Iterator[None]:
    """A process that runs the calls of ``shim``; it ends with its standard input."""
    process = subprocess.Popen(
        [sys.executable, __file__, str(address)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={"PATH": os.environ.get("PATH", ""), "PYTHONPATH": PYTHONPATH},
    )
    assert process.stdout is not None
    try:
        assert process.stdout.readline() == b"listening\n"
        yield
    finally:
        process.terminate()
        process.communicate()


def _main(address: str) -> None:
    import etl.cli.check
    import etl.cli.psql
    import etl.cli.sync
    import etl.cli.tables
    import etl.preflight
    import etl.run.sync
    import etl.warehouse.read.status
    import etl.warehouse.schema.revision  # noqa: F401 - imported for all that will be forked

    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for the children
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(address)
        listener.listen()
        sys.stdout.write("listening\n")
        sys.stdout.flush()
        while True:
            caller, _ = listener.accept()
            with caller:
                if os.fork() == 0:
                    listener.close()
                    _run(caller)


def _run(caller: socket.socket) -> None:
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    head, streams, _, _ = socket.recv_fds(caller, 4, 3)
    body = b""
    while len(body) < int.from_bytes(head, "big"):
        body += caller.recv(1 << 20)
    arguments, folder, environment = msgspec.json.decode(body)
    for source, target in zip(streams, (0, 1, 2), strict=True):
        os.dup2(source, target)
        os.close(source)
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    sys.stdin = open(0, closefd=False)  # noqa: SIM115
    sys.stdout, sys.stderr = open(1, "w", closefd=False), open(2, "w", closefd=False)  # noqa: SIM115
    code: object = 1
    try:
        from etl.cli import main

        code = main(arguments)
    except SystemExit as end:
        code = end.code
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        caller.send(bytes([code if isinstance(code, int) else 0 if code is None else 1]))
        os._exit(0)


if __name__ == "__main__":
    _main(sys.argv[1])
