"""VARIABLE_FILE: its two forms, and when it is not trusted."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from etl.errors import ConfigurationError
from etl.settings.private_file import SIZE_LIMIT_BYTES
from etl.settings.variable_file import read_variable_file

CANARY = "canary-77"


def write(folder: Path, body: str | bytes, mode: int = 0o600) -> Path:
    path = folder / "variables"
    path.write_bytes(body if isinstance(body, bytes) else body.encode())
    path.chmod(mode)
    return path


def test_reads_lines(tmp_path: Path) -> None:
    path = write(
        tmp_path,
        "\ufeff# comment\n\nA=1\r\nexport B = two words # why\n"
        'C=\'a # "b"\' # comment\nD="x\\"y\\$z"\nE=\nF=#\nG=a#b=c\n',
    )

    assert read_variable_file(path) == {
        "A": "1",
        "B": "two words",
        "C": 'a # "b"',
        "D": 'x"y$z',
        "E": "",
        "F": "",
        "G": "a#b=c",
    }


def test_reads_a_json_object(tmp_path: Path) -> None:
    body = json.dumps({"A": "x", "B": 4, "C": True, "D": None, "E": 1.5})

    assert read_variable_file(write(tmp_path, body)) == {
        "A": "x",
        "B": "4",
        "C": "yes",
        "E": "1.5",
    }


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (f"A={CANARY}\n{CANARY}\n", "line 2 of .* is not NAME=VALUE"),
        (f"A={CANARY}\nA={CANARY}\n", "line 2 of .* sets A a second time"),
        (f"A='{CANARY}\n", "line 1 of .* quote that is not closed"),
        (f'A="{CANARY}" {CANARY}\n', "line 1 of .* quote"),
        (f'{{"A": "{CANARY}"', "not valid JSON"),
        (f'{{"A": ["{CANARY}"]}}', "A in .* must be a text or a number"),
        (f'{{"A": "{CANARY}", "A": "x"}}', "A appears twice"),
        (CANARY.encode("utf-16"), "not UTF-8"),
        ("#" * (SIZE_LIMIT_BYTES + 1), "larger than"),
    ],
)
def test_refuses_what_it_cannot_read_without_repeating_it(
    tmp_path: Path, body: str | bytes, message: str
) -> None:
    with pytest.raises(ConfigurationError, match=message) as caught:
        read_variable_file(write(tmp_path, body))

    assert CANARY not in caught.value.message
    assert caught.value.message.startswith("VARIABLE_FILE: ")


@pytest.mark.parametrize("mode", [0o644, 0o604, 0o602, 0o620, 0o666, 0o444])
def test_refuses_a_file_that_others_can_read_or_change(tmp_path: Path, mode: int) -> None:
    path = write(tmp_path, "A=1", mode)

    with pytest.raises(ConfigurationError, match=f"chmod 600 {path}"):
        read_variable_file(path)


@pytest.mark.parametrize("mode", [0o600, 0o400, 0o440, 0o640])
def test_accepts_a_file_that_only_the_owner_and_group_can_read(tmp_path: Path, mode: int) -> None:
    assert read_variable_file(write(tmp_path, "A=1", mode)) == {"A": "1"}


def test_follows_a_link_inside_the_folder_but_not_out_of_it(tmp_path: Path) -> None:
    inside, outside = tmp_path / "mounted", tmp_path / "outside"
    (inside / "..data").mkdir(parents=True)
    outside.mkdir()
    write(inside / "..data", "A=1")
    write(outside, "A=2")
    (inside / "good").symlink_to(Path("..data") / "variables")
    (inside / "bad").symlink_to(outside / "variables")

    assert read_variable_file(inside / "good") == {"A": "1"}
    with pytest.raises(ConfigurationError, match="leads out of its directory"):
        read_variable_file(inside / "bad")


def test_refuses_a_folder_that_everybody_can_write_to(tmp_path: Path) -> None:
    path = write(tmp_path, "A=1")
    tmp_path.chmod(0o777)

    with pytest.raises(ConfigurationError, match="other users can replace files"):
        read_variable_file(path)


def test_refuses_what_is_not_a_regular_file(tmp_path: Path) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo, 0o600)

    with pytest.raises(ConfigurationError, match="not a regular file"):
        read_variable_file(fifo)
    with pytest.raises(ConfigurationError, match=r"not a regular file|cannot be read"):
        read_variable_file(tmp_path)
    with pytest.raises(ConfigurationError, match="there is no file"):
        read_variable_file(tmp_path / "absent")
