"""The warehouse that the queries of the dashboards are asked of: the known accounts'."""

from tests.questions.conftest import known_url

__all__ = ["known_url"]
