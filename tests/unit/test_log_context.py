"""Lines of several parts of the program at the same time: each has the fields of its own."""

from __future__ import annotations

import io
import json
import logging
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from etl.process.log import setup_logging
from etl.process.log_context import log_fields, with_log_fields

log = logging.getLogger("etl.test")


@pytest.fixture
def lines(monkeypatch: pytest.MonkeyPatch) -> Iterator[io.StringIO]:
    """What is logged, as JSON."""
    stream = io.StringIO()
    monkeypatch.setattr(sys, "stderr", stream)
    root, ours = logging.getLogger(), logging.getLogger("etl")
    before = root.handlers[:], root.level, ours.level, logging.raiseExceptions
    setup_logging(log_format="json")
    yield stream
    root.handlers[:], level, ours_level, logging.raiseExceptions = before
    root.setLevel(level)
    ours.setLevel(ours_level)
    logging.captureWarnings(False)


def test_each_thread_logs_the_fields_of_its_own_block(lines: io.StringIO) -> None:
    both_inside = threading.Barrier(2)

    def work(account: str) -> None:
        with log_fields(account=account), ThreadPoolExecutor(1) as pool:
            both_inside.wait(10)
            log.info("own thread")
            pool.submit(with_log_fields(log.info), "thread of a pool").result()
            both_inside.wait(10)

    threads = [threading.Thread(target=work, args=(name,)) for name in ("acme", "globex")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    log.info("outside")

    found = [json.loads(line) for line in lines.getvalue().splitlines()]
    assert sorted((each["event"], each.get("account", "")) for each in found) == [
        ("outside", ""),
        ("own thread", "acme"),
        ("own thread", "globex"),
        ("thread of a pool", "acme"),
        ("thread of a pool", "globex"),
    ]


def test_a_line_keeps_a_field_of_its_own(lines: io.StringIO) -> None:
    with log_fields(account="acme", partner_id=1), log_fields(partner_id=2):
        log.info("inner", extra={"account": "globex"})

    line = json.loads(lines.getvalue())
    assert (line["account"], line["partner_id"]) == ("globex", 2)
