"""Many calls of the program in one process, which is fast; what each printed."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from tests.support import forked
from tests.support.job import Ended

PROGRAM = """
import contextlib, io, json, sys
from etl.cli import main
for arguments in json.load(sys.stdin):
    with contextlib.redirect_stdout(io.StringIO()) as out:
        with contextlib.redirect_stderr(io.StringIO()) as err:
            try:
                main(arguments)
            except SystemExit as end:
                code = end.code
    print(json.dumps([code, out.getvalue(), err.getvalue()]), flush=True)
"""


def call_each(
    environment: Mapping[str, str],
    calls: Sequence[Sequence[str]],
    *,
    python: Path | str = sys.executable,
    before: str = "",
) -> list[Ended]:
    """Each call's exit code, standard output and standard error.

    Neither is a terminal.  A wrong option is best called first or alone: it is reported by the
    logging that an earlier call has set up.  ``python`` may be another one, ``before`` is code that
    it runs first.
    """
    if python == sys.executable and not before:
        done = forked.call(env=environment, code=PROGRAM, typed=json.dumps(calls))
        assert done.returncode == 0, done.stderr
    else:
        done = subprocess.run(
            [python, "-c", f"{before}\n{PROGRAM}"],
            env=dict(environment),
            input=json.dumps(calls),
            stdout=subprocess.PIPE,
            text=True,
            check=True,
        )
    return [Ended(*json.loads(line)) for line in done.stdout.splitlines()]


def all_that_is_shown(terminal: int) -> bytes:
    """What comes out of this end of a terminal until the other is closed; it is closed then."""
    shown = b""
    try:
        while chunk := os.read(terminal, 65536):
            shown += chunk
    except OSError:  # Linux: the other end is closed
        pass
    os.close(terminal)
    return shown


def on_terminal(environment: Mapping[str, str], arguments: Sequence[str], columns: int) -> str:
    """Standard output of one call on a terminal of so many columns, without its bold."""
    ours, theirs = pty.openpty()
    own = {**environment, "TERM": "xterm", "COLUMNS": str(columns), "NO_COLOR": "1"}
    with forked.start(*arguments, env=own, stdout=theirs, stderr=subprocess.DEVNULL) as process:
        os.close(theirs)
        body = all_that_is_shown(ours)
    assert process.returncode == 0
    text = body.decode().replace("\r\n", "\n")
    for style in ("\x1b[1m", "\x1b[2m", "\x1b[0m"):
        text = text.replace(style, "")
    return text
