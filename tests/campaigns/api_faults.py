"""Each kind of fault of the service, at each position of a run, once or for ever, over sockets.

A run of a second night meets one fault.  Its exit code must be one that the table below allows.  If
it did not publish, what analysts see is the same to the byte; if it did, it is the second night.
"""

from __future__ import annotations

import random
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import product
from typing import Any, Final

from etl.run.fetch import UNTRUSTED_PAGE_TRIES
from etl.run.plan import SyncOptions
from etl.simulator import Fault, SimulatorServer
from etl.simulator.faults import RequestInfo
from tests.campaigns.campaign import Campaign, Ending, Ground
from tests.campaigns.second_night import (
    IN_A_ROW,
    SecondNight,
    exit_of,
    second_night,
    visible,
)
from tests.support.job import Job, listed
from tests.support.service_faults import (
    APP_TOKEN,
    APP_TOKEN_ID,
    OTHERS_KS,
    api_fault,
    status_fault,
)

Codes = frozenset[int]
MIB: Final = 1 << 20


def codes(*allowed: int) -> Codes:
    return frozenset(allowed)


OK, UNAVAILABLE = codes(0), codes(69)


@dataclass(frozen=True, slots=True)
class Meeting:
    """A fault, and the exit codes that a run may have that meets it."""

    fault: Fault
    passing: Codes = OK
    """Once, or as often as there are retries."""
    staying: Codes = UNAVAILABLE
    """At every request of the position."""
    positions: tuple[str, ...] = ()
    """Where it can be met; all of ``POSITIONS`` by default."""
    lies: bool = False
    """The service says what is not so, and nothing in its reply betrays that."""
    unseen: tuple[str, ...] = ()
    """Columns that the run may not get to see."""
    attempts: int = 4
    """``ETL_RETRY_ATTEMPTS``; fewer where each attempt takes a second."""
    tries: int | None = None
    """How often a page is asked for, if that is not ``attempts``."""


def kind(name: str, passing: Codes = OK, staying: Codes = UNAVAILABLE, **more: Any) -> Meeting:
    return Meeting(Fault(name, more.pop("options", {})), passing, staying, **more)


def at_once(fault: Fault, code: int, **more: Any) -> Meeting:
    """A fault that does not pass: however often it comes, the first one ends the run."""
    return Meeting(fault, codes(code), codes(code), **more)


def harmless(name: str, **more: Any) -> Meeting:
    return kind(name, OK, OK, **more)


LISTS: Final = (
    *("first page", "middle page", "last full page", "last page"),
    *("open tokens", "look-up"),
)
POSITIONS: Final = ("login", *LISTS)
PAGES: Final = tuple(position for position in LISTS if position != "look-up")
STALLING: Final[Mapping[str, Any]] = {"attempts": 2}

