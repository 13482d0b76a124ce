"""An analyst has the days of the views cut in a time zone of his own, without asking each time."""

from __future__ import annotations

from contextlib import closing

import psycopg
from psycopg import sql

from tests.support.roles import Roles, connected


def zone_of(url: str) -> str:
    with connected(url) as opened:
        row = opened.execute("select kaltura.kaltura_time_zone()").fetchone()
    assert row is not None
    return str(row[0])


def test_the_zone_of_a_connection_of_a_role_and_of_a_database(granted: Roles) -> None:
    """As docs/reference/views.md says."""
    url, role = granted.url("analyst"), sql.Identifier(granted.names["analyst"])
    own = sql.SQL("alter role {} set kaltura.time_zone = 'Asia/Tokyo'").format(role)

    # Anybody, in the address.
    assert zone_of(f"{url}&options=-c%20kaltura.time_zone%3DEurope/Berlin") == "Europe/Berlin"
    # Postgres lets an ordinary role keep no setting that it does not know...
    assert granted.refusal("analyst", own) == "42501"
    assert zone_of(url) == "UTC"
    # ... unless it was allowed to; a session of its own, because the right is looked up once.
    granted.owner(sql.SQL("grant set on parameter kaltura.time_zone to {}").format(role))
    with closing(psycopg.connect(url, autocommit=True)) as analyst:
        analyst.execute(own)
    assert zone_of(url) == "Asia/Tokyo"
    granted.owner(sql.SQL("revoke set on parameter kaltura.time_zone from {}").format(role))
    granted.owner(sql.SQL("alter role {} reset kaltura.time_zone").format(role))
    # For everybody who comes to the database.
    granted.owner(
        sql.SQL("alter database {} set kaltura.time_zone = 'Europe/Vienna'").format(
            sql.Identifier(str(granted.owner("select current_database() as name")[0]["name"]))
        )
    )
    assert zone_of(url) == "Europe/Vienna"
