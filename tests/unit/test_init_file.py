"""A file that is written for ``VARIABLE_FILE`` is read back as it was meant, and is private."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from etl.cli.init import write_variable_file
from etl.errors import ConfigurationError
from etl.settings.values import secret
from etl.settings.variable_file import read_variable_file


def is_secret(text: str) -> bool:
    try:
        return bool(secret(text))
    except ValueError:
        return False


SECRETS = st.text(st.characters(exclude_categories=["Cs"]) | st.sampled_from("\"'\\$`#=")).filter(
    is_secret
)


@given(values=st.dictionaries(st.sampled_from(["KALTURA_KS", "KALTURA_APP_TOKEN"]), SECRETS))
def test_every_secret_is_read_back(
    tmp_path_factory: pytest.TempPathFactory, values: dict[str, str]
) -> None:
    path = tmp_path_factory.getbasetemp() / "read-back.env"
    write_variable_file(path, values, replace=True)

    assert read_variable_file(path) == values
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_a_file_that_is_there_stays(tmp_path: Path) -> None:
    path = tmp_path / "account.env"
    path.write_text("mine")
    with pytest.raises(ConfigurationError, match="already"):
        write_variable_file(path, {"KALTURA_KS": "x"}, replace=False)

    assert [each.read_text() for each in tmp_path.iterdir()] == ["mine"]


def test_a_link_is_replaced_and_what_it_leads_to_stays(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").write_text("mine")
    (tmp_path / "account.env").symlink_to("elsewhere")
    write_variable_file(tmp_path / "account.env", {"KALTURA_KS": "x"}, replace=True)

    assert (tmp_path / "elsewhere").read_text() == "mine"
    assert (tmp_path / "account.env").read_text() == "KALTURA_KS=x\n"


def test_nothing_is_left_where_others_could_replace_it(tmp_path: Path) -> None:
    tmp_path.chmod(0o777)
    with pytest.raises(ConfigurationError, match="other users can replace files"):
        write_variable_file(tmp_path / "account.env", {"KALTURA_KS": "x"}, replace=False)

    assert list(tmp_path.iterdir()) == []
