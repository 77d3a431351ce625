"""The events of responses that are made in the background, and who may add to them.

Revision: 0010
Follows: 0009
"""

from alembic import op
import sqlalchemy as sa
import nexus.storage.db


revision = '0010'
down_revision = '0009'
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table('llm_response_event',
    sa.Column('project_id', sa.String(length=40), nullable=False),
    sa.Column('response_id', sa.String(length=128), nullable=False),
    sa.Column('number', sa.Integer(), autoincrement=False, nullable=False),
    sa.Column('last', sa.Integer(), nullable=False),
    sa.Column('data', sa.LargeBinary(), nullable=False),
    sa.PrimaryKeyConstraint('project_id', 'response_id', 'number', name=op.f('pk_llm_response_event'))
    )
    with op.batch_alter_table('llm_response', schema=None) as batch_op:
        batch_op.add_column(sa.Column('worker', sa.String(length=40), nullable=True))



def downgrade() -> None:
    with op.batch_alter_table('llm_response', schema=None) as batch_op:
        batch_op.drop_column('worker')

    op.drop_table('llm_response_event')
