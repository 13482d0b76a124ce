"""``accounts.toml``: what each account gets, and a sentence for every mistake."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from etl.errors import ConfigurationError, UsageError
from etl.settings.accounts import chosen_accounts, read_accounts, secret_variables
from etl.settings.read import load_settings
from etl.settings.table import Settings

TOKEN = "0123456789abcdef0123456789abcdef"
GOOD = """
[accounts.acme]
partner_id = 101
app_token_id = "1_abc123de"
app_token_hash = "sha256"
app_token = { env = "ACME_TOKEN" }

[accounts.globex]
partner_id = 102
service_url = "https://video.globex.example/api_v3/"
schema = "globex"
admin_secret = { file = "secrets/globex" }

[accounts.initech]
partner_id = 103
ks = { env = "INITECH_KS" }
"""


def _settings(tmp_path: Path, text: str, **variables: str) -> Settings:
    path = tmp_path / "accounts.toml"
    path.write_text(text, encoding="utf-8")
    path.chmod(0o644)
    environment = {"ETL_ACCOUNTS": str(path), "KALTURA_ADMIN_SECRET": "of-the-job", **variables}
    return load_settings(environment=environment).checked()


def test_each_account_has_its_own_settings_and_no_credential_but_its_own(tmp_path: Path) -> None:
    base = _settings(tmp_path, GOOD, ETL_ARCHIVE="s3://bucket/archive/", ETL_SCHEMA="shared")
    (tmp_path / "secrets").mkdir()
    secret = tmp_path / "secrets" / "globex"
    secret.write_text(f"{TOKEN}\n")
    secret.chmod(0o600)
    variables = {"ACME_TOKEN": TOKEN, "INITECH_KS": "djJ8MTAz"}

    acme, globex, initech = [
        account.settings(base, variables) for account in read_accounts(base).values()
    ]

    assert (acme.partner_id, acme.schema, acme.archive) == (101, "shared", "s3://bucket/archive/")
    assert acme.service_url == "https://www.kaltura.com"
    token = acme.credential()
    assert (token.kind, token.secret, token.app_token_id) == ("app_token", TOKEN, "1_abc123de")
    assert token.app_token_hash == "SHA256"
    assert (globex.schema, globex.archive) == ("globex", "s3://bucket/archive/globex")
    assert globex.service_url == "https://video.globex.example"
    assert (globex.credential().kind, globex.credential().secret) == ("admin_secret", TOKEN)
    assert (initech.credential().kind, initech.credential().secret) == ("ks", "djJ8MTAz")
    assert initech.sources["ks"].endswith("accounts.toml [accounts.initech]")


def test_messages_name_the_keys_of_the_account_for_what_it_gives(tmp_path: Path) -> None:
    base = _settings(tmp_path, GOOD)
    acme = read_accounts(base)["acme"].settings(base, {"ACME_TOKEN": TOKEN})
    place = f"{tmp_path / 'accounts.toml'} [accounts.acme]"

    said = acme.worded("Wrong app token: check KALTURA_APP_TOKEN_ID and KALTURA_APP_TOKEN.")
    assert said == f"Wrong app token: check app_token_id and app_token ({place})."
    assert acme.worded(said) == said
    assert acme.worded("KALTURA_KS: none") == f"ks: none ({place})"
    for other in ("check KALTURA_SERVICE_URL", "KALTURA_PARTNER_IDS", "DATABASE_URL is wrong."):
        assert acme.worded(other) == other
    assert base.worded("check KALTURA_PARTNER_ID") == "check KALTURA_PARTNER_ID"


def test_a_secret_may_be_in_the_variable_file_and_the_environment_comes_first(
    tmp_path: Path,
) -> None:
    base = _settings(tmp_path, GOOD)
    variable_file = tmp_path / "job.env"
    variable_file.write_text("ACME_TOKEN=from-the-file\nINITECH_KS=from-the-file\n")
    variable_file.chmod(0o600)
    variables = secret_variables(
        {"VARIABLE_FILE": str(variable_file), "ACME_TOKEN": " ", "INITECH_KS": "from-outside"}
    )
    accounts = read_accounts(base)

    assert accounts["acme"].settings(base, variables).app_token == "from-the-file"
    assert accounts["initech"].settings(base, variables).ks == "from-outside"


@pytest.mark.parametrize(
    ("name", "variables", "message"),
    [
        ("acme", {}, "acme] app_token: the variable ACME_TOKEN is not set."),
        ("acme", {"ACME_TOKEN": "two words"}, "ACME_TOKEN contains whitespace"),
        ("globex", {}, "globex] admin_secret: there is no file"),
    ],
)
def test_a_secret_that_is_not_there_is_a_mistake_of_its_account(
    tmp_path: Path, name: str, variables: dict[str, str], message: str
) -> None:
    base = _settings(tmp_path, GOOD)
    with pytest.raises(ConfigurationError) as caught:
        read_accounts(base)[name].settings(base, variables)

    assert message in caught.value.message
    assert "two words" not in caught.value.message


def test_a_secret_file_that_others_can_read_is_refused(tmp_path: Path) -> None:
    base = _settings(tmp_path, GOOD)
    (tmp_path / "secrets").mkdir()
    (tmp_path / "secrets" / "globex").write_text(TOKEN)
    (tmp_path / "secrets" / "globex").chmod(0o644)
    with pytest.raises(ConfigurationError, match="globex] admin_secret: other users can read"):
        read_accounts(base)["globex"].settings(base, {})


TABLE = "[accounts.acme]\npartner_id = 101\n"
SECRET = 'ks = { env = "X" }\n'


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "has no account; each one is a table [accounts.NAME]."),
        ("accounts = 3", "has no account"),
        ("[accounts]", "has no account"),
        ("[accounts.acme\n", "is not valid TOML: "),
        (f"{TABLE}ks = {{ env = X }}", "(at line 3, column 14)"),
        (TABLE + SECRET + TABLE, "(at line 4, column 15)"),
        ("a = " + "[" * 9_000, "is not valid TOML: it is nested too deeply."),
        ("[account.acme]", "account is not known; each account is a table [accounts.NAME]."),
        ("accounts.acme = 101", "[accounts.acme] is not a table."),
        ("[accounts.Acme]", "[accounts.Acme]: a name has at most 63 lower-case letters"),
        ("[accounts.'a b']", "[accounts.'a b']: a name has"),
        (TABLE + SECRET + "shema = 'x'", "acme]: shema is not known; did you mean schema?"),
        (TABLE + SECRET + "colour = 'x'", "acme]: colour is not known."),
        (f"[accounts.acme]\n{SECRET}", "acme]: partner_id is missing."),
        (f"[accounts.acme]\npartner_id = '101'\n{SECRET}", "partner_id must be a number"),
        (f"[accounts.acme]\npartner_id = true\n{SECRET}", "partner_id must be a number"),
        (f"[accounts.acme]\npartner_id = 0\n{SECRET}", "partner_id must be a whole number from 1"),
        (TABLE + SECRET + "schema = 7", "acme]: schema must be a text in quotes."),
        (TABLE + SECRET + "schema = 'A'", "acme]: schema must be a schema name"),
        (TABLE + SECRET + "service_url = 'http://x.example'", "service_url must begin with https"),
        (TABLE, "acme]: it does not say where its secret is: give app_token_id and app_token"),
        (TABLE + SECRET + "admin_secret = { env = 'X' }", "admin_secret and ks are given; keep"),
        (TABLE + "app_token = { env = 'X' }", "app_token_id and app_token belong together."),
        (TABLE + SECRET + "app_token_id = '1_a'", "app_token_id and app_token belong together."),
        (TABLE + SECRET + "app_token_hash = 'MD5'", "app_token_hash requires app_token."),
        (f"{TABLE}ks = '{TOKEN}'", "acme]: ks must say where the secret is"),
        (f"{TABLE}ks = {{ env = 'X', file = 'y' }}", 'ks must be { env = "NAME" } or { file = '),
        (f"{TABLE}ks = {{ name = '{TOKEN}' }}", 'ks must be { env = "NAME" } or { file = "PATH" }'),
        (f"{TABLE}ks = {{ env = '{TOKEN}' }}", "env must be the name of an environment variable."),
        (f"{TABLE}ks = {{ file = 7 }}", "file must be the path of a file."),
        (
            f"{TABLE}{SECRET}[accounts.twin]\npartner_id = 101\n{SECRET}",
            "[accounts.acme] and [accounts.twin] have the same partner id 101 in schema kaltura",
        ),
    ],
)
def test_every_mistake_is_a_sentence_that_names_its_place(
    tmp_path: Path, text: str, message: str
) -> None:
    settings = _settings(tmp_path, text)
    with pytest.raises(ConfigurationError) as caught:
        read_accounts(settings)

    assert str(tmp_path / "accounts.toml") in caught.value.message
    assert message in caught.value.message
    assert TOKEN not in caught.value.message
    assert "\n" not in caught.value.message


def test_one_partner_id_in_two_schemas_are_two_accounts(tmp_path: Path) -> None:
    twins = TABLE + SECRET + "[accounts.twin]\npartner_id = 101\nschema = 'twin'\n" + SECRET

    assert list(read_accounts(_settings(tmp_path, twins))) == ["acme", "twin"]
    with pytest.raises(ConfigurationError, match="same partner id 101 in schema twin"):
        read_accounts(_settings(tmp_path, twins, ETL_SCHEMA="twin"))


def test_a_file_that_cannot_be_read_or_trusted_is_refused(tmp_path: Path) -> None:
    settings = _settings(tmp_path, GOOD)
    file = settings.accounts_file
    assert file is not None
    file.chmod(0o666)
    with pytest.raises(ConfigurationError, match="other users can change it"):
        read_accounts(settings)
    file.chmod(0o600)
    for body, message in ((b"\xff", "is not UTF-8 text"), (b"#" * 1024 * 1025, "is larger than")):
        file.write_bytes(body)
        with pytest.raises(ConfigurationError, match=message):
            read_accounts(settings)
    file.unlink()
    with pytest.raises(ConfigurationError, match="There is no file"):
        read_accounts(settings)
    for make in (Path.mkdir, os.mkfifo):  # a FIFO without a writer must not be waited for
        make(file)
        with pytest.raises(ConfigurationError, match="is not a regular file"):
            read_accounts(settings)
        file.rmdir() if file.is_dir() else file.unlink()
    file.symlink_to(file)
    with pytest.raises(ConfigurationError, match="cannot be read"):
        read_accounts(settings)


def test_accounts_are_chosen_by_name_in_the_order_given(tmp_path: Path) -> None:
    accounts = read_accounts(_settings(tmp_path, GOOD))

    names = [each.name for each in chosen_accounts(accounts, ["initech", "acme", "initech"])]
    assert names == ["initech", "acme"]
    with pytest.raises(UsageError, match=r"no account inittech .*; did you mean initech\?"):
        chosen_accounts(accounts, ["inittech"])
    with pytest.raises(UsageError, match=r"no account xyz in the accounts file\."):
        chosen_accounts(accounts, ["xyz"])
