"""No secret leaves in a text, in whichever form it travels."""

from __future__ import annotations

import base64
from urllib.parse import quote, quote_plus

import pytest
from hypothesis import given
from hypothesis import strategies as st

from etl.kaltura.redaction import Secrets, session_id_text

SECRET = "s3cr3t/+with space&="


@pytest.mark.parametrize(
    "form",
    [
        SECRET,
        quote(SECRET, safe=""),
        quote_plus(SECRET),
        SECRET.replace("/", "\\/"),
        base64.b64encode(SECRET.encode()).decode(),
        base64.urlsafe_b64encode(SECRET.encode()).decode(),
        SECRET.encode().hex(),
    ],
)
def test_a_known_secret_is_removed_in_every_form(form: str) -> None:
    secrets = Secrets()
    secrets.add(SECRET)

    assert secrets.scrub(f"before {form} after") == "before *** after"


@given(
    prefix=st.binary(max_size=7),
    secret=st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=12, max_size=60),
    suffix=st.binary(max_size=7),
)
def test_a_secret_inside_base64_is_broken_up_whatever_stands_beside_it(
    prefix: bytes, secret: str, suffix: bytes
) -> None:
    secrets = Secrets()
    secrets.add(secret)
    encoded = base64.b64encode(prefix + secret.encode() + suffix).decode()

    left = secrets.scrub(encoded)

    inner = base64.b64encode(secret.encode()).decode().rstrip("=")[:12]
    assert inner not in left
    assert "***" in left


def test_a_long_secret_goes_before_a_short_one_inside_it() -> None:
    secrets = Secrets()
    secrets.add("abcd")
    secrets.add("abcd-and-the-rest")

    assert secrets.scrub("it is abcd-and-the-rest.") == "it is ***."


@pytest.mark.parametrize(
    "text",
    [
        "djJ8MTAyfBZhZFA00wjVo1FoZiqCtQA03r9utZeV-S8X4EaNzGiA_DnAbLvfIbjB7o77CYlrA3ZBesoAkkxTc2==",
        "MDhiMmIxMTNkZmQxZWUzMWM1YmNmNGQ3MjJhN2I4ZjA0MmE2OGYwNnwxMDI7MTAyOzE3OTU0MjM0Nzc7Mg==",
        "03b39a73092a685dd0e72d90a13b1a0f",
    ],
)
def test_another_clients_session_is_removed_by_its_shape(text: str) -> None:
    assert Secrets().scrub(f'Invalid KS "{text}"!') == 'Invalid KS "***"!'


@pytest.mark.parametrize(
    "text",
    [
        "Kaltura answered SERVICE_FORBIDDEN_CONTENT_BLOCKED: the account is blocked",
        "[Errno 111] Connection refused",
        "no complete reply within 60 s",
    ],
)
def test_ordinary_words_stay(text: str) -> None:
    assert Secrets().scrub(text) == text


def test_very_short_values_are_not_secrets() -> None:
    secrets = Secrets()
    secrets.add("", None, "a", "102")

    assert secrets.scrub("partner 102 has a page") == "partner 102 has a page"


def test_only_a_well_formed_session_id_is_shown() -> None:
    assert session_id_text("2013301934, 1795424053") == "2013301934, 1795424053"
    assert session_id_text("djJ8MTAyfBZhZ") is None
    assert session_id_text(None) is None
