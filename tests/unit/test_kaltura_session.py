"""Sessions against the simulator: three ways in, admin type only, renewed in time and once."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import pytest

from etl.errors import ConfigurationError, CredentialsRefused, EtlError, ServiceUnavailable
from etl.kaltura.retry import RowSuspected
from etl.kaltura.service import Credentials, RetryLimits, ServiceSettings, open_service
from etl.kaltura.upload_token import UploadTokens
from etl.process.stop import Stop
from etl.simulator.account.account import Account
from etl.simulator.api.ks import mint_v1, mint_v2, parse_privileges
from etl.simulator.http.server import SimulatorServer

PARTNER = 102
SECRET = "a1b2c3d4e5f60718293a4b5c6d7e8f90"
TOKEN_ID, TOKEN = "0_c6604ueb", "03b39a73092a685dd0e72d90a13b1a0f"
ADMIN = Credentials(PARTNER, admin_secret=SECRET)
APP_TOKEN = Credentials(PARTNER, app_token_id=TOKEN_ID, app_token=TOKEN)
LEAST_PRIVILEGE = "setrole:5001,urirestrict:/api_v3/service/uploadtoken/action/list*"


class Clock:
    """Monotonic seconds under the test's control."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def simulator() -> Iterator[SimulatorServer]:
    account = Account(PARTNER)
    for number in range(20):
        account.insert({"id": f"0_{number:032x}", "status": 0, "createdAt": 1_700_000_000 + number})
    with SimulatorServer(account) as server:
        server.partner.app_tokens[TOKEN_ID] = app_token()
        yield server


def app_token(**changes: Any) -> dict[str, Any]:
    return {
        "id": TOKEN_ID,
        "token": TOKEN,
        "hashType": "SHA256",
        "sessionType": 2,
        "sessionDuration": 3600,
        "sessionPrivileges": LEAST_PRIVILEGE,
        "sessionUserId": "etl",
        "status": 2,
        "objectType": "KalturaAppToken",
    } | changes


def open_at(server: SimulatorServer, credentials: Credentials, **kinds: Any) -> UploadTokens:
    kinds.setdefault("sleep", lambda _seconds: None)
    return open_service(server.url, credentials, stop=Stop(), **kinds)


def actions(server: SimulatorServer) -> list[str]:
    return [record.action for record in server.service.log]


def refusal(server: SimulatorServer, credentials: Credentials, **kinds: Any) -> EtlError:
    with pytest.raises(EtlError) as caught:
        open_at(server, credentials, **kinds)
    return caught.value


# ---- ways in ----------------------------------------------------------------------------------


@pytest.mark.parametrize("hash_type", ["SHA1", "SHA256", "SHA512", "MD5"])
def test_an_app_token_of_any_hash_opens_a_session(
    simulator: SimulatorServer, hash_type: str
) -> None:
    simulator.partner.app_tokens[TOKEN_ID] = app_token(hashType=hash_type)
    with open_at(simulator, APP_TOKEN) as tokens:
        assert len(tokens.list_page(1, 10).rows) == 10


def test_the_hash_that_worked_is_kept_and_a_setting_spares_the_search(
    simulator: SimulatorServer,
) -> None:
    clock = Clock()
    settings = ServiceSettings(app_token_hash="SHA256")
    with open_at(simulator, APP_TOKEN, settings=settings):
        assert actions(simulator).count("startSession") == 1
    with open_at(simulator, APP_TOKEN, monotonic=clock) as tokens:
        assert actions(simulator).count("startSession") == 3
        clock.now = 2000
        tokens.list_page(1, 1)
        assert actions(simulator).count("startSession") == 4


def test_an_admin_secret_opens_a_session_made_here(simulator: SimulatorServer) -> None:
    with open_at(simulator, ADMIN) as tokens:
        assert len(tokens.list_page(1, 10).rows) == 10
    assert actions(simulator) == ["get", "list"]


@pytest.mark.parametrize("make", [mint_v1, mint_v2])
def test_a_ready_session_is_used_as_it_is(simulator: SimulatorServer, make: Any) -> None:
    with open_at(simulator, Credentials(PARTNER, ks=ready(simulator, make))) as tokens:
        assert len(tokens.list_page(1, 10).rows) == 10


def ready(
    simulator: SimulatorServer,
    make: Any = mint_v2,
    *,
    session_type: int = 2,
    privileges: str = "",
) -> str:
    """An existing session string, valid for an hour."""
    # Version 1 has its privileges as text, version 2 as fields.
    given: Any = privileges if make is mint_v1 else parse_privileges(privileges)
    expires_at = int(simulator.service.clock()) + 3600
    return str(make(SECRET, PARTNER, expires_at=expires_at, type=session_type, privileges=given))


