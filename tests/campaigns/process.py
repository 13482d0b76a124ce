"""Processes that are killed, stopped or told to end at any moment, or live in odd surroundings."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

from tests.campaigns.campaign import Campaign, Ending, Ground
from tests.campaigns.moments import Moments, watched
from tests.campaigns.second_night import (
    SecondNight,
    exit_of,
    expire_lease,
    others_connected,
    second_night,
)
from tests.support import forked
from tests.support.job import Job, running, wait_until
from tests.support.relay import Relay, relay_before

MIB: Final = 1 << 20
STRIDE: Final = 61
"""A prime, so that some cases in a row meet the run at different moments."""
END_SECONDS_MAX: Final = 10.0
"""From the signal to the end of the process."""
EXIT_CODES: Final = {
    signal.SIGKILL: -signal.SIGKILL,
    signal.SIGTERM: 143,
    signal.SIGINT: 130,
    signal.SIGHUP: 129,
}
ACTIONS: Final = ("kill", "term", "kill", "int", "freeze", "term twice", "hup")
MEMORY_EVERY: Final = 3
"""One case of so many that interrupt has no memory left at its moment instead."""
ROOM_LEFT: Final = (0, 1 * MIB, 8 * MIB, 64 * MIB)
"""Memory that a process may still get when it is limited."""
SIGNALS: Final = {
    "kill": signal.SIGKILL,
    "term": signal.SIGTERM,
    "term twice": signal.SIGTERM,
    "int": signal.SIGINT,
    "hup": signal.SIGHUP,
}
KINDS: Final = len(ACTIONS) + 1


@dataclass
class Stage:
    """A second night whose runs reach Postgres through a relay."""

    scene: SecondNight
    relay: Relay
    output: Path
    moments: int = 0
    """Of an undisturbed run."""

    def through(self, job: Job) -> Job:
        return replace(job, database_url=self.relay.url(job.database_url))

    def run(self, job: Job) -> AbstractContextManager[subprocess.Popen[str]]:
        """A run as a process."""
        environment = self.through(job).environment()
        return running("sync", "--json", env=environment, output=self.output)


def stage_of(ground: Ground, seed: int) -> Stage:
    scene = second_night(ground, seed)

    @contextmanager
    def make() -> Iterator[Stage]:
        with relay_before(ground.postgres_url) as relay:
            stage = Stage(scene, relay, ground.folder / "output")
            for _ in range(2):  # the first one pays for what later ones find ready
                with scene.copy() as job:
                    counted = Moments()
                    with watched(scene.server, relay, counted), stage.run(job) as process:
                        assert process.wait() == 0, stage.output.read_text()
                    scene.assert_published(job)
                    stage.moments = counted.count
            yield stage

    return ground.keep(("stage", id(scene)), make)


def run_case(ground: Ground, seed: int) -> Ending:
    number, kind = divmod(seed, KINDS)
    if kind == len(ACTIONS):
        name = list(SURROUNDINGS)[number % len(SURROUNDINGS)]
        return live_in(ground, seed, name)
    stage = stage_of(ground, seed)
    moment = number * STRIDE % stage.moments
    action = ACTIONS[kind]
    with stage.scene.copy() as job:
        if action == "int" and number % MEMORY_EVERY == MEMORY_EVERY - 1:
            action = "memory"
            result = limit_memory(stage, job, moment, ROOM_LEFT[number % len(ROOM_LEFT)])
        elif action == "freeze":
            result = freeze(stage, job, moment)
        else:
            result = disturb(stage, job, moment, action)
    return Ending(f"{action} at moment {moment} of {stage.moments}", f"{action}: {result}")


def disturb(stage: Stage, job: Job, moment: int, action: str) -> str:
    """Send a signal at a moment; then a normal run."""
    number = SIGNALS[action]
    pid: list[int] = []
    started = threading.Event()

    def act() -> int | None:
        assert started.wait(30)
        with suppress(ProcessLookupError):
            os.kill(pid[0], number)
        return 0 if number == signal.SIGKILL else None

    moments = Moments({moment: act} | ({moment + 1: act} if action == "term twice" else {}))
    with watched(stage.scene.server, stage.relay, moments), stage.run(job) as process:
        pid.append(process.pid)
        started.set()
        code = wait_for(process, moments)
    # Postgres may be committing what it was sent before the end.
    wait_until(lambda: others_connected(job) == 0)
    said = stage.output.read_text()[-2_000:]
    published = stage.scene.assert_one_of_both(job)
    (stage.scene.assert_published if published else stage.scene.assert_untouched)(job)
    run = job.last_run()
    opened = len(job.runs()) > 1
    if not moments.reached.is_set() or (code == 0 and number != signal.SIGKILL):
        # It came after the last moment, or when the run could no longer be stopped.
        assert (code, published) == (0, True), (code, said)
        result = "published"
    else:
        assert code == EXIT_CODES[number], (code, said)
        if number == signal.SIGKILL:
            assert run["status"] in ("running", "succeeded")
        elif opened:
            assert (run["status"], run["error_kind"]) == ("failed", "interrupted"), said
        result = f"{run['status'] if opened else 'not opened'}, exit {code}"
    expire_lease(job)
    stage.scene.assert_repaired(job)
    if opened and run["status"] == "running":
        assert job.runs()[1]["status"] == "abandoned"
    return result


def wait_for(
    process: subprocess.Popen[str], moments: Moments, seconds: float = END_SECONDS_MAX
) -> int:
    """The exit code; it is a breach when a process outlives its signal by far."""
    wait_until(lambda: moments.reached.is_set() or process.poll() is not None, 90)
    return process.wait(seconds)


def freeze(stage: Stage, job: Job, moment: int) -> str:
    """SIGSTOP at a moment, for longer than the lease lasts; another run takes over meanwhile."""
    pid: list[int] = []
    started = threading.Event()

    def act() -> None:
        assert started.wait(30)
        with suppress(ProcessLookupError):
            os.kill(pid[0], signal.SIGSTOP)

    moments = Moments({moment: act})
    with watched(stage.scene.server, stage.relay, moments), stage.run(job) as process:
        pid.append(process.pid)
        started.set()
        wait_until(lambda: moments.reached.is_set() or process.poll() is not None, 90)
        expire_lease(job)
        # The frozen one may hold locks of a transaction, for which the other does not wait long.
        other, error = exit_of(job)
        assert other in (0, 74, 75), repr(error)
        before = job.everything()
        process.send_signal(signal.SIGCONT)
        code = wait_for(process, moments, 60)
    said = stage.output.read_text()[-2_000:]
    assert code in (0, 74, 75), (code, said)
    wait_until(lambda: others_connected(job) == 0)
    if other == 0 and code != 0:
        assert job.everything() == before, "it wrote although its lease was taken over"
    published = sum(run["status"] == "succeeded" for run in job.runs()) > 1
    (stage.scene.assert_published if published else stage.scene.assert_untouched)(job)
    expire_lease(job)
    stage.scene.assert_repaired(job)
    return f"exit {code}, the other one {other}"


def limit_memory(stage: Stage, job: Job, moment: int, room: int) -> str:
    """From a moment on, the process gets no more memory than it has, and a little."""
    pid: list[int] = []
    started = threading.Event()

    def act() -> None:
        assert started.wait(30)
        with suppress(ProcessLookupError, FileNotFoundError):
            pages = int(Path(f"/proc/{pid[0]}/statm").read_text().split()[0])
            most = pages * resource.getpagesize() + room
            resource.prlimit(pid[0], resource.RLIMIT_AS, (most, most))

    moments = Moments({moment: act})
    with watched(stage.scene.server, stage.relay, moments), stage.run(job) as process:
        pid.append(process.pid)
        started.set()
        code = wait_for(process, moments, 60)
    wait_until(lambda: others_connected(job) == 0)
    said = stage.output.read_text()[-2_000:]
    published = stage.scene.assert_one_of_both(job)
    (stage.scene.assert_published if published else stage.scene.assert_untouched)(job)
    assert code != 0 or published, said
    expire_lease(job)
    stage.scene.assert_repaired(job)
    return f"exit {code}{', published' if published and code else ''}"


# --- odd surroundings ----------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What is odd around a process, and the exit codes that it may have."""

    environment: Mapping[str, str | None] = field(default_factory=dict)
    """None removes a variable."""
    limits: Mapping[int, int] = field(default_factory=dict)
    """Resource limits (``resource.RLIMIT_…``)."""
    before: Callable[[], object] = lambda: None
    """Called in the process before the program begins."""
    streams: Mapping[str, str] = field(default_factory=dict)
    """``stdin``, ``stdout`` or ``stderr``: a file, ``closed``, or ``broken`` for a pipe that nobody
    reads."""
    codes: frozenset[int] | None = frozenset({0})
    """None: any; it may even be killed."""
    begin: tuple[str, ...] = ()
    """What the command line begins with."""


