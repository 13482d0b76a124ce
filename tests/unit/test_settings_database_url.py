"""DATABASE_URL: what is accepted, and that no message holds a piece of the password."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from psycopg.conninfo import conninfo_to_dict
from psycopg.pq import Conninfo

from etl.settings.database_parameters import KNOWN
from etl.settings.values import (
    database_address,
    database_passwords,
    database_url,
    masked_database_url,
)


@pytest.mark.parametrize(
    ("given_url", "normal"),
    [
        ("postgresql://h/d", "postgresql://h/d"),
        ("postgres://u:p@h:5432/d", "postgresql://u:p@h:5432/d"),
        ("postgresql+psycopg://u@h/d", "postgresql://u@h/d"),
        ("POSTGRES://u@h/d", "postgresql://u@h/d"),
        ("postgresql:///d?host=/run/pg", "postgresql:///d?host=/run/pg"),
        ("postgresql://u:p%40ss%2F@[::1]:5433/d", "postgresql://u:p%40ss%2F@[::1]:5433/d"),
        ("postgresql://a:1,b:2/d", "postgresql://a:1,b:2/d"),
        ("postgresql://%2Frun%2Fpg/d", "postgresql://%2Frun%2Fpg/d"),
    ],
)
def test_accepts_every_form_of_a_postgres_address(given_url: str, normal: str) -> None:
    assert database_url(given_url) == normal


@pytest.mark.parametrize(
    "url",
    [
        "canary",
        "mysql://u:canary@h/d",
        "postgresql+asyncpg://u:canary@h/d",
        "host=h password=canary",
        "postgresql://u:ca@nary@h/d",
        "postgresql://u:canary/canary@h/d",
        "postgresql://u:12/canary@h/d",
        "postgresql://u:canary?canary@h/d",
        "postgresql://u:canary#canary@h/d",
        "postgresql://u:canary%zcanary@h/d",
        "postgresql://u:canary canary@h/d",
        "postgresql://u:canary\n@h/d",
        "postgresql://u:[canary@h/d",
        "postgresql://u:p@h:canary/d",
        "postgresql://u:p@h:99999/d?password=canary",
    ],
)
def test_refuses_without_a_fragment_of_the_password(url: str) -> None:
    with pytest.raises(ValueError, match="must be an address such as") as caught:
        database_url(url)

    assert "canary" not in str(caught.value)
    assert caught.value.__cause__ is None
    assert masked_database_url(url) == "***"
    assert database_passwords(url) == (url,), "the scrubber must know all of it"


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("postgresql://u:canary@h/d?pgbouncer=true", "the parameter pgbouncer, which is not one"),
        ("postgresql://u:canary@h/d?sslmode=require&supa=base-pooler.x", "supa, which is not"),
        ("postgresql://u:canary@h/d?schema=public", "schema, which .* set ETL_SCHEMA"),
        ("postgresql://u:canary@h/d?currentSchema=x", "currentSchema, which .* set ETL_SCHEMA"),
        ("postgresql://u:canary@h/d?connection_limit=1&pool_timeout=0", "connection_limit, which"),
        ("postgresql://u:canary@h/d?sslaccept=strict", "sslaccept, .* sslmode=verify-full"),
        ("postgresql://u:canary@h/d?ssl=no-verify", "the parameter ssl, .* sslmode=verify-full"),
        ("postgresql://u:canary@h/d?statement_timeout=5", "statement_timeout, .* leave it out"),
        ("postgresql://u:canary@h/d?timeout=5", "timeout, .* connect_timeout=SECONDS"),
        ("postgresql://u:canary@h/d?SSLMODE=require", "SSLMODE, .* did you mean sslmode"),
        ("postgresql://u:canary@h/d?ssl_mode=require", "ssl_mode, .* did you mean sslmode"),
        ("postgresql://u:canary@h/d?canal=5", "canal, .* leave it out, or correct its name"),
        ("postgresql://u:canary@h/d?user=a@b", "the parameter user, whose value .* %40"),
        ("postgresql://h/d?sslmode=require&user=canary@b", "the parameter user, whose .* %40"),
        ("postgresql://u:canary@h/d?options=-c%20a=canary", "options, whose value .* as %3D"),
        ("postgresql://u:canary@h/d?sslmode", "sslmode without a value"),
        ("postgresql://u:canary@h/d?&sslmode=require", "without a proper name"),
        ("postgresql://u:canary@h/d??sslmode=require", "without a proper name"),
        ("postgresql+psycopg2://u:canary@h/d", r"leave out '\+psycopg2', the name of a driver"),
        ("postgres+asyncpg://u:canary@h/d", r"leave out '\+asyncpg', the name of a driver"),
        ("jdbc:postgresql://h/d?user=u&password=canary", "leave out 'jdbc:'"),
        ("'postgresql://u:canary@h/d'", "leave out the quotation marks"),
        ("psql 'postgresql://u:canary@h/d'", "leave out 'psql'"),
        ("host=h password=canary", "as one address"),
        ("postgresql://postgres:[canary]@h:5432/d", "as %5B and %5D"),
    ],
)
def test_an_address_of_another_tool_is_told_what_to_change(url: str, said: str) -> None:
    with pytest.raises(ValueError, match=said) as caught:
        database_url(url)

    assert "canary" not in str(caught.value)
    assert masked_database_url(url) == "***"


@pytest.mark.parametrize(
    "query",
    [
        "sslmode=require&channel_binding=require",
        "sslmode=verify-full&sslrootcert=system&connect_timeout=5&",
        "ssl=true",
        "options=endpoint%3Dep-cool-1",
        "target_session_attrs=read-write&application_name=x",
    ],
)
def test_the_parameters_of_hosting_services_that_libpq_knows_pass(query: str) -> None:
    url = f"postgresql://u:p@h/d?{query}"
    assert database_url(url) == url
    conninfo_to_dict(url)


def test_the_known_parameters_are_those_of_libpq() -> None:
    assert {each.keyword.decode() for each in Conninfo.get_defaults()} == KNOWN


@given(st.text(min_size=1), st.sampled_from(["postgresql://u:{}@h/d", "postgresql://{}", "{}"]))
def test_no_text_breaks_the_parser(text: str, form: str) -> None:
    try:
        normal = database_url(form.format(text))
    except ValueError:
        return

    assert database_url(normal) == normal
    masked_database_url(normal)
    database_passwords(normal)


def test_masks_every_password() -> None:
    url = "postgres://u:canary@h:5432/d?sslmode=require&password=canary&sslpassword=canary"

    assert masked_database_url(url) == (
        "postgresql://u:***@h:5432/d?sslmode=require&password=***&sslpassword=***"
    )
    assert masked_database_url("postgresql://u@h/d") == "postgresql://u@h/d"


@pytest.mark.parametrize("key", ["oauth_client_secret", "scram_client_key", "scram_server_key"])
def test_masks_and_knows_the_other_secrets_of_libpq(key: str) -> None:
    url = f"postgresql://u@h/d?{key}=canary&sslmode=require"

    assert masked_database_url(url) == f"postgresql://u@h/d?{key}=***&sslmode=require"
    assert database_passwords(url) == ("canary",)


def test_passwords_are_known_as_written_and_decoded() -> None:
    assert set(database_passwords("postgresql://u:p%40ss@h/d")) == {"p%40ss", "p@ss"}
    assert database_passwords("postgresql://u@h/d") == ()


@pytest.mark.parametrize(
    ("url", "host", "port", "database"),
    [
        ("postgresql://u:p@h/d", "h", 5432, "d"),
        ("postgresql://u:p@h:6000", "h", 6000, "u"),
        ("postgresql://u@[::1]:6000/d", "::1", 6000, "d"),
        ("postgresql://u@[::1]/d", "::1", 5432, "d"),
        ("postgresql:///d?host=%2Frun%2Fpg&port=7", "/run/pg", 7, "d"),
        ("postgresql://%2Frun%2Fpg/d", "/run/pg", 5432, "d"),
        ("postgresql://a:1,b:2/d", "a,b", None, "d"),
        ("postgresql://a:1,b:1/d", "a,b", 1, "d"),
        ("postgresql://h/d?dbname=e&user=v", "h", 5432, "e"),
        ("postgresql://", None, 5432, None),
    ],
)
def test_the_address_without_secrets(
    url: str, host: str | None, port: int | None, database: str | None
) -> None:
    expected = {"host": host, "port": port, "database": database}
    assert database_address(database_url(url), {}) == expected


def test_what_the_address_leaves_out_is_what_libpq_would_take() -> None:
    environment = {"PGHOST": "/run/pg", "PGPORT": "7", "PGDATABASE": "d"}
    assert database_address("postgresql://u@", environment) == {
        "host": "/run/pg",
        "port": 7,
        "database": "d",
    }