def test_a_ready_session_that_may_not_ask_its_type_is_read_if_it_is_version_1(
    simulator: SimulatorServer,
) -> None:
    admin = ready(simulator, mint_v1, privileges=LEAST_PRIVILEGE)
    user = ready(simulator, mint_v1, privileges=LEAST_PRIVILEGE, session_type=0)
    with open_at(simulator, Credentials(PARTNER, ks=admin)) as tokens:
        assert len(tokens.list_page(1, 10).rows) == 10
    assert "type 0" in refusal(simulator, Credentials(PARTNER, ks=user)).message


def test_a_version_2_session_that_may_not_ask_its_type_is_refused_with_advice(
    simulator: SimulatorServer,
) -> None:
    error = refusal(
        simulator, Credentials(PARTNER, ks=ready(simulator, privileges=LEAST_PRIVILEGE))
    )

    assert isinstance(error, CredentialsRefused)
    assert "session/action/get" in error.message


# ---- refusals ---------------------------------------------------------------------------------


def test_a_user_session_is_refused_before_the_first_page(simulator: SimulatorServer) -> None:
    simulator.partner.app_tokens[TOKEN_ID] = app_token(sessionType=0)
    for credentials in (APP_TOKEN, Credentials(PARTNER, ks=ready(simulator, session_type=0))):
        error = refusal(simulator, credentials)

        assert error.exit_code == 77
        assert "type 0" in error.message
    assert "list" not in actions(simulator)


@pytest.mark.parametrize(
    ("credentials", "code"),
    [
        (Credentials(PARTNER, admin_secret="0" * 32), "INVALID_KS"),
        (Credentials(999, admin_secret=SECRET), "INVALID_KS"),
        (Credentials(PARTNER, app_token_id="0_nope", app_token=TOKEN), "APP_TOKEN_ID_NOT_FOUND"),
        (
            Credentials(PARTNER, app_token_id=TOKEN_ID, app_token="0" * 32),
            "INVALID_APP_TOKEN_HASH",
        ),
    ],
)
def test_wrong_credentials_are_refused_at_once(
    simulator: SimulatorServer, credentials: Credentials, code: str
) -> None:
    error = refusal(simulator, credentials)

    assert error.exit_code == 77
    assert error.fields["code"] == code


def test_an_expired_app_token_is_refused(simulator: SimulatorServer) -> None:
    simulator.partner.app_tokens[TOKEN_ID] = app_token(expiry=1)

    assert refusal(simulator, APP_TOKEN).fields["code"] == "APP_TOKEN_EXPIRED"


def test_a_session_of_another_partner_is_refused_without_a_request(
    simulator: SimulatorServer,
) -> None:
    error = refusal(simulator, Credentials(103, ks=ready(simulator)))

    assert error.exit_code == 77
    assert "partner 102" in error.message
    assert actions(simulator) == []


def test_text_that_is_no_session_is_refused_without_a_request(simulator: SimulatorServer) -> None:
    assert refusal(simulator, Credentials(PARTNER, ks="not a session")).exit_code == 77
    assert actions(simulator) == []


@pytest.mark.parametrize(
    "credentials",
    [
        Credentials(PARTNER),
        Credentials(PARTNER, app_token_id=TOKEN_ID),
        Credentials(PARTNER, app_token=TOKEN),
    ],
)
def test_no_credential_or_half_of_one_is_a_wrong_setting(
    simulator: SimulatorServer, credentials: Credentials
) -> None:
    assert isinstance(refusal(simulator, credentials), ConfigurationError)


def test_credentials_do_not_show_their_secrets() -> None:
    text = repr(Credentials(PARTNER, "0_id", "canary-1", "canary-2", "canary-3"))

    assert "canary" not in text


# ---- renewal ----------------------------------------------------------------------------------


def test_a_session_is_renewed_at_half_of_its_life(simulator: SimulatorServer) -> None:
    clock = Clock()
    with open_at(simulator, APP_TOKEN, monotonic=clock) as tokens:
        opened = actions(simulator).count("startWidgetSession")
        clock.now = 1700
        tokens.list_page(1, 1)
        assert actions(simulator).count("startWidgetSession") == opened
        clock.now = 1810
        tokens.list_page(1, 1)
        assert actions(simulator).count("startWidgetSession") == opened + 1


