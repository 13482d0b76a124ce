"""No secret leaves in a text, in whichever form it travels."""

from __future__ import annotations

import base64
import json
import re
import threading
from urllib.parse import quote, quote_plus

import pytest
from hypothesis import given
from hypothesis import strategies as st

from etl.process.secrets import Scrubber

SECRET = "s3cr3t/+with space&=\"é\\%'"


@pytest.mark.parametrize(
    "form",
    [
        SECRET,
        quote(SECRET, safe=""),
        quote_plus(SECRET),
        json.dumps(SECRET)[1:-1],
        json.dumps(SECRET, ensure_ascii=False)[1:-1],
        json.dumps(SECRET)[1:-1].replace("/", "\\/"),
        SECRET.replace("/", "\\/"),
        repr(SECRET)[1:-1],
        base64.b64encode(SECRET.encode()).decode(),
        base64.urlsafe_b64encode(SECRET.encode()).decode(),
        SECRET.encode().hex(),
    ],
)
def test_a_known_secret_is_removed_in_every_form(form: str) -> None:
    scrubber = Scrubber([SECRET])

    assert scrubber(f"before {form} after") == "before *** after"
    assert scrubber.scrub_foreign(f"before {form} after") == "before *** after"


@given(
    prefix=st.binary(max_size=7),
    secret=st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=12, max_size=60),
    suffix=st.binary(max_size=7),
)
def test_a_secret_inside_base64_is_broken_up_whatever_stands_beside_it(
    prefix: bytes, secret: str, suffix: bytes
) -> None:
    encoded = base64.b64encode(prefix + secret.encode() + suffix).decode()

    left = Scrubber([secret])(encoded)

    inner = base64.b64encode(secret.encode()).decode().rstrip("=")[:12]
    assert inner not in left
    assert "***" in left


@pytest.mark.parametrize("secret", ["hunter2", "p@ss", "8chars-x"])
def test_a_short_secret_that_is_no_ordinary_word_is_removed_inside_words_too(secret: str) -> None:
    assert Scrubber([secret])(f"x{secret}y") == "x***y"


@pytest.mark.parametrize("secret", ["sesames", "postgres", "20261231"])
def test_a_short_word_or_number_is_removed_encoded_inside_other_text(secret: str) -> None:
    basic = base64.b64encode(f"user:{secret}".encode()).decode()

    assert "***" in Scrubber([secret])(basic)
    assert Scrubber([secret])(f"x{secret.encode().hex()}y") == "x***y"


def test_an_ordinary_short_word_is_removed_as_a_word_only() -> None:
    assert Scrubber(["etl"])("password=etl in etl_schema, settled") == (
        "password=*** in ***_schema, settled"
    )
    assert Scrubber(["postgres"])("postgresql://u:postgres@h") == "postgresql://u:***@h"


@pytest.mark.parametrize(
    ("short", "long"),
    [
        ("abcd", "abcd-and-the-rest"),
        ("0123456789abcdef", "0123456789abcdef-and-the-rest"),
    ],
)
def test_a_secret_inside_another_does_not_leave_the_rest(short: str, long: str) -> None:
    scrubber = Scrubber([short])
    scrubber.add(long)

    assert scrubber(f"it is {long}.") == "it is ***."


def test_very_short_values_are_not_secrets() -> None:
    scrubber = Scrubber()
    scrubber.add("", None, "a", "10")

    assert scrubber("partner 10 has a page") == "partner 10 has a page"


def test_a_session_that_is_not_known_is_removed() -> None:
    version_2 = base64.urlsafe_b64encode(b"v2|102|" + bytes(range(60))).decode()
    version_1 = base64.b64encode(b"a" * 40 + b"|102;102;1799999999;2;1;;").decode()

    assert Scrubber()(f"ks={version_2}; ks={version_1}.") == "ks=***; ks=***."
    digest = "b1" * 32
    assert Scrubber()(f"sha256 {digest}") == f"sha256 {digest}"


@pytest.mark.parametrize(
    "text",
    [
        "djJ8MTAyfBZhZFA00wjVo1FoZiqCtQA03r9utZeV-S8X4EaNzGiA_DnAbLvfIbjB7o77CYlrA3ZBesoAkkxTc2==",
        "djJ8MTA",
        "MDhiMmIxMTNkZmQxZWUzMWM1YmNmNGQ3MjJhN2I4ZjA0MmE2OGYwNnwxMDI7MTAyOzE3OTU0MjM0Nzc7Mg==",
        "03b39a73092a685dd0e72d90a13b1a0f",
    ],
)
def test_another_clients_session_is_removed_from_foreign_texts_by_its_shape(text: str) -> None:
    assert Scrubber().scrub_foreign(f'Invalid KS "{text}"!') == 'Invalid KS "***"!'


@pytest.mark.parametrize(
    "text",
    [
        "Kaltura answered SERVICE_FORBIDDEN_CONTENT_BLOCKED: the account is blocked",
        "[Errno 111] Connection refused",
        "no complete reply within 60 s",
    ],
)
def test_ordinary_words_stay(text: str) -> None:
    assert Scrubber().scrub_foreign(text) == text


def test_the_expression_is_made_for_a_text_not_for_each_secret(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A run learns several secrets, and mostly has nothing to remove."""
    made, make = [], re.compile

    def compiled(pattern: str) -> re.Pattern[str]:
        made.append(pattern)
        return make(pattern)

    monkeypatch.setattr(re, "compile", compiled)
    scrubber = Scrubber(["first secret"])
    scrubber.add("second secret")
    assert made == []
    assert [scrubber("first secret"), scrubber("second secret")] == ["***", "***"]
    assert len(made) == 1
    scrubber.add("third secret")

    assert scrubber("first secret, third secret") == "***, ***"
    assert len(made) == 2


def test_secrets_may_be_added_while_others_scrub() -> None:
    scrubber = Scrubber(["secret-number-0"])
    texts: list[str] = []
    workers = [
        threading.Thread(target=lambda: scrubber.add(*(f"secret-number-{n}" for n in range(50)))),
        *(
            threading.Thread(
                target=lambda: texts.extend(scrubber("secret-number-0") for _ in range(200))
            )
            for _ in range(4)
        ),
    ]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()

    assert set(texts) == {"***"}
    assert scrubber("secret-number-49") == "***"