MEETINGS: Final[Mapping[str, Meeting]] = {
    # Transport: what is lost on the way is asked for again.
    **{
        name: kind(name)
        for name in (
            *("close", "reset", "reset-headers", "reset-body", "close-body", "chunked-unfinished"),
            *("not-http", "corrupt-gzip", "truncated-gzip", "plain-as-gzip", "plain-as-brotli"),
        )
    },
    "close-after-reply": harmless("close-after-reply"),
    "no-answer": kind("no-answer", **STALLING),
    "drip-headers": kind("drip-headers", options={"interval_seconds": 0.05}, **STALLING),
    "slow-loris": kind("slow-loris", options={"interval_seconds": 0.05}, **STALLING),
    "gzip-bomb": at_once(Fault("gzip-bomb", {"bytes": 128 * MIB}), 65),
    "oversized-body": at_once(Fault("oversized-body", {"bytes": 128 * MIB}), 65),
    # Statuses.
    "429": kind("429", options={"retry_after": 0}),
    "429 without Retry-After": kind("429-no-retry-after"),
    "503 with Retry-After": Meeting(status_fault(503, b"", Retry_After="0")),
    "408": kind("status"),
    "500 empty": kind("500-empty"),
    **{f"{status} HTML": kind(f"{status}-html") for status in (502, 503, 504)},
    **{
        f"{status} HTML": Meeting(status_fault(status, b"<html>gateway</html>"))
        for status in (520, 521, 522, 523, 524)
    },
    "200 HTML": kind("200-html", codes(0, 65, 69), codes(65, 69)),
    "200 empty": kind("200-empty"),
    "204": Meeting(status_fault(204)),
    "401": at_once(status_fault(401), 77),
    "403": at_once(status_fault(403), 77),
    "404": at_once(status_fault(404), 78),
    "407": at_once(status_fault(407), 78),
    "413": at_once(status_fault(413), 65),
    **{
        f"redirect {status}": at_once(Fault(f"redirect-{status}"), 69)
        for status in (301, 302, 303, 307, 308)
    },
    "redirect to itself": at_once(Fault("redirect-307", {"location": "/api_v3/service"}), 69),
    # Errors of the service.
    "internal-server-error": kind(
        "internal-server-error", staying=codes(0, 65, 69), unseen=("auto_finalize",)
    ),
    "internal-database-error": kind("internal-database-error", positions=LISTS),
    "action-blocked": kind("action-blocked"),
    "lock timed out": Meeting(api_fault("LOCK_TIMED_OUT"), positions=LISTS),
    **{
        name: kind(name, codes(0, 77), codes(77), positions=LISTS)
        for name in ("ks-expired", "ks-logout", "ks-actions-limit")
    },
    "ks-restricted-ip": at_once(Fault("ks-restricted-ip"), 78, positions=LISTS),
    "ks-invalid": at_once(Fault("ks-invalid"), 77, positions=LISTS),
    "another's session": at_once(api_fault("INVALID_KS", KSID=OTHERS_KS), 77),
    "service-forbidden": at_once(Fault("service-forbidden"), 77),
    "app token expired": at_once(api_fault("APP_TOKEN_EXPIRED"), 77, positions=("login",)),
    "app token disabled": at_once(api_fault("APP_TOKEN_NOT_ACTIVE"), 77, positions=("login",)),
    "partner blocked": at_once(api_fault("SERVICE_FORBIDDEN_CONTENT_BLOCKED"), 77),
    "unknown-error": at_once(Fault("unknown-error"), 65),
    # Pages whose content is wrong.
    "memcache-down": harmless("memcache-down", positions=PAGES, unseen=("auto_finalize",)),
    "unordered-page": kind(
        "unordered-page", staying=codes(0, 65), positions=PAGES, tries=UNTRUSTED_PAGE_TRIES
    ),
    "more-rows": harmless("more-rows", positions=LISTS),
    "short-page": kind("short-page", codes(0, 65), codes(0, 65), positions=LISTS, lies=True),
    "empty-page": kind("empty-page", codes(0, 65), codes(0, 65), positions=PAGES, lies=True),
    "repeated-row": harmless("repeated-row", positions=LISTS),
    "total-zero": harmless("total-zero", positions=LISTS),
    "total-wrong": harmless("total-wrong", positions=PAGES),
    "total-missing": harmless("total-missing", positions=LISTS),
    "total-string": harmless("total-string", positions=LISTS),
    "foreign-partner": at_once(Fault("foreign-partner"), 65, positions=PAGES),
    # The tokens that are looked up are gone: the fault above would find no row to change.
    "foreign-partner, answered": at_once(
        Fault(
            "other-json",
            {
                "body": b'{"totalCount":1,"objects":[{"id":"0_x","partnerId":103,"status":3,'
                b'"createdAt":1700000000,"objectType":"KalturaUploadToken"}],'
                b'"objectType":"KalturaUploadTokenListResponse"}'
            },
        ),
        65,
        positions=("look-up",),
    ),
    "stale-cached": kind("stale-cached", positions=LISTS),
    # Replies whose form is wrong.
    "truncated-json": kind("truncated-json"),
    "bom": harmless("bom"),
    "cached": kind("cached", positions=LISTS),
    "other JSON": kind("other-json"),
    "null": kind("other-json", options={"body": b"null"}),
    "invalid UTF-8": kind("other-json", options={"body": b'{"objects":[],"a":"\xff\xfe"}'}),
    "UTF-16": kind("other-json", options={"body": '{"objects":[]}'.encode("utf-16")}),
    "nested without end": kind("other-json", options={"body": b"[" * 100_000}),
    "rows that are none": kind(
        "other-json",
        options={
            "body": b'{"totalCount":2,"objects":[null,7],'
            b'"objectType":"KalturaUploadTokenListResponse"}'
        },
        positions=LISTS,
    ),
}
"""By the name that a case has."""

PERSISTENCES: Final = ("once", "all retries but one", "for ever")
CASES: Final = [
    (name, position, persistence)
    for name, meeting in MEETINGS.items()
    for position, persistence in product(meeting.positions or POSITIONS, PERSISTENCES)
]
MIXED: Final = [
    name
    for name, meeting in MEETINGS.items()
    if not meeting.positions
    and (meeting.passing, meeting.staying, meeting.attempts) == (OK, UNAVAILABLE, 4)
]
"""Faults that pass and may follow each other."""
STRIDE: Final = 389
"""A prime, so that some seeds in a row are of different kinds and positions."""


