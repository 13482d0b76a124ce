"""What the benchmarks know of the program by name is there."""

from __future__ import annotations

import pytest

from benchmarks.service import ACCOUNTS
from benchmarks.stop_watch import WATCHED, NotThere, find
from etl.simulator.account.kinds import KINDS


@pytest.mark.parametrize("path", [path for path, _ in WATCHED])
def test_a_watched_function_exists(path: str) -> None:
    assert callable(find(path)[2])


def test_a_name_that_is_gone_is_an_error_that_names_it() -> None:
    with pytest.raises(NotThere, match=r"watches etl\.coverage:gone, which is not there"):
        find("etl.coverage:gone")
    with pytest.raises(NotThere, match=r"etl\.nothing:gone"):
        find("etl.nothing:gone")


def test_every_account_is_a_kind_of_the_simulator() -> None:
    assert set(ACCOUNTS) == set(KINDS)
