"""The request to stop: by signal, from any thread, and without a lock."""

from __future__ import annotations

import gc
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator

import pytest

from etl.errors import Interrupted
from etl.process.stop import SIGNALS, Stop


@pytest.fixture(autouse=True)
def default_handlers() -> Iterator[None]:
    """Signals as a shell hands them to a program, whatever the parent of the tests ignores."""
    previous = {number: signal.signal(number, signal.SIG_DFL) for number in SIGNALS}
    yield
    for number, handler in previous.items():
        signal.signal(number, handler)


def test_waits_as_long_as_it_is_told_without_a_request() -> None:
    stop = Stop()
    began = time.monotonic()

    assert stop.wait(0.05) is False
    assert time.monotonic() - began >= 0.05
    assert stop.wait(0) is False
    stop.check()
    assert stop.signal_number is None


def test_wakes_every_thread_that_waits() -> None:
    stop, woken = Stop(), []
    threads = [threading.Thread(target=lambda: woken.append(stop.wait(60))) for _ in range(8)]
    for thread in threads:
        thread.start()
    stop.request()
    for thread in threads:
        thread.join(5)

    assert woken == [True] * 8
    assert stop.wait(60) is True


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130), (signal.SIGHUP, 129)]
)
def test_a_signal_asks_for_a_stop_and_the_first_one_counts(
    number: signal.Signals, code: int
) -> None:
    stop = Stop()
    stop.install()
    os.kill(os.getpid(), number)
    os.kill(os.getpid(), signal.SIGTERM)

    assert stop.wait(5) is True
    with pytest.raises(Interrupted, match=number.name) as caught:
        stop.check()
    assert caught.value.exit_code == code

    stop.end()
    assert {signal.getsignal(each) for each in SIGNALS} == {signal.SIG_IGN}


def test_a_signal_that_nohup_ignores_stays_ignored() -> None:
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    stop = Stop()
    stop.install()
    os.kill(os.getpid(), signal.SIGHUP)

    assert stop.wait(0.05) is False


def test_its_descriptors_are_closed_with_it() -> None:
    gc.collect()  # what other tests left may close its own meanwhile
    before = os.listdir("/proc/self/fd")
    stops = [Stop() for _ in range(10)]
    assert len(os.listdir("/proc/self/fd")) == len(before) + 20
    del stops

    assert os.listdir("/proc/self/fd") == before


def test_a_storm_of_signals_does_not_hang() -> None:
    # An Event would: its lock is taken by the code that the handler interrupts.
    program = (
        "import time\nfrom etl.process.stop import Stop\nstop = Stop()\n"
        "stop.install()\n"
        "print('ready', flush=True)\n"
        "end = time.monotonic() + 1\n"
        "while time.monotonic() < end: stop.wait(0.0001)\n"
        "print(stop.signal_number)\n"
        "stop.end()\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program], stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        while process.poll() is None:
            process.send_signal(signal.SIGTERM)
            time.sleep(0.001)

        assert process.stdout.read() == "15\n"
        assert process.returncode == 0
