"""What SQLAlchemy and psycopg refuse by themselves is a bug, not a warehouse that is away."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import suppress

import psycopg
import pytest
import sqlalchemy as sa
from sqlalchemy.exc import DBAPIError, SQLAlchemyError

from etl.cli.exit_codes import exit_code_of
from etl.errors import DataRefused, WarehouseUnavailable
from etl.warehouse.engine import connect, driver_connection, transaction

MISUSES: dict[str, Callable[[sa.Connection], object]] = {
    "no value of a parameter": lambda one: one.execute(sa.text("select :x")),
    "no such dialect": lambda _: sa.create_engine("nosuch://host/d"),
    "no URL": lambda _: sa.create_engine("no url"),
    "a column that there is not": lambda one: one.execute(sa.insert(sa.table("t")).values(x=1)),
    "two rows for one": lambda one: one.execute(
        sa.select(sa.func.generate_series(1, 2))
    ).scalar_one(),
    "too many values": lambda one: one.exec_driver_sql("select %s", (1, 2)),
    "a value of no type": lambda one: driver_connection(one).execute("select %s", [object()]),
}


@pytest.fixture
def engine(database_url: str) -> Iterator[sa.Engine]:
    made = connect(database_url)
    yield made
    made.dispose()


@pytest.mark.parametrize("misuse", MISUSES.values(), ids=MISUSES)
def test_a_misuse_is_a_bug(engine: sa.Engine, misuse: Callable[[sa.Connection], object]) -> None:
    with (
        pytest.raises((SQLAlchemyError, psycopg.Error)) as raised,
        transaction(engine) as connection,
    ):
        misuse(connection)
    assert exit_code_of(raised.value) == 1


def test_a_value_that_has_no_form_in_postgres_is_refused(engine: sa.Engine) -> None:
    with pytest.raises(DataRefused) as refused, transaction(engine) as connection:
        connection.execute(sa.select(sa.literal("nul\0")))
    assert (refused.value.exit_code, refused.value.fields["reason"]) == (65, "value_refused")


def test_what_follows_a_lost_connection_is_told_as_that(engine: sa.Engine) -> None:
    """SQLAlchemy then says that a transaction has to be rolled back first."""

    def lose_it_and_go_on() -> None:
        with transaction(engine) as connection:
            driver_connection(connection).close()
            with suppress(DBAPIError):
                connection.exec_driver_sql("select 1")
            connection.exec_driver_sql("select 1")

    with pytest.raises(WarehouseUnavailable) as lost:
        lose_it_and_go_on()
    assert (lost.value.exit_code, lost.value.fields["reason"]) == (74, "connection_lost")
