"""What pruning took and what a run did not see are counted; which process holds the lease.

So a check can tell rows that were pruned from rows that are lost.  What was deleted before this
revision has no record: where a run has no pages left, they count as pruned here.
"""

from __future__ import annotations

from typing import Final

import sqlalchemy as sa
from alembic import op

from etl.warehouse.schema.migration import enter_schema, require_force

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None

COUNTS: Final = {
    "pages_pruned": "Pages of the run deleted by pruning: all of them or none.",
    "rejected_pruned": "Rejected rows of the run deleted by pruning, counted like rejected.",
    "unobserved": "Known tokens that it covered without seeing: rows of unobserved_token.",
}
PROCESS: Final = "Identifies its process on its machine, so that a dead one is recognised."


def upgrade() -> None:
    enter_schema()
    for name, words in COUNTS.items():
        op.add_column(
            "sync_run",
            sa.Column(
                name, sa.BigInteger(), nullable=False, server_default=sa.text("0"), comment=words
            ),
        )
    op.add_column("sync_run", sa.Column("process", sa.Text(), nullable=True, comment=PROCESS))
    # The ledger is small.
    op.execute(
        "update sync_run as run set pages_pruned = run.pages where run.status <> 'running' "
        "and not exists (select from sync_page as page where page.run_id = run.run_id)"
    )
    op.execute(
        "update sync_run as run set rejected_pruned = run.rejected where run.status <> 'running' "
        "and not exists (select from rejected_row as row where row.run_id = run.run_id) "
        "and (not exists (select from sync_page as page where page.run_id = run.run_id) "
        "or exists (select from pruning as pruned where pruned.partner_id = run.partner_id "
        "and pruned.kind = 'rejected' and pruned.horizon > run.started_at))"
    )
    op.execute(
        "update sync_run as run set unobserved = noted.tokens from ("
        "select run_id, count(*) as tokens from unobserved_token group by run_id) as noted "
        "where noted.run_id = run.run_id"
    )
    # It has no key: a publication of all tables would forbid to delete from it.
    op.execute("alter table rejected_row replica identity full")


def downgrade() -> None:
    require_force("This downgrade forgets what was pruned")
    enter_schema()
    op.execute("alter table rejected_row replica identity default")
    for name in ("process", *COUNTS):
        op.drop_column("sync_run", name)
