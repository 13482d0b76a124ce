"""Where an archive cannot be kept: what is said, and the exit code."""

from __future__ import annotations

import errno
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import obstore
import pytest
from obstore import store

from etl.archive import object_store
from etl.archive.layout import MARK_NAME, encode_mark
from etl.archive.stores import LocalStore, open_store
from etl.errors import ConfigurationError, EtlError
from etl.settings.read import load_settings

KEYS = {"AWS_ACCESS_KEY_ID": "canary-id", "AWS_SECRET_ACCESS_KEY": "canary-secret"}


def failure_of(folder: Path) -> EtlError:
    with pytest.raises(EtlError) as caught:
        open_store(str(folder)).write(MARK_NAME, encode_mark())
    assert str(folder) in caught.value.message
    return caught.value


def a_file(folder: Path) -> Path:
    (folder / "file").touch()
    return folder / "file"


def below_a_file(folder: Path) -> Path:
    return a_file(folder) / "archive" / "deep"


def a_link_to_nowhere(folder: Path) -> Path:
    (folder / "link").symlink_to(folder / "none" / "archive")
    return folder / "link" / "archive"


def a_circle(folder: Path) -> Path:
    (folder / "circle").symlink_to(folder / "circle")
    return folder / "circle" / "archive"


def too_long(folder: Path) -> Path:
    return folder / ("x" * 300)


def a_folder_as_mark(folder: Path) -> Path:
    (folder / MARK_NAME).mkdir()
    return folder


@pytest.mark.parametrize(
    ("place", "said"),
    [
        (a_file, "/file is a file, not a folder"),
        (below_a_file, "/file is a file, not a folder"),
        (a_link_to_nowhere, "/link is a link that leads to no folder"),
        (a_circle, "/circle is a link that leads to no folder"),
        (too_long, "too long"),
        (a_folder_as_mark, "where it needs a folder there is a file, or the other way round"),
    ],
)
def test_a_folder_that_can_be_none(tmp_path: Path, place: object, said: str) -> None:
    error = failure_of(place(tmp_path))  # type: ignore[operator]

    assert error.exit_code == 78
    assert said in error.message
    assert "try again" not in error.message


