"""A forked program is to its caller what ``subprocess`` and a new interpreter would be."""

from __future__ import annotations

import signal
import subprocess
import time
from pathlib import Path

import pytest

from tests.support import forked

TELL = """
import os, sys, time
print(os.getcwd(), sys.argv[1:], sorted(os.environ), time.tzname[0], sys.stdin.read())
print("aside", file=sys.stderr)
sys.exit(7)
"""
WAIT = "import sys; print('here', flush=True); sys.stdin.read()"


def test_it_has_what_its_caller_gives_it(tmp_path: Path) -> None:
    done = forked.call(
        *("a", "b c"), env={"A": "ä", "TZ": "XYZ-3"}, code=TELL, cwd=tmp_path, typed="größe"
    )

    told = f"{tmp_path} ['a', 'b c'] ['A', 'TZ'] XYZ größe\n"
    assert (done.returncode, done.stdout, done.stderr) == (7, told, "aside\n")


def test_it_is_the_program_unless_told_otherwise() -> None:
    done = forked.call("--version", env=forked.environment())

    assert done.returncode == 0
    assert done.stdout.startswith("kaltura-etl ")


def test_it_can_be_waited_for_stopped_and_killed() -> None:
    with forked.start(env={}, code=WAIT, stdin=subprocess.PIPE) as first:
        with forked.start(env={}, code=WAIT, stdin=subprocess.PIPE) as other:
            assert first.stdout is not None
            assert first.stdout.readline() == "here\n"
            assert (first.poll(), other.poll()) == (None, None)
            with pytest.raises(subprocess.TimeoutExpired):
                first.wait(0.01)
            first.kill()
            assert first.wait() == first.poll() == -signal.SIGKILL
            assert other.communicate(timeout=60) == ("here\n", "")
        assert other.returncode == 0


def test_an_exception_ends_it_as_an_interpreter() -> None:
    done = forked.call(env={}, code="import atexit; atexit.register(print, 'end'); 1 / 0")

    assert (done.returncode, done.stdout) == (1, "end\n")
    assert done.stderr.endswith("ZeroDivisionError: division by zero\n")


def test_what_an_interpreter_is_asked_at_its_start_reaches_one() -> None:
    done = forked.call(
        env={"PYTHONIOENCODING": "ascii"}, code="import sys; print(sys.stdout.encoding)"
    )

    assert done.stdout == "ascii\n"


def test_a_shell_calls_it(tmp_path: Path) -> None:
    program = tmp_path / "kaltura-etl"
    program.write_text(forked.shim())
    program.chmod(0o755)

    done = subprocess.run(
        ["sh", "-c", f"{program} --version | tr a-z A-Z; {program} nonsense 2> /dev/null; echo $?"],
        capture_output=True,
        text=True,
        check=True,
    )

    version, code = done.stdout.splitlines()
    assert version.startswith("KALTURA-ETL ")
    assert code == "2"


def test_one_that_was_not_waited_for_leaves_nothing() -> None:
    process = forked.start(env={}, code="")
    deadline = time.monotonic() + 60
    while process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.01)
    process.communicate()

    assert process.returncode == 0
    assert not Path(f"/proc/{process.pid}").exists()