def close_all() -> None:
    os.closerange(0, 3)


def read_only_root() -> Surroundings:
    """All files of the machine are read-only; only root can make it so."""
    if os.geteuid() != 0:
        return Surroundings({"HOME": "/proc", "TMPDIR": "/proc"})
    mount = 'mount -o remount,bind,ro / && exec "$@"'
    return Surroundings(begin=("unshare", "--mount", "sh", "-c", mount, "sh"))


ENDED_BY_OUTPUT: Final = frozenset({0, 1, 74})
SURROUNDINGS: Final[Mapping[str, Surroundings]] = {
    "no HOME, no PATH": Surroundings({"HOME": None, "PATH": None}),
    "HOME that does not exist": Surroundings({"HOME": "/nonexistent"}),
    "TMPDIR that does not exist": Surroundings({"TMPDIR": "/nonexistent"}),
    "HOME and TMPDIR that even root cannot write": Surroundings(
        {"HOME": "/proc", "TMPDIR": "/proc"}
    ),
    "read-only root": read_only_root(),
    **{
        f"locale {name}": Surroundings({"LC_ALL": name, "LANG": name, "PYTHONUTF8": utf8})
        for name, utf8 in (
            *(("C", "0"), ("POSIX", "0"), ("tr_TR.UTF-8", "0"), ("xx_YY.NONSENSE", "0")),
            ("C", "1"),
        )
    },
    "ASCII streams": Surroundings({"PYTHONIOENCODING": "ascii", "LC_ALL": "C"}),
    **{
        f"TZ {zone}": Surroundings({"TZ": zone, "PGTZ": zone})
        for zone in (
            *("Asia/Kolkata", "Australia/Lord_Howe", "America/New_York", "Pacific/Kiritimati"),
            *("<+14>-14", "Europe/Berlin"),
        )
    },
    "TZ Nowhere/Land": Surroundings({"TZ": "Nowhere/Land"}),
    "PYTHONHASHSEED 0": Surroundings({"PYTHONHASHSEED": "0"}),
    "PYTHONHASHSEED 4294967295": Surroundings({"PYTHONHASHSEED": "4294967295"}),
    "no assertions": Surroundings({"PYTHONOPTIMIZE": "2"}),
    "a terminal of one column": Surroundings({"COLUMNS": "1", "LINES": "1", "TERM": "dumb"}),
    "umask 000": Surroundings(before=lambda: os.umask(0)),
    "umask 777": Surroundings(before=lambda: os.umask(0o777)),
    "working directory gone": Surroundings(before=lambda: leave_for_nowhere()),  # noqa: PLW0108
    "64 open files": Surroundings(limits={resource.RLIMIT_NOFILE: 64}),
    "16 open files": Surroundings(limits={resource.RLIMIT_NOFILE: 16}, codes=None),
    **{
        f"{mib} MiB of memory": Surroundings(limits={resource.RLIMIT_AS: mib * MIB}, codes=None)
        for mib in (100, 200, 260, 320, 400, 500)
    },
    "no room for files": Surroundings(
        {"ETL_METRICS_FILE": "{folder}/metrics.prom", "ETL_ARCHIVE": "{folder}/archive"},
        limits={resource.RLIMIT_FSIZE: 2_000},
        codes=frozenset({0, 74}),
    ),
    "stdin closed": Surroundings(streams={"stdin": "closed"}),
    "stdout closed": Surroundings(streams={"stdout": "closed"}, codes=ENDED_BY_OUTPUT),
    "stderr closed": Surroundings(streams={"stderr": "closed"}, codes=ENDED_BY_OUTPUT),
    "all streams closed": Surroundings(
        streams={"stdin": "closed", "stdout": "closed", "stderr": "closed"}, codes=ENDED_BY_OUTPUT
    ),
    "nobody reads stdout": Surroundings(streams={"stdout": "broken"}, codes=ENDED_BY_OUTPUT),
    "nobody reads stderr": Surroundings(streams={"stderr": "broken"}, codes=ENDED_BY_OUTPUT),
    "stdout on a full disk": Surroundings(streams={"stdout": "/dev/full"}, codes=ENDED_BY_OUTPUT),
    "stderr on a full disk": Surroundings(streams={"stderr": "/dev/full"}, codes=ENDED_BY_OUTPUT),
}


