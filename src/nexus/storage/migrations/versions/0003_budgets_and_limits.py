"""Budgets, limits of projects, and tokens written to a cache for an hour.

Revision: 0003
Follows: 0002
"""

from alembic import op
import sqlalchemy as sa
import nexus.storage.db


revision = '0003'
down_revision = '0002'
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table('budget',
    sa.Column('id', sa.String(length=40), nullable=False),
    sa.Column('project_id', sa.String(length=40), nullable=False),
    sa.Column('key_id', sa.String(length=40), nullable=True),
    sa.Column('name', sa.String(length=120), nullable=False),
    sa.Column('amount_usd', sa.Float(), nullable=False),
    sa.Column('period', sa.String(length=8), nullable=False),
    sa.Column('hard', sa.Boolean(), nullable=False),
    sa.Column('alerts', sa.JSON(), nullable=False),
    sa.Column('created_at', nexus.storage.db.Moment(timezone=True), nullable=False),
    sa.Column('updated_at', nexus.storage.db.Moment(timezone=True), nullable=False),
    sa.PrimaryKeyConstraint('id', name=op.f('pk_budget'))
    )
    with op.batch_alter_table('budget', schema=None) as batch_op:
        batch_op.create_index(batch_op.f('ix_budget_project_id'), ['project_id'], unique=False)

    with op.batch_alter_table('invocation', schema=None) as batch_op:
        batch_op.add_column(sa.Column('cache_write_1h_tokens', sa.BigInteger(), nullable=True))

    with op.batch_alter_table('project', schema=None) as batch_op:
        batch_op.add_column(sa.Column('rpm', sa.Integer(), nullable=True))
        batch_op.add_column(sa.Column('tpm', sa.Integer(), nullable=True))
        batch_op.add_column(sa.Column('parallel', sa.Integer(), nullable=True))



def downgrade() -> None:
    with op.batch_alter_table('project', schema=None) as batch_op:
        batch_op.drop_column('parallel')
        batch_op.drop_column('tpm')
        batch_op.drop_column('rpm')

    with op.batch_alter_table('invocation', schema=None) as batch_op:
        batch_op.drop_column('cache_write_1h_tokens')

    with op.batch_alter_table('budget', schema=None) as batch_op:
        batch_op.drop_index(batch_op.f('ix_budget_project_id'))

    op.drop_table('budget')
