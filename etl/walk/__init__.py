"""Cover a range of the createdAt line with pages, and know for certain when it is covered.

Pure: no clock, no network, no database.  ``Walk`` says which page it wants next and is told what
the page said; who fetches, how many at a time and in which order is the caller's business.
"""

from etl.walk.knowledge import Hole, WalkStuck
from etl.walk.planner import Lookup, PageRequest, PageRows, Request
from etl.walk.walk import Walk

__all__ = ["Hole", "Lookup", "PageRequest", "PageRows", "Request", "Walk", "WalkStuck"]
