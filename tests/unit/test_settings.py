"""Settings: where they come from, what is refused, and what is never shown."""

from __future__ import annotations

import dataclasses
import pickle
from datetime import timedelta
from pathlib import Path

import pytest

from etl.errors import ConfigurationError, UsageError
from etl.settings.read import load_settings
from etl.settings.table import SETTINGS, Settings

CANARY = "canary-5f3a9"


@pytest.fixture
def variable_file(tmp_path: Path) -> Path:
    path = tmp_path / "variables"
    path.touch(mode=0o600)
    return path


def test_every_setting_has_its_default_when_nothing_is_set() -> None:
    assert load_settings({}, {}).checked() == Settings()
    assert load_settings({}, {}).checked().sources == {}


def test_a_flag_wins_over_the_environment_and_the_environment_over_the_file(
    variable_file: Path,
) -> None:
    variable_file.write_text("ETL_PAGE_SIZE=3\nETL_CONCURRENCY=3\nETL_SCHEMA=three\n")
    environment = {
        "VARIABLE_FILE": str(variable_file),
        "ETL_PAGE_SIZE": "2",
        "ETL_CONCURRENCY": "2",
    }

    settings = load_settings({"page_size": "1"}, environment).checked()

    assert (settings.page_size, settings.concurrency, settings.schema) == (1, 2, "three")
    assert settings.sources == {
        "page_size": "flag --page-size",
        "concurrency": "environment",
        "schema": f"file {variable_file}",
    }


def test_empty_text_counts_as_not_set(variable_file: Path) -> None:
    variable_file.write_text("KALTURA_KS=from-file\n")
    environment = {"KALTURA_KS": " ", "VARIABLE_FILE": str(variable_file)}

    assert load_settings({}, environment).checked().ks == "from-file"


URL = "postgresql://etl@db.example.com/warehouse"


@pytest.mark.parametrize(
    ("in_environment", "in_file", "expected"),
    [
        (None, None, None),
        (URL, None, URL),
        ("", URL, URL),
        (URL, "", URL),
        (" ", None, "(from environment) is empty"),
        (None, "", "(from file"),
        ("", "", "(from environment) is empty"),
    ],
)
@pytest.mark.parametrize("embedded", ["auto", "yes", "no"])
def test_an_empty_database_url_is_refused_and_none_is_not(
    in_environment: str | None,
    in_file: str | None,
    expected: str | None,
    embedded: str,
    variable_file: Path,
) -> None:
    environment = {"VARIABLE_FILE": str(variable_file), "ETL_EMBEDDED": embedded}
    if in_file is not None:
        variable_file.write_text(f"DATABASE_URL={in_file}\n")
    if in_environment is not None:
        environment["DATABASE_URL"] = in_environment
    loaded = load_settings({}, environment)

    if expected is None or expected == URL:
        assert loaded.checked().database_url == expected
        return
    with pytest.raises(ConfigurationError, match="ETL_EMBEDDED=yes") as refused:
        loaded.checked()
    assert expected in refused.value.message
    assert refused.value.exit_code == 78
    # demo does not use it.
    assert loaded.checked(without="DATABASE_URL").database_url is None


