"""Where the attempt went that makes a response in the background.

Revision: 0011
Follows: 0010
"""

from alembic import op
import sqlalchemy as sa
import nexus.storage.db


revision = '0011'
down_revision = '0010'
branch_labels = None
depends_on = None


def upgrade() -> None:
    with op.batch_alter_table('llm_response', schema=None) as batch_op:
        batch_op.add_column(sa.Column('asked', sa.JSON(), nullable=True))



def downgrade() -> None:
    with op.batch_alter_table('llm_response', schema=None) as batch_op:
        batch_op.drop_column('asked')
