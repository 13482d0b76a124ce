"""The answers that the known account must give, worked out without any SQL of the program.

Plain Python over ``lives`` and ``truth``, and where few, written down.
"""

from __future__ import annotations

from tests.questions import expected_changes, expected_status, expected_trends, expected_uploads

EXPECTED = (
    expected_status.ANSWERS
    | expected_changes.ANSWERS
    | expected_uploads.ANSWERS
    | expected_trends.ANSWERS
)
