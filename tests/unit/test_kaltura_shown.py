"""Nothing that the service echoes is shown but known names: no secret, and no part of one."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from urllib.parse import quote

import pytest

from etl.errors import EtlError
from etl.kaltura.replies import error_for_code
from etl.kaltura.shown import shown_code, shown_host, shown_names
from etl.process.secrets import Scrubber

SESSION = "djJ8MTAyfCANARYQWERTY_A03r9utZeV-S8X4EaUPPER_CASE_WORDSn875dj92XnTd5DR8BPzW=="
SECRET = "9f3a77c1d0b84e2f9a6c5d4e3f2a1b0c"
ANOTHERS_SESSION = "djJ8OTk5fCBkCzfHzDrXcZ_nq875dj92XnTd5DR8BP1zWYDUYyiW3qJtdQ_B-nfZKU=="
WINDOW = 8
ARGS = ("SERVICE", "SERVICE_NAME", "ACTION_NAME", "SRV_NAME", "PARAM_NAME", "PROP_NAME", "ID")


@pytest.fixture
def scrubber() -> Scrubber:
    """One that knows our session and our secret; of another client's nobody knows."""
    return Scrubber([SESSION, SECRET])


def echoes(secret: str) -> Iterator[str]:
    """What a service may make of a secret: whole, in parts, encoded, in other letters."""
    forms = [
        secret,
        quote(secret, safe=""),
        "".join(f"%{byte:02X}" for byte in secret.encode()),
        base64.b64encode(secret.encode()).decode(),
        base64.urlsafe_b64encode(b"x" + secret.encode()).decode(),
        secret.encode().hex(),
    ]
    for form in forms:
        yield from (form, form.upper(), form.lower())
        for size in (WINDOW, 16, len(form) // 2):
            yield from (form[at : at + size] for at in range(0, len(form) - size, 3))


def windows(text: str, size: int) -> set[str]:
    return {text[at : at + size] for at in range(len(text) - size + 1)}


@pytest.mark.parametrize("secret", [SESSION, SECRET, ANOTHERS_SESSION])
def test_no_part_of_a_secret_is_shown_wherever_it_is_echoed(
    secret: str, scrubber: Scrubber
) -> None:
    program = windows(_text(error_for_code("ODD_CODE", {}, scrubber, {})).lower(), WINDOW)
    for echo in echoes(secret):
        for code, args in (
            (echo, {}),
            ("ODD_CODE", dict.fromkeys(ARGS, echo)),
            ("ODD_CODE", dict.fromkeys(ARGS, f"{echo}->list")),
            ("INVALID_KS", {"KSID": echo}),
        ):
            shown = _text(error_for_code(code, args, scrubber, {})).lower()
            assert not (windows(echo.lower(), WINDOW) & windows(shown, WINDOW)) - program, echo
        host = shown_host(echo.lower(), scrubber)
        assert host is None or secret is ANOTHERS_SESSION


def _text(error: EtlError) -> str:
    return f"{error.message} {error.fields}"


@pytest.mark.parametrize(
    ("args", "shown"),
    [
        ({"SERVICE": "uploadToken->list"}, ["uploadToken->list"]),
        ({"SERVICE_NAME": "uploadtoken", "ACTION_NAME": "list"}, ["uploadToken", "list"]),
        ({"PARAM_NAME": "filter:statusIn"}, ["filter:statusIn"]),
        ({"PARAM_NAME": "secret", "ENUM_VAL": "6"}, ["secret"]),
        ({"ACTION_NAME": "", "SERVICE_NAME": "uploadtoken"}, ["uploadToken"]),
        ({"ACTION_NAME": "nosuch", "SERVICE": "list->nosuch", "PROP_NAME": ["filter"]}, []),
        ({}, []),
    ],
)
def test_names_that_the_program_sends_are_shown(args: dict[str, object], shown: list[str]) -> None:
    assert shown_names(args) == shown


def test_codes_are_shown_that_are_known_or_look_like_one(scrubber: Scrubber) -> None:
    for code in ("INVALID_KS", "FLUX_CAPACITOR_EMPTY", "UPLOAD_TOKEN_NOT_FOUND"):
        assert shown_code(code, {"INVALID_KS"}, scrubber) == code
    assert shown_code("500", {"500"}, scrubber) == "500"
    for code in ("UPPER_CASE_WORDS", "ONEWORD", "lower_case", "A_1", "A__B", "", "A_" * 32 + "A"):
        assert shown_code(code, {"INVALID_KS"}, scrubber) == "(unreadable code)"


def test_a_host_is_shown_that_holds_nothing_secret(scrubber: Scrubber) -> None:
    for host in ("login.example.com", "10.0.0.1", "fe80::1"):
        assert shown_host(host, scrubber) == host
    hidden = ("", "a b", "x" * 101, f"{SECRET[8:16]}.example.com", SESSION[:30].lower())
    for nothing in (None, *hidden):
        assert shown_host(nothing, scrubber) is None
