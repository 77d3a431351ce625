"""Alembic's environment: the connection is given by `nexus.setup.migrate`, or a URL by `alembic -x url=...`."""

from alembic import context
from sqlalchemy import create_engine

from nexus.storage.db import Base


def run(connection) -> None:  # type: ignore[no-untyped-def]  # Alembic runs this file by itself
    """Run the migrations on one connection."""
    context.configure(
        connection=connection,
        target_metadata=Base.metadata,
        render_as_batch=connection.dialect.name == "sqlite",
        compare_type=True,
    )
    with context.begin_transaction():
        context.run_migrations()


given = context.config.attributes.get("connection")
if given is not None:
    run(given)
else:
    with create_engine(context.get_x_argument(as_dictionary=True)["url"]).begin() as opened:
        run(opened)