def test_a_renewal_that_fails_in_passing_is_put_off_until_nine_tenths(
    simulator: SimulatorServer,
) -> None:
    clock = Clock()
    settings = ServiceSettings(retry=RetryLimits(attempts=1))
    with open_at(simulator, APP_TOKEN, monotonic=clock, settings=settings) as tokens:
        simulator.faults.schedule("500-empty", where="login")
        clock.now = 2000
        tokens.list_page(1, 1)
        tokens.list_page(1, 1)
        assert simulator.faults.fired["500-empty"] == 1
        clock.now = 2200
        tokens.list_page(1, 1)
        assert simulator.faults.fired["500-empty"] == 2
        clock.now = 3300
        with pytest.raises(ServiceUnavailable):
            tokens.list_page(1, 1)


@pytest.mark.parametrize("kind", ["ks-expired", "ks-logout", "ks-actions-limit"])
@pytest.mark.parametrize("credentials", [ADMIN, APP_TOKEN])
def test_a_session_that_ends_is_renewed_once(
    simulator: SimulatorServer, kind: str, credentials: Credentials
) -> None:
    with open_at(simulator, credentials) as tokens:
        tokens.list_page(1, 1)
        simulator.faults.schedule(kind, where="list", at=1)
        assert len(tokens.list_page(1, 10).rows) == 10


@pytest.mark.parametrize("kind", ["ks-expired", "ks-logout", "ks-actions-limit"])
def test_a_new_session_that_is_refused_too_is_the_end(
    simulator: SimulatorServer, kind: str
) -> None:
    with open_at(simulator, ADMIN) as tokens:
        tokens.list_page(1, 1)
        simulator.faults.schedule(kind, where="list")
        with pytest.raises(CredentialsRefused):
            tokens.list_page(1, 10)
        assert simulator.faults.fired[kind] == 2


def test_a_ready_session_that_ends_is_refused_with_advice(simulator: SimulatorServer) -> None:
    with open_at(simulator, Credentials(PARTNER, ks=ready(simulator))) as tokens:
        simulator.faults.schedule("ks-expired", where="list")
        with pytest.raises(CredentialsRefused, match="KALTURA_KS"):
            tokens.list_page(1, 10)
        assert simulator.faults.fired["ks-expired"] == 1


def test_a_ready_session_is_used_to_its_end(simulator: SimulatorServer) -> None:
    clock = Clock()
    ks = Credentials(PARTNER, ks=ready(simulator))
    with open_at(simulator, ks, monotonic=clock) as tokens:
        clock.now = 3500
        assert len(tokens.list_page(1, 10).rows) == 10


def test_an_actions_limit_is_lived_with_by_many_threads(simulator: SimulatorServer) -> None:
    simulator.partner.app_tokens[TOKEN_ID] = app_token(
        sessionPrivileges="actionslimit:20", hashType="SHA1"
    )
    with open_at(simulator, APP_TOKEN) as tokens, ThreadPoolExecutor(4) as pool:
        pages = list(pool.map(lambda _: tokens.list_page(1, 5), range(100)))

    assert all(len(page.rows) == 5 for page in pages)


def test_a_pool_of_threads_renews_once(simulator: SimulatorServer) -> None:
    simulator.configure(latency_ms=20)
    together = threading.Barrier(8)
    with open_at(simulator, APP_TOKEN) as tokens, ThreadPoolExecutor(8) as pool:
        tokens.list_page(1, 1)
        logins = actions(simulator).count("startWidgetSession")
        simulator.partner.ended_sessions.add(tokens._sessions.current().ks)

        def read(_: int) -> int:
            together.wait()
            return len(tokens.list_page(1, 10).rows)

        assert list(pool.map(read, range(8))) == [10] * 8
        assert actions(simulator).count("startWidgetSession") == logins + 1


def test_a_pool_of_threads_asks_once_for_what_is_refused_for_good(
    simulator: SimulatorServer,
) -> None:
    together = threading.Barrier(8)
    with open_at(simulator, APP_TOKEN) as tokens, ThreadPoolExecutor(8) as pool:
        tokens.list_page(1, 1)
        logins = actions(simulator).count("startWidgetSession")
        # The owner deletes the app token: its sessions end, and there will be no other.
        del simulator.partner.app_tokens[TOKEN_ID]
        simulator.partner.ended_sessions.add(tokens._sessions.current().ks)

        def read(_: int) -> str:
            together.wait()
            with pytest.raises(CredentialsRefused) as caught:
                tokens.list_page(1, 10)
            return str(caught.value.fields["code"])

        assert set(pool.map(read, range(8))) == {"APP_TOKEN_ID_NOT_FOUND"}
        assert actions(simulator).count("startWidgetSession") == logins + 1


# ---- clocks -----------------------------------------------------------------------------------