@pytest.mark.parametrize(
    ("number", "code", "said"),
    [
        (errno.ENOSPC, 74, "Free some space"),
        (errno.EDQUOT, 74, "Free some space"),
        (errno.EIO, 74, "try again"),
        (errno.ESTALE, 74, "try again"),
        (errno.EMFILE, 74, "open files"),
        (errno.EACCES, 77, "this user may not"),
        (errno.EPERM, 77, "this user may not"),
        (errno.EROFS, 78, "read-only"),
    ],
)
def test_what_the_system_says_of_a_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, code: int, said: str
) -> None:
    """Tests may run as root, to whom no folder is closed."""

    def fails(*_: object, **__: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(Path, "mkdir", fails)
    error = failure_of(tmp_path / "archive")

    assert (error.exit_code, error.fields["errno"]) == (code, number)
    assert said in error.message


def test_an_address_is_checked_with_the_settings(tmp_path: Path) -> None:
    def problem(text: str) -> str:
        (found,) = load_settings({}, {"ETL_ARCHIVE": text}).problems
        assert found.exit_code == 78
        return found.message

    assert "ETL_ARCHIVE (from environment) begins with ftp://" in problem("ftp://host/path")
    assert "canary" not in problem("s3://canary:canary@bucket/path")
    for good in (str(tmp_path), "relative", "~/x", "file:///x", "s3://b/p", "2026-11:x"):
        assert load_settings({}, {"ETL_ARCHIVE": good}).checked().archive == good


@pytest.fixture
def variables(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """No variables of any store; failures are not tried again."""
    for name in list(os.environ):
        if name.startswith(("AWS_", "GOOGLE_", "AZURE_")):
            monkeypatch.delenv(name)
    monkeypatch.setattr(object_store, "RETRIES_MAX", 0)
    return monkeypatch


@contextmanager
def answering(status: int, body: str = "") -> Iterator[str]:
    """The address of an object store that answers everything with this."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            text = body.encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(text)))
            self.end_headers()
            self.wfile.write(text)

        def do_PUT(self) -> None:
            self.rfile.read(int(self.headers.get("Content-Length", 0)))
            self.do_GET()

        def log_message(self, *_: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


@pytest.mark.parametrize(
    ("status", "body", "reason", "code", "said"),
    [
        (403, "<Code>AccessDenied</Code>", "archive_denied", 77, "AWS_SECRET_ACCESS_KEY"),
        (401, "", "archive_credentials", 77, "AWS_SECRET_ACCESS_KEY"),
        (404, "<Code>NoSuchBucket</Code>", "archive_no_bucket", 78, "no such bucket"),
        (301, "<Code>PermanentRedirect</Code>", "archive_region", 78, "AWS_REGION"),
        (503, "", "archive_unavailable", 74, "the object store at 127.0.0.1 failed"),
    ],
)
def test_what_an_object_store_answers(
    variables: pytest.MonkeyPatch, status: int, body: str, reason: str, code: int, said: str
) -> None:
    with answering(status, body) as endpoint:
        for name, value in (KEYS | {"AWS_ENDPOINT_URL": endpoint}).items():
            variables.setenv(name, value)
        store = open_store("s3://bucket/path")
        with pytest.raises(EtlError) as caught:
            store.write(MARK_NAME, b"{}")

    error = caught.value
    assert (error.fields["reason"], error.exit_code) == (reason, code), error.message
    assert error.message.startswith("The archive s3://bucket/path cannot be written: ")
    assert said in error.message
    assert "canary" not in error.message


def test_an_object_store_that_does_not_answer(variables: pytest.MonkeyPatch) -> None:
    for name, value in (KEYS | {"AWS_ENDPOINT_URL": "http://no-such-host.invalid:1"}).items():
        variables.setenv(name, value)
    with pytest.raises(EtlError, match=r"no connection to .* at no-such-host\.invalid") as caught:
        open_store("s3://bucket/path").read(MARK_NAME)

    assert (caught.value.exit_code, caught.value.fields["reason"]) == (74, "archive_unreachable")


@pytest.mark.parametrize(
    ("address", "given", "said"),
    [
        ("s3://b", {"AWS_ACCESS_KEY_ID": "canary"}, "AWS_SECRET_ACCESS_KEY is not set"),
        ("s3://b", {"AWS_SECRET_ACCESS_KEY": "canary"}, "AWS_ACCESS_KEY_ID is not set"),
        ("s3://b", KEYS | {"AWS_ENDPOINT_URL": "canary"}, "AWS_ENDPOINT_URL must be"),
        ("s3://b", KEYS | {"AWS_ENDPOINT_URL": "https://h:canary"}, "AWS_ENDPOINT_URL must be"),
        ("gs://b", {"GOOGLE_SERVICE_ACCOUNT": "/canary.json"}, "GOOGLE_SERVICE_ACCOUNT"),
        ("az://b", {}, "AZURE_STORAGE_ACCOUNT_NAME"),
    ],
)
def test_variables_that_cannot_be_used(
    variables: pytest.MonkeyPatch, address: str, given: dict[str, str], said: str
) -> None:
    for name, value in given.items():
        variables.setenv(name, value)
    with pytest.raises(ConfigurationError, match=said) as caught:
        open_store(address)

    assert "canary" not in caught.value.message


def test_an_azure_address_names_a_container_and_the_environment_its_account(
    variables: pytest.MonkeyPatch,
) -> None:
    """As docs/howto/archive.md says: there is no account in the address."""
    variables.setenv("AZURE_STORAGE_ACCOUNT_NAME", "acme")
    variables.setenv("AZURE_STORAGE_ACCOUNT_KEY", "a2V5")
    opened: Any = store.from_url("az://backup/kaltura/warehouse")

    assert (opened.config["container_name"], opened.prefix) == ("backup", "kaltura/warehouse")
    assert "https://acme.blob.core.windows.net/backup/kaltura/warehouse/x?" in obstore.sign(
        opened, "GET", "x", timedelta(minutes=1)
    )
    assert open_store("az://backup/kaltura/warehouse/").address == "az://backup/kaltura/warehouse"


def test_credentials_that_nobody_gave(variables: pytest.MonkeyPatch) -> None:
    """The library then asks this machine's metadata service, here one that refuses."""
    with answering(403) as endpoint:
        variables.setenv("AWS_METADATA_ENDPOINT", endpoint)
        with pytest.raises(EtlError) as caught:
            open_store("s3://bucket/path").read(MARK_NAME)

    error = caught.value
    assert (error.exit_code, error.fields["reason"]) == (77, "archive_credentials"), error.message
    assert "Set AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_REGION" in error.message


def test_a_store_of_a_folder_makes_its_parents(tmp_path: Path) -> None:
    store = LocalStore(tmp_path / "new" / "archive")
    store.write(MARK_NAME, encode_mark())

    assert store.read(MARK_NAME) == encode_mark()
