"""Move a published run to another time, so that a test can live through weeks in a minute."""

from etl.warehouse.read.demo import restamp_run

__all__ = ["restamp_run"]
