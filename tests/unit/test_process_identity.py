"""A process is taken for dead only where that is certain."""

from __future__ import annotations

import subprocess
import sys

import pytest

from etl.process.identity import has_certainly_ended, process_identity

OWN = str(process_identity())


def child(*, wait: bool) -> tuple[str, subprocess.Popen[str]]:
    """The identity of another process, which has ended or waits."""
    process = subprocess.Popen(
        [
            sys.executable,
            "-c",
            "from etl.process.identity import process_identity as own; import sys;"
            "print(own(), flush=True); sys.stdin.read()",
        ],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    identity = process.stdout.readline().strip()
    if not wait:
        process.kill()
    return identity, process


def test_a_living_process_is_not_dead() -> None:
    assert not has_certainly_ended(OWN)
    identity, process = child(wait=True)
    assert identity != OWN
    assert not has_certainly_ended(identity)
    process.communicate()
    assert has_certainly_ended(identity)


def test_a_process_that_nobody_has_waited_for_is_dead() -> None:
    identity, process = child(wait=False)
    assert process.stdout is not None
    process.stdout.read()  # until it has ended
    while not has_certainly_ended(identity):
        assert process.returncode is None
    process.communicate()
    assert has_certainly_ended(identity)


def changed(number: int, word: str) -> str:
    words = OWN.split(" ")
    words[number] = word
    return " ".join(words)


def test_an_id_that_was_given_again_is_another_process() -> None:
    assert has_certainly_ended(changed(3, "1"))


@pytest.mark.parametrize(
    "identity",
    [None, "", "1", changed(0, "another-machine"), changed(1, "7"), changed(2, "x"), f"{OWN} 1"],
    ids=["none", "empty", "short", "machine", "container", "pid", "long"],
)
def test_what_cannot_be_told_is_not_dead(identity: str | None) -> None:
    assert not has_certainly_ended(identity)
