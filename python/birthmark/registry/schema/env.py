"""Alembic runs this: migrate over the connection that the registry hands in."""

from alembic import context

from birthmark.registry.tables import metadata

context.configure(connection=context.config.attributes["connection"], target_metadata=metadata)
with context.begin_transaction():
    context.run_migrations()
