"""Logs: their two forms, and that no secret and nothing that steers a terminal gets out."""

from __future__ import annotations

import base64
import io
import json
import logging
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from urllib.parse import quote

import pytest

from etl.process import log as log_module
from etl.process.log import (
    JsonFormatter,
    StandardErrorHandler,
    TextFormatter,
    exception_places,
    printable,
    setup_logging,
)
from etl.process.secrets import Scrubber

CANARY = 'canary/5f3a9+"é\\%'


@pytest.fixture(autouse=True)
def own_scrubber(monkeypatch: pytest.MonkeyPatch) -> Scrubber:
    scrubber = Scrubber([CANARY])
    monkeypatch.setattr(log_module, "scrub", scrubber)
    return scrubber


@pytest.fixture
def restored() -> Iterator[None]:
    """Leave the process's logging as it was."""
    root, ours = logging.getLogger(), logging.getLogger("etl")
    before = root.handlers[:], root.level, ours.level, logging.raiseExceptions
    yield
    root.handlers[:], level, ours_level, logging.raiseExceptions = before
    root.setLevel(level)
    ours.setLevel(ours_level)
    logging.captureWarnings(False)


def record(message: str, *arguments: object, **fields: object) -> logging.LogRecord:
    made = logging.LogRecord("etl.test", logging.INFO, "f.py", 1, message, arguments, None)
    vars(made).update(fields)
    return made


def test_json_is_one_object_a_line_with_the_fields_of_extra() -> None:
    line = JsonFormatter().format(
        record(
            "page %s read\n",
            3,
            rows=500,
            share=float("nan"),
            at=datetime(2026, 1, 2, tzinfo=UTC),
            level="theirs",
            lone="\ud800",
        )
    )

    assert "\n" not in line
    event = json.loads(line)
    assert event.pop("time").endswith("Z")
    assert event == {
        "level": "info",
        "logger": "etl.test",
        "event": "page 3 read\n",
        "rows": 500,
        "share": "nan",
        "at": "2026-01-02T00:00:00+00:00",
        "level_": "theirs",
        "lone": "\ufffd",
    }


def test_a_name_for_machines_is_the_event_and_the_sentence_stays() -> None:
    opened = record("session opened", event="session_opened")

    event = json.loads(JsonFormatter().format(opened))
    assert (event["event"], event["message"]) == ("session_opened", "session opened")
    assert TextFormatter().format(opened).endswith(" info    session opened")


def test_text_is_one_line_with_key_and_value() -> None:
    line = TextFormatter().format(record("read", rows=500, label="two words", none=None))

    # What is not known is left out: text is for people.
    assert line[8:] == " info    read  rows=500  label='two words'"


@pytest.mark.parametrize("formatter", [JsonFormatter(), TextFormatter()])
def test_what_steers_a_terminal_is_escaped(formatter: logging.Formatter) -> None:
    line = formatter.format(record("a\x1b[31m\r\nb", label="\u202egnp.exe\x9b\x07"))

    if isinstance(formatter, TextFormatter):
        assert not set(line) & set("\x1b\r\n\u202e\x9b\x07")
    else:
        assert not set(line) & set("\x1b\r\n\x07")


@pytest.mark.parametrize("formatter", [JsonFormatter(), TextFormatter()])
@pytest.mark.parametrize(
    "form",
    [
        CANARY,
        quote(CANARY, safe=""),
        json.dumps(CANARY),
        repr(CANARY),
        CANARY.encode().hex(),
        base64.b64encode(CANARY.encode()).decode(),
        base64.b64encode(f"user:{CANARY}".encode()).decode(),
        base64.urlsafe_b64encode(f"xx{CANARY}yy".encode()).decode(),
    ],
)
def test_a_secret_is_removed_in_every_form(formatter: logging.Formatter, form: str) -> None:
    def lines() -> Iterator[str]:
        yield formatter.format(record(f"refused: {form}"))
        yield formatter.format(record("refused: %s", form))
        yield formatter.format(record("refused", body={"ks": [form]}))
        try:
            raise ValueError(form)
        except ValueError:
            failed = record("refused")
            failed.exc_info = sys.exc_info()
            yield formatter.format(failed)

    for line in lines():
        assert "***" in line
        assert "5f3a9" not in line
        assert form[4:-6] not in line


def test_an_exception_shows_places_but_no_values() -> None:
    def fails() -> None:
        local = "value-of-a-row"
        raise RuntimeError(f"duplicate key\nDETAIL: Key (id)=({local}) exists")

    with pytest.raises(RuntimeError) as caught:
        fails()
    failed = record("this is a bug")
    failed.exc_info = (caught.type, caught.value, caught.tb)

    assert exception_places(caught.value)[-1].endswith(" fails")
    event = json.loads(JsonFormatter().format(failed))
    assert event["exception"] == "RuntimeError: duplicate key"
    assert "value-of-a-row" not in json.dumps(event)


@pytest.mark.usefixtures("restored")
def test_only_our_own_loggers_are_heard_below_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = io.StringIO()
    monkeypatch.setattr(sys, "stderr", stream)
    setup_logging(level="DEBUG")
    setup_logging(level="DEBUG")  # again: not twice the lines

    logging.getLogger("etl.kaltura").debug("ours")
    logging.getLogger("obstore").info("theirs")
    logging.getLogger("obstore").warning("loud")

    assert [json.loads(line)["event"] for line in stream.getvalue().splitlines()] == [
        "ours",
        "loud",
    ]


@pytest.mark.usefixtures("restored")
def test_a_wrong_log_call_does_not_raise(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = io.StringIO()
    monkeypatch.setattr(sys, "stderr", stream)
    setup_logging()

    logging.getLogger("etl.x").info("%d pages", "many")

    assert "its arguments do not fit" in stream.getvalue()


def test_a_broken_stream_is_given_up_silently() -> None:
    class Broken(io.StringIO):
        writes = 0

        def write(self, text: str) -> int:
            del text
            self.writes += 1
            raise BrokenPipeError

    stream = Broken()
    handler = StandardErrorHandler(stream)
    handler.setFormatter(JsonFormatter())
    for _ in range(3):
        handler.handle(record("read"))

    assert stream.writes == 1


def test_printable_is_bounded() -> None:
    assert len(printable("x" * 1_000_000)) < 10_000