@pytest.mark.parametrize(
    ("name", "text", "field", "value"),
    [
        ("ETL_RESUME_WINDOW", "90s", "resume_window", timedelta(seconds=90)),
        ("ETL_RESUME_WINDOW", "1.5h", "resume_window", timedelta(minutes=90)),
        ("ETL_PUBLISH_AGE_MAX", "90m", "publish_age_max", timedelta(minutes=90)),
        ("ETL_ABSENCE_GRACE", "0", "absence_grace", timedelta(0)),
        ("ETL_ABSENCE_GRACE", "2d", "absence_grace", timedelta(days=2)),
        ("ETL_REQUESTS_PER_SECOND", "0.5", "requests_per_second", 0.5),
        ("ETL_LEASE_SECONDS", "15m", "lease_seconds", 900.0),
        ("ETL_LEASE_SECONDS", "20.5", "lease_seconds", 20.5),
        ("ETL_USE_ENVIRONMENT_PROXIES", "Yes", "use_environment_proxies", True),
        ("ETL_USE_ENVIRONMENT_PROXIES", "0", "use_environment_proxies", False),
        ("ETL_LOG_LEVEL", "debug", "log_level", "DEBUG"),
        ("KALTURA_APP_TOKEN_HASH", "sha256", "app_token_hash", "SHA256"),
        ("KALTURA_SERVICE_URL", "http://127.0.0.1:80/", "service_url", "http://127.0.0.1:80"),
        ("KALTURA_SERVICE_URL", "http://[::1]:80", "service_url", "http://[::1]:80"),
        ("KALTURA_SERVICE_URL", "https://k.example/api_v3/", "service_url", "https://k.example"),
        ("KALTURA_SERVICE_URL", "https://k.example/index.php", "service_url", "https://k.example"),
        (
            "KALTURA_SERVICE_URL",
            "https://k.example/video/api_v3/index.php/",
            "service_url",
            "https://k.example/video",
        ),
        ("ETL_METRICS_FILE", "/var/m.prom", "metrics_file", Path("/var/m.prom")),
        ("ETL_NOTIFY_URL", "https://h.example/a?b=c", "notify_url", "https://h.example/a?b=c"),
        ("ETL_NOTIFY_URL", "http://[::1]:9/a", "notify_url", "http://[::1]:9/a"),
        ("ETL_NOTIFY", "Always", "notify", "always"),
    ],
)
def test_reads(name: str, text: str, field: str, value: object) -> None:
    assert getattr(load_settings({}, {name: text}).checked(), field) == value


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("KALTURA_PARTNER_ID", "0"),
        ("KALTURA_PARTNER_ID", "1_000"),
        ("KALTURA_PARTNER_ID", "2147483648"),
        ("KALTURA_PARTNER_ID", "٣"),
        ("KALTURA_PARTNER_ID", "9" * 5000),
        ("KALTURA_SERVICE_URL", "www.kaltura.com"),
        ("KALTURA_SERVICE_URL", "http://www.kaltura.com"),
        ("KALTURA_SERVICE_URL", "http://localhost.evil.example"),
        ("KALTURA_SERVICE_URL", "https://user:pw@www.kaltura.com"),
        ("KALTURA_SERVICE_URL", "https://www.kaltura.com/?ks=1"),
        ("KALTURA_SERVICE_URL", "https://www.kaltura.com:port"),
        ("KALTURA_SERVICE_URL", "file:///etc/passwd"),
        ("ETL_NOTIFY_URL", "hooks.slack.com/services"),
        ("ETL_NOTIFY_URL", "http://hooks.slack.com/services"),
        ("ETL_NOTIFY_URL", "https://user:pw@hooks.slack.com/"),
        ("ETL_NOTIFY_URL", "https://hooks.slack.com/#a"),
        ("ETL_NOTIFY_URL", "https://hooks.slack.com:port/"),
        ("ETL_NOTIFY", "never"),
        ("KALTURA_KS", "two words"),
        ("KALTURA_KS", "nul\x00"),
        ("KALTURA_APP_TOKEN_HASH", "CRC32"),
        ("DATABASE_URL", "mysql://host/db"),
        ("ETL_SCHEMA", "Kaltura"),
        ("ETL_SCHEMA", "pg_temp"),
        ("ETL_SCHEMA", 'k"; drop schema x; --'),
        ("ETL_SCHEMA", "a" * 64),
        ("ETL_REQUESTS_PER_SECOND", "0"),
        ("ETL_REQUESTS_PER_SECOND", "1e2"),
        ("ETL_REQUESTS_PER_SECOND", "nan"),
        ("ETL_REQUESTS_PER_SECOND", "1001"),
        ("ETL_CONCURRENCY", "0"),
        ("ETL_CONCURRENCY", "33"),
        ("ETL_PAGE_SIZE", "501"),
        ("ETL_PAGE_SIZE", "5e2"),
        ("ETL_RESUME_WINDOW", "six hours"),
        ("ETL_RESUME_WINDOW", "-1"),
        ("ETL_RESUME_WINDOW", "3600"),
        ("ETL_RESUME_WINDOW", "8d"),
        ("ETL_PUBLISH_AGE_MAX", "0"),
        ("ETL_PUBLISH_AGE_MAX", "8d"),
        ("ETL_LEASE_SECONDS", "1"),
        ("ETL_USE_ENVIRONMENT_PROXIES", "maybe"),
        ("ETL_LOG_LEVEL", "LOUD"),
        ("ETL_LOG_FORMAT", "xml"),
    ],
)
def test_refuses_with_one_sentence_that_names_the_setting(name: str, text: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        load_settings({}, {name: text}).checked()

    assert caught.value.exit_code == 78
    assert caught.value.message.startswith(f"{name} (from environment) ")
    assert caught.value.message.endswith(".")
    assert "\n" not in caught.value.message
    assert len(caught.value.message) < 400
    assert caught.value.fields["setting"] == name


def test_a_wrong_flag_is_named_as_the_flag_and_is_wrong_usage() -> None:
    with pytest.raises(UsageError, match=r"^--page-size must be a whole number") as caught:
        load_settings({"page_size": "x"}, {"ETL_PAGE_SIZE": "7"}).checked()

    assert caught.value.exit_code == 2


def test_all_problems_are_found_at_once() -> None:
    loaded = load_settings({}, {"ETL_PAGE_SIZE": "x", "ETL_SCHEMA": "X", "ETL_CONCURRENCY": "9"})

    assert [each.fields["setting"] for each in loaded.problems] == ["ETL_SCHEMA", "ETL_PAGE_SIZE"]
    assert loaded.settings.concurrency == 9


def test_a_slip_of_the_pen_gives_a_warning() -> None:
    warnings = load_settings({}, {"ETL_PAGE_SIZ": "4", "ETL_HOME": "/", "PATH": "/"}).warnings

    assert warnings == (
        "ETL_PAGE_SIZ in the environment is not a setting; did you mean ETL_PAGE_SIZE?",
    )


# --- who we are ---------------------------------------------------------------------------------

APP_TOKEN = {"KALTURA_APP_TOKEN_ID": "0_abc", "KALTURA_APP_TOKEN": "t"}


@pytest.mark.parametrize(
    ("environment", "kind"),
    [
        (APP_TOKEN, "app_token"),
        ({"KALTURA_ADMIN_SECRET": "s"}, "admin_secret"),
        ({"KALTURA_KS": "k"}, "ks"),
    ],
)
def test_one_credential_is_chosen(environment: dict[str, str], kind: str) -> None:
    assert load_settings({}, environment).checked().credential().kind == kind


@pytest.mark.parametrize(
    ("environment", "message"),
    [
        ({}, "No credential is set"),
        ({"KALTURA_APP_TOKEN": "t"}, "KALTURA_APP_TOKEN_ID is not set although KALTURA_APP_TOKEN"),
        ({"KALTURA_APP_TOKEN_ID": "t", "KALTURA_KS": "k"}, "KALTURA_APP_TOKEN is not set although"),
        (APP_TOKEN | {"KALTURA_KS": "k"}, "More than one credential is set: KALTURA_APP_TOKEN"),
        ({"KALTURA_ADMIN_SECRET": "s", "KALTURA_KS": "k"}, r"KALTURA_KS \(from environment\)"),
    ],
)
def test_none_half_or_two_credentials_are_refused(
    environment: dict[str, str], message: str
) -> None:
    with pytest.raises(ConfigurationError, match=message):
        load_settings({}, environment).checked().credential()


def test_an_account_is_asked_for_by_name() -> None:
    with pytest.raises(ConfigurationError, match=r"KALTURA_PARTNER_ID is not set"):
        Settings().require_partner_id()


# --- secrets ------------------------------------------------------------------------------------

SECRETS = {
    "KALTURA_APP_TOKEN": f"a{CANARY}",
    "KALTURA_ADMIN_SECRET": f"s{CANARY}",
    "KALTURA_KS": f"k{CANARY}",
    "DATABASE_URL": f"postgresql://u:p{CANARY}@h/d?sslpassword=q{CANARY}",
}


def test_no_secret_is_in_the_settings_text_or_description() -> None:
    settings = load_settings({}, SECRETS).checked()

    assert CANARY not in repr(settings)
    assert CANARY not in str(settings)
    assert CANARY not in repr(load_settings({}, SECRETS).problems)
    for name, setting in SETTINGS.items():
        assert CANARY not in setting.text(getattr(settings, name))
    assert CANARY not in repr(
        load_settings({}, APP_TOKEN | {"KALTURA_APP_TOKEN": CANARY}).checked().credential()
    )


def test_every_secret_is_known_to_the_scrubber() -> None:
    assert set(load_settings({}, SECRETS).checked().secrets()) == {
        f"{letter}{CANARY}" for letter in "askpq"
    }


@pytest.mark.parametrize("name", [each.name for each in SETTINGS.values() if each.secret])
def test_the_message_about_a_wrong_secret_does_not_hold_it(name: str) -> None:
    loaded = load_settings({}, {name: f"{CANARY} {CANARY}\x01"})

    assert [each.fields["setting"] for each in loaded.problems] == [name]
    assert CANARY not in str(loaded.problems[0])
    assert CANARY not in repr(loaded.problems[0].fields)
    assert any(CANARY in secret for secret in loaded.secrets), "the scrubber must know it"


def test_settings_can_be_replaced_and_copied() -> None:
    settings = load_settings({}, SECRETS).checked()

    assert dataclasses.replace(settings, page_size=9).sources == settings.sources
    assert pickle.loads(pickle.dumps(settings)) == settings  # noqa: S301 - our own bytes


def test_no_secret_has_a_flag_in_any_command() -> None:
    from etl.cli import main
    from etl.cli.group import COMMANDS

    secret_flags = {each.flag for each in SETTINGS.values() if each.secret} - {"--notify-url"}
    for name in COMMANDS:
        if name == "simulate":  # --admin-secret there is the stand-in's own
            continue
        command = main.get_command(None, name)  # type: ignore[arg-type]
        assert command is not None
        options = {opt for parameter in command.params for opt in parameter.opts}
        assert not options & secret_flags


@pytest.mark.parametrize("flag", ["resume_window", "absence_grace"])
def test_a_duration_needs_its_unit_and_the_message_shows_how(flag: str) -> None:
    with pytest.raises(UsageError, match=r" must have a unit: 7s, 7m, 7h or 7d, not '7'\.$"):
        load_settings({flag: "7"}, {}).checked()
