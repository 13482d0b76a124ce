"""Cover a range of the createdAt line with pages, and prove when it is covered.

Pure: no clock, no network, no database.  ``Walk`` says which page it wants next and receives its
rows; how pages are fetched, how many at a time and in which order is up to the caller.
"""

from etl.walk.knowledge import Hole, WalkStuck, what_was_not_read
from etl.walk.planner import Lookup, PageRequest, PageRows, Request
from etl.walk.remembered import Remembered
from etl.walk.walk import Walk

__all__ = [
    "Hole",
    "Lookup",
    "PageRequest",
    "PageRows",
    "Remembered",
    "Request",
    "Walk",
    "WalkStuck",
    "what_was_not_read",
]