@pytest.mark.parametrize("minutes", [-20, 20, -60 * 24 * 365, 60 * 24 * 365])
@pytest.mark.parametrize("credentials", [ADMIN, APP_TOKEN])
def test_a_host_whose_clock_is_wrong_works_and_renews_in_time(
    simulator: SimulatorServer, minutes: int, credentials: Credentials
) -> None:
    clock = Clock()

    def host_clock() -> datetime:
        return datetime.now(UTC) + timedelta(minutes=minutes)

    with open_at(simulator, credentials, clock=host_clock, monotonic=clock) as tokens:
        left = tokens.probe().session_seconds_left
        assert left == pytest.approx(3600 if credentials is APP_TOKEN else 86_400, abs=5)
        before = len(actions(simulator))
        clock.now = 50_000 if credentials is ADMIN else 1900
        tokens.list_page(1, 1)
        assert len(actions(simulator)) > before


def test_a_session_shorter_than_asked_is_renewed_when_it_ends(simulator: SimulatorServer) -> None:
    simulator.partner.app_tokens[TOKEN_ID] = app_token(sessionDuration=2)
    clock = Clock()
    with open_at(simulator, APP_TOKEN, monotonic=clock) as tokens:
        for _ in range(5):
            clock.now += 1.5
            assert len(tokens.list_page(1, 3).rows) == 3


# ---- the reader -------------------------------------------------------------------------------


def test_a_probe_tells_what_check_shows(simulator: SimulatorServer) -> None:
    with open_at(simulator, APP_TOKEN) as tokens:
        probe = tokens.probe()

    assert probe.partner_id == PARTNER
    assert probe.total_count == 20
    assert 0 < probe.latency_seconds < 5
    assert abs(probe.server_clock_ahead_seconds) < 2


def test_pages_come_in_order_with_everything_that_the_ledger_needs(
    simulator: SimulatorServer,
) -> None:
    with open_at(simulator, ADMIN) as tokens:
        up = tokens.list_page(2, 7)
        down = tokens.list_page(1, 7, descending=True, status_in="0,1,2")
        found = tokens.list_by_id([f"0_{3:032x}", "0_nope"])
        spared = tokens.list_page(1, 1, omit_auto_finalize=True)

    created = [msgspec.json.decode(row)["createdAt"] for row in up.rows]
    assert created == [1_700_000_000 + n for n in range(7, 14)]
    assert (up.facts.page_index, up.facts.page_size, up.facts.total_count) == (2, 7, 20)
    assert up.facts.filter == '{"orderBy":"+createdAt"}'
    assert up.facts.requested_at.tzinfo is UTC
    assert up.facts.requested_at <= up.facts.received_at
    assert up.facts.body_sha256 == hashlib.sha256(up.body).digest()
    assert down.facts.filter == '{"orderBy":"-createdAt","statusIn":"0,1,2"}'
    assert msgspec.json.decode(down.rows[0])["createdAt"] == 1_700_000_019
    assert [msgspec.json.decode(row)["id"] for row in found.rows] == [f"0_{3:032x}"]
    assert (found.facts.page_index, found.facts.page_size) == (1, 500)
    assert "autoFinalize" not in msgspec.json.decode(spared.rows[0])


@pytest.mark.parametrize(
    ("page_index", "page_size"), [(0, 1), (-1, 1), (1, 0), (1, -1), (1, 501), (2**53, 1)]
)
def test_pages_that_the_service_would_misread_are_not_asked_for(
    simulator: SimulatorServer, page_index: int, page_size: int
) -> None:
    with open_at(simulator, ADMIN) as tokens, pytest.raises(ValueError, match="no such page"):
        tokens.list_page(page_index, page_size)


@pytest.mark.parametrize("ids", [[], ["a"] * 501, ["a,b"], [""]])
def test_ids_that_the_service_would_misread_are_not_asked_for(
    simulator: SimulatorServer, ids: list[str]
) -> None:
    with open_at(simulator, ADMIN) as tokens, pytest.raises(ValueError, match="id"):
        tokens.list_by_id(ids)


def test_a_poison_row_is_told_by_its_code_with_the_attempts_that_the_walk_wants(
    simulator: SimulatorServer,
) -> None:
    simulator.account.poison.add(f"0_{3:032x}")
    with open_at(simulator, ADMIN) as tokens:
        before = tokens.counters.requests
        with pytest.raises(RowSuspected) as caught:
            tokens.list_page(1, 10, row_attempts=1)

        assert caught.value.fields["code"] == "INTERNAL_SERVERL_ERROR"
        assert caught.value.fields["page_index"] == 1
        assert tokens.counters.requests == before + 1
        assert len(tokens.list_page(2, 10, row_attempts=1).rows) == 10
