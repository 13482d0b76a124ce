"""${message}

Before this goes in:
1. It adds, it does not take away: nothing of a user's is dropped, no column changes its meaning.
   A rename is a new column now and a removal in a later release, stated in the changelog.
2. No lock that readers feel: create_index and drop_index of etl.warehouse.schema.migration (first);
   NOT NULL and CHECK first NOT VALID, then VALIDATE in the next revision; a default only if it is
   constant.  lock_timeout is 5 s: a migration that fails may simply be started again, so each
   revision is one transaction, or can be repeated.
3. Backfills go in batches of a run, not here.
4. Every new table and column has a comment, and etl/warehouse/schema/tables.py says the same.
5. A view is installed by the last revision that changed it: take the line out of the earlier one.
6. The downgrade refuses where it would lose data, unless -x force=yes.
7. The number is the next one (--rev-id 0002): HEAD_REVISION in etl/warehouse/schema/revision.py follows it.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
${imports if imports else ""}
from etl.warehouse.schema.migration import enter_schema

revision = ${repr(up_revision)}
down_revision = ${repr(down_revision)}
branch_labels = ${repr(branch_labels)}
depends_on = ${repr(depends_on)}


def upgrade() -> None:
    enter_schema()
    ${upgrades if upgrades else "pass"}


def downgrade() -> None:
    enter_schema()
    ${downgrades if downgrades else "pass"}
