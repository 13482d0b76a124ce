"""Faults that do not pass: one request, and the exit code of what the caller should do."""

from __future__ import annotations

from base64 import b64encode
from urllib.parse import quote

import pytest

from etl.errors import (
    ConfigurationError,
    CredentialsRefused,
    DataRefused,
    EtlError,
    ServiceUnavailable,
)
from etl.simulator import Fault
from tests.support.service_faults import (
    APP_KS,
    APP_TOKEN,
    LIST_PATH,
    OTHERS_KS,
    POSITIONS,
    Seen,
    Serve,
    Served,
    Waits,
    api_fault,
    error_of,
    run_at,
    status_fault,
)

PERMANENT: dict[str, tuple[Fault, type[EtlError], int]] = {
    "401": (status_fault(401), CredentialsRefused, 77),
    "403": (status_fault(403), CredentialsRefused, 77),
    "404": (status_fault(404), ConfigurationError, 78),
    "407": (status_fault(407), ConfigurationError, 78),
    "413": (status_fault(413), DataRefused, 65),
    "SERVICE_FORBIDDEN": (api_fault("SERVICE_FORBIDDEN"), CredentialsRefused, 77),
    "INVALID_KS with another's session": (
        api_fault("INVALID_KS", KSID=OTHERS_KS),
        CredentialsRefused,
        77,
    ),
    "INVALID_KS with our session": (
        api_fault("INVALID_KS", KSID=APP_KS),
        CredentialsRefused,
        77,
    ),
    "INVALID_KS with the request's session": (Fault("ks-invalid"), CredentialsRefused, 77),
    "EXCEEDED_RESTRICTED_IP": (
        api_fault("INVALID_KS", KSID="EXCEEDED_RESTRICTED_IP"),
        ConfigurationError,
        78,
    ),
    "INVALID_ENUM_VALUE": (
        api_fault("INVALID_ENUM_VALUE", PARAM_NAME=APP_KS, ENUM_VAL=APP_KS),
        ConfigurationError,
        78,
    ),
    "unknown code": (api_fault("FLUX_CAPACITOR_EMPTY"), DataRefused, 65),
    "a session as code": (api_fault(OTHERS_KS), DataRefused, 65),
    "a part of the app token as code": (api_fault(APP_TOKEN[:18]), DataRefused, 65),
    "parts of secrets as names": (
        api_fault(
            "ACTION_DOES_NOT_EXISTS",
            ACTION_NAME=APP_TOKEN[4:20],
            SERVICE_NAME=f"uploadToken->{APP_KS[-16:]}",
            SERVICE=b64encode(APP_KS.encode()).decode()[4:60],
            PARAM_NAME=OTHERS_KS[4:20],
            PROP_NAME=quote(OTHERS_KS, safe=""),
        ),
        ConfigurationError,
        78,
    ),
}


@pytest.mark.parametrize("where", POSITIONS)
@pytest.mark.parametrize("kind", PERMANENT)
def test_a_permanent_fault_causes_exactly_one_request(
    service: Served, waits: Waits, seen: Seen, kind: str, where: str
) -> None:
    fault, error, exit_code = PERMANENT[kind]
    service.meet(fault, where)
    with error_of(seen, error) as caught:
        run_at(service, waits)

    assert caught[0].exit_code == exit_code
    assert len(service.at(where)) == 1
    assert waits == []


def test_html_with_status_200_is_tried_once_more_and_refused(
    service: Served, waits: Waits, seen: Seen
) -> None:
    where = "login"
    service.meet("200-html", where, 1)
    run_at(service, waits)
    for before in ([], ["503-html"], ["200-html", "503-html"]):
        requests = len(service.at(where))
        service.meet_each([*before, *["200-html"] * 3], where)
        with error_of(seen, DataRefused) as caught:
            run_at(service, waits)

        assert caught[0].fields["reason"] == "markup_reply"
        assert len(service.at(where)) == requests + len(before) + 2


@pytest.mark.parametrize("where", [each for each in POSITIONS if each != "login"])
def test_html_from_a_service_that_has_answered_is_trouble(
    service: Served, waits: Waits, seen: Seen, where: str
) -> None:
    """A maintenance page: it is waited for, and the job is worth another try."""
    quiet = run_at(service, waits)
    service.meet("200-html", where, 4)
    assert run_at(service, waits) == quiet + 4
    requests = len(service.at(where))
    service.meet("200-html", where)
    with error_of(seen, ServiceUnavailable) as caught:
        run_at(service, waits)

    assert caught[0].exit_code == 69
    assert len(service.at(where)) == requests + 6


@pytest.mark.parametrize("where", POSITIONS)
@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_redirect_is_not_followed_and_the_secret_goes_nowhere(
    service: Served, serve: Serve, waits: Waits, seen: Seen, status: int, where: str
) -> None:
    elsewhere, here = serve(), service.server.url + LIST_PATH
    echo = f"https://{APP_TOKEN[:20]}.example/"
    for target in (elsewhere.server.url + LIST_PATH, here, LIST_PATH, "//[", "", echo):
        before = len(service.requests)
        service.meet(Fault(f"redirect-{status}", {"location": target}), where)
        with error_of(seen, ServiceUnavailable) as caught:
            run_at(service, waits)
        assert caught[0].fields["reason"] == "redirect"
        positions = [request.position for request in service.requests[before:]]
        assert positions.count(where) == 1
    assert elsewhere.server.connections_accepted == 0
    assert waits == []


@pytest.mark.parametrize("where", POSITIONS)
def test_a_session_that_ends_is_renewed_once_and_then_refused(
    service: Served, waits: Waits, seen: Seen, where: str
) -> None:
    for reason in ("EXPIRED", "LOGOUT", "EXCEEDED_ACTIONS_LIMIT"):
        service.meet(api_fault("INVALID_KS", KSID=reason), where, 1)
        run_at(service, waits)
        service.meet(api_fault("INVALID_KS", KSID=reason), where)
        with error_of(seen, CredentialsRefused) as caught:
            run_at(service, waits)
        assert caught[0].exit_code == 77
    assert waits == []
