"""Approvals that another person has to decide than the one who started the run.

Revision: 0009
Follows: 0008
"""

from alembic import op
import sqlalchemy as sa
import nexus.storage.db


revision = '0009'
down_revision = '0008'
branch_labels = None
depends_on = None


def upgrade() -> None:
    with op.batch_alter_table('approval', schema=None) as batch_op:
        batch_op.add_column(sa.Column('four_eyes', sa.Boolean(), server_default=sa.false(), nullable=False))



def downgrade() -> None:
    with op.batch_alter_table('approval', schema=None) as batch_op:
        batch_op.drop_column('four_eyes')

