"""Roles on a database of the test's own."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.roles import Roles, roles_of


@pytest.fixture
def roles(database_url: str) -> Iterator[Roles]:
    with roles_of(database_url) as made:
        yield made


@pytest.fixture
def granted(roles: Roles) -> Roles:
    roles.grant_all()
    return roles
