"""The first load of an account: what was staged is written as it is, in the order of creation."""

from __future__ import annotations

from datetime import timedelta

from tests.support.nights import OBSERVED, START, MakeNights, Nights, make_token, page_of
from tests.support.plans import measured

TOKENS = 1_000
STEPS = 5
"""What may be done with each row: found by index, put in order, told from its twins, written."""


def load(nights: Nights, partner_id: int, apart: int) -> int:
    """A first load in two batches, each with the last of the other's tokens; how many there are.

    The second batch shows it as closed, and made so many seconds later.
    """
    tokens = [make_token(f"t{number:04}", START + 7 * number) for number in range(TOKENS)]
    middle = TOKENS // 2
    run = nights.open(partner_id=partner_id)
    early = tokens[middle]._replace(status=0)
    late = tokens[middle]._replace(created_at=early.created_at + timedelta(seconds=apart))
    nights.stage(run, page_of([*tokens[:middle], early], from_start=True))
    later = page_of(
        [late, *tokens[middle + 1 :]], observed_at=OBSERVED + timedelta(minutes=1), to_end=True
    )
    nights.stage(run, later)
    nights.publish(run)
    (stored,) = nights.query(
        "select status, created_at, observed_at from kaltura.upload_token "
        "where partner_id = %s and token_id = %s",
        *(partner_id, late.token_id),
    )
    assert stored == {
        "status": 3,
        "created_at": late.created_at,
        "observed_at": later.facts.received_at,
    }
    assert nights.counts.inserted == TOKENS
    return len(tokens)


def test_what_a_later_batch_showed_is_written_once(make_nights: MakeNights) -> None:
    """With the createdAt that an earlier one showed, and with another one."""
    nights = make_nights()
    for partner_id, apart in ((1, 0), (2, 3)):
        number = load(nights, partner_id, apart)
        (counted,) = nights.query(
            "select count(*) from kaltura.upload_token where partner_id = %s", partner_id
        )
        assert counted == {"count": number}


def test_rows_are_not_sorted_as_a_whole(make_nights: MakeNights) -> None:
    """They are staged in the order of creation, or nearly so, and an index of them is."""
    nights = make_nights()
    with measured(nights.database) as work:
        load(nights, partner_id=1, apart=0)
    (written,) = [
        rows for words, rows in work.items() if words.startswith("INSERT INTO kaltura.upload_token")
    ]
    assert written <= STEPS * (TOKENS + 1) + 10