def is_at(position: str, info: RequestInfo, server: SimulatorServer) -> bool:
    """Whether a request is one of that position."""
    if position == "login":
        return info.position == "login"
    if position == "look-up":
        return info.position == "idIn"
    if info.position != "list":
        return False
    is_open = "statusIn" in info.params["filter"]
    if is_open or position == "open tokens":
        return is_open and position == "open tokens"
    index = int(info.params["pager"]["pageIndex"])
    size = min(int(info.params["pager"]["pageSize"]), server.service.tokens.page_cap)
    total = len(server.account)
    begin, end = (index - 1) * size, index * size
    if str(info.params["filter"].get("orderBy", "")).startswith("-"):
        begin, end = total - end, total - begin
    return position == (
        "first page"
        if begin <= 0
        else "last page"
        if end >= total
        else "last full page"
        if end + size >= total
        else "middle page"
    )


@dataclass
class Fate:
    """Decides which requests meet a fault: the first ``times`` at the position."""

    position: str
    faults: Callable[[], Fault]
    times: float
    server: SimulatorServer
    met: int = 0

    def __post_init__(self) -> None:
        self._lock = threading.Lock()

    def decide(self, info: RequestInfo) -> Fault | None:
        with self._lock:
            if self.met >= self.times or not is_at(self.position, info, self.server):
                return None
            self.met += 1
            return self.faults()


def settings_of(attempts: int) -> dict[str, str]:
    """Settings of a run that fails quickly."""
    return {
        # A session by app token, so that there is a login.
        "KALTURA_ADMIN_SECRET": "",
        "KALTURA_APP_TOKEN_ID": APP_TOKEN_ID,
        "KALTURA_APP_TOKEN": APP_TOKEN,
        "KALTURA_APP_TOKEN_HASH": "SHA1",
        "ETL_RETRY_ATTEMPTS": str(attempts),
        "ETL_RETRY_TOTAL_SECONDS": "30",
        "ETL_REQUEST_TIMEOUT_SECONDS": "1" if attempts == 2 else "20",
        "ETL_MAX_UNREADABLE": "10",
    }


def run_case(ground: Ground, seed: int) -> Ending:
    name, position, persistence = CASES[seed * STRIDE % len(CASES)]
    meeting, rng = MEETINGS[name], random.Random(seed)
    scene = second_night(ground, seed // len(CASES) * IN_A_ROW + seed)
    faults: Callable[[], Fault] = lambda: meeting.fault  # noqa: E731
    allowed = meeting.staying if persistence == "for ever" else meeting.passing
    tries = meeting.tries or meeting.attempts
    times = {"once": 1.0, "all retries but one": tries - 1.0}.get(persistence, float("inf"))
    if name in MIXED and persistence == "all retries but one" and rng.random() < 0.5:
        # As often, but of several kinds: one that passes may follow another.
        others = [MEETINGS[each].fault for each in rng.sample(MIXED, meeting.attempts)]
        faults, name = iter(others).__next__, f"{name} and others"
    options = SyncOptions(mode="incremental" if position == "open tokens" else "full")
    case = f"{name}, {position}, {persistence}"
    with scene.copy(**settings_of(meeting.attempts)) as job:
        before = visible(job)
        fate = Fate(position, faults, times, scene.server)
        scene.server.faults.decide_by = fate.decide
        code, error = exit_of(job, options)
        scene.server.faults.clear()
        told = f"exit {code}" if fate.met else "not met"
        assert code in (allowed if fate.met else OK), f"{case}: exit {code}, {error!r}"
        look_at_the_ending(scene, job, code, before, meeting)
        scene.assert_repaired(job, unseen=meeting.unseen)
    return Ending(case, told, {"faults met": fate.met})


def look_at_the_ending(
    scene: SecondNight, job: Job, code: int, before: object, meeting: Meeting
) -> None:
    """What must hold after the run that met the fault."""
    if code != 0:
        assert visible(job) == before, "a run that failed changed what analysts see"
        return
    run = job.last_run()
    assert run["status"] == "succeeded", run["status"]
    here = {fields["id"] for fields in listed(scene.server)}
    current = job.current()
    lost = {token_id for token_id in here if not current.get(token_id, {}).get("is_listed")}
    if run["mode"] == "full" and not run["holes"] and not meeting.lies:
        scene.assert_published(job, meeting.unseen)
    known = set(scene.before.current())
    assert not lost & known, f"called absent although they are listed: {sorted(lost & known)[:3]}"
    assert current.keys() <= known | here, "tokens that the service never listed"


API_FAULTS: Final = Campaign(
    name="api-faults",
    promise="Whatever the service answers, or fails to: a run ends with the documented exit code, "
    "publishes everything or nothing, and the next run reaches the state of an undisturbed one.",
    run=run_case,
    table=len(CASES),
    in_slice=8,
    in_all=200,
    not_done=(
        "TLS, proxies, names that do not resolve and hosts that do not answer are tests of the "
        "client alone (tests/faults/service).",
        "A service that leaves rows out of the middle of a page without any sign of it.",
    ),
)
