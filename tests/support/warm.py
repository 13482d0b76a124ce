"""Starts ``kaltura-etl`` hundreds of times: one process imports it, and forks for each start.

A fork runs the command line's ``main`` with its own environment and standard streams; only the
second of imports is saved.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from tests.support.environment import PYTHONPATH


class Question(msgspec.Struct, omit_defaults=True):
    """One line to the forking process: start the program, or wait for a child."""

    environment: dict[str, str] = {}
    arguments: tuple[str, ...] = ()
    output: str = ""
    wait: int | None = None


@dataclass
class Warm:
    """The process that forks.  ``start`` returns the pid of a child, ``wait`` its exit code."""

    process: subprocess.Popen[str]
    alive: set[int] = field(default_factory=set)

    def start(self, environment: dict[str, str], *arguments: str, output: Path) -> int:
        """Run ``kaltura-etl ARGUMENTS``; both streams go to ``output``."""
        pid = self._ask(Question(environment=environment, arguments=arguments, output=str(output)))
        self.alive.add(pid)
        return pid

    def wait(self, pid: int) -> int:
        """The exit code as in ``subprocess``: negative for a signal."""
        code = self._ask(Question(wait=pid))
        self.alive.discard(pid)
        return code

    def _ask(self, question: Question) -> int:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(msgspec.json.encode(question).decode() + "\n")
        self.process.stdin.flush()
        return int(self.process.stdout.readline())


@contextmanager
def warm() -> Iterator[Warm]:
    """A forking process; whatever it started is gone afterwards."""
    process = subprocess.Popen(
        [sys.executable, __file__],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={"PATH": os.environ.get("PATH", ""), "PYTHONPATH": PYTHONPATH},
        text=True,
    )
    starter = Warm(process)
    try:
        yield starter
    finally:
        for pid in starter.alive:
            os.kill(pid, signal.SIGKILL)
        process.communicate()


def _main() -> None:
    import etl.cli.database
    import etl.cli.sync
    import etl.run.sync  # noqa: F401 - imported for all that will be forked

    for line in sys.stdin:
        question = msgspec.json.decode(line, type=Question)
        if question.wait is not None:
            answer = os.waitstatus_to_exitcode(os.waitpid(question.wait, 0)[1])
        else:
            answer = os.fork()
            if answer == 0:
                _run(question)
        print(answer, flush=True)  # noqa: T201


def _run(question: Question) -> None:
    os.environ.clear()
    os.environ.update(question.environment)
    out = os.open(question.output, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    nothing = os.open(os.devnull, os.O_RDONLY)
    for source, target in ((nothing, 0), (out, 1), (out, 2)):
        os.dup2(source, target)
    sys.stdout, sys.stderr = open(1, "w", closefd=False), open(2, "w", closefd=False)  # noqa: SIM115
    sys.argv = ["kaltura-etl", *question.arguments]
    code: object = 1
    try:
        from etl.cli import main

        code = main()
    except SystemExit as exit_:
        code = exit_.code
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code if isinstance(code, int) else 0 if code is None else 1)


if __name__ == "__main__":
    _main()