def leave_for_nowhere() -> None:
    folder = f"/tmp/kaltura-etl-gone-{os.getpid()}"  # noqa: S108 - removed in the next line but one
    os.mkdir(folder)
    os.chdir(folder)
    os.rmdir(folder)


def live_in(ground: Ground, seed: int, name: str) -> Ending:
    """A run as a process in odd surroundings, and a normal one after it."""
    odd, scene = SURROUNDINGS[name], second_night(ground, seed)
    folder = ground.folder / f"odd-{seed}"
    folder.mkdir(exist_ok=True)
    with scene.copy() as job:
        code, said = run_oddly(job, odd, folder)
        published = scene.assert_one_of_both(job)
        (scene.assert_published if published else scene.assert_untouched)(job)
        assert odd.codes is None or code in odd.codes, (code, said)
        assert code != 0 or published, "exit 0, and not published"
        expire_lease(job)
        scene.assert_repaired(job)
    return Ending(name, f"surroundings: exit {code}{', published' if published and code else ''}")


def run_oddly(job: Job, odd: Surroundings, folder: Path) -> tuple[int, str]:
    """Exit code, and what was written to the log."""
    environment = forked.environment()
    # CPython 3.11 does not notice that a .pyc was cut off by a limit, and would spoil the checkout.
    environment["PYTHONDONTWRITEBYTECODE"] = "1"
    environment |= job.environment()
    for name, value in odd.environment.items():
        environment.pop(name, None)
        if value is not None:
            environment[name] = value.format(folder=folder)

    def prepare() -> None:
        for number, (stream, where) in enumerate(
            (each, odd.streams.get(each)) for each in ("stdin", "stdout", "stderr")
        ):
            del stream
            if where == "closed":
                os.close(number)
        odd.before()
        for limit, value in odd.limits.items():
            resource.setrlimit(limit, (value, value))

    with ExitStack() as stack:
        log = stack.enter_context((folder / "log").open("w+"))
        streams: dict[str, Any] = {"stdin": subprocess.DEVNULL, "stdout": log, "stderr": log}
        for stream, where in odd.streams.items():
            if where == "broken":
                reader, writer = os.pipe()
                os.close(reader)
                stack.callback(os.close, writer)
                streams[stream] = writer
            elif where != "closed":
                streams[stream] = stack.enter_context(open(where, "w"))
        process = subprocess.Popen(
            [*odd.begin, sys.executable, "-m", "etl", "sync", "--json"],
            env=environment,
            preexec_fn=prepare,  # noqa: PLW1509 - it takes no lock
            **streams,
        )
        try:
            code = process.wait(60)
        finally:
            process.kill()
            process.wait()
        log.seek(0)
        return code, log.read()[-2_000:]


PROCESS: Final = Campaign(
    name="process",
    promise="A process may be killed, frozen past its lease, interrupted or run out of memory, "
    "files or output at any moment: a reader sees the state before or after its run, nothing "
    "between; it ends within ten seconds of a signal, and the next run repairs everything.",
    run=run_case,
    in_slice=KINDS,
    in_all=160,
    found=(
        "`verify` told `resumed_runs_continue` of a start that was killed before it held the lease "
        "(seed 8; mended in `sql/checks/resumed_runs_continue.sql`).",
    ),
    not_done=(
        "A container's memory limit ends a process with SIGKILL, which is tried; here memory is "
        "limited by RLIMIT_AS.",
        "A host that vanishes without closing connections.",
    ),
)
