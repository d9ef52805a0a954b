"""Alembic's entry point, the same for every service: it runs on the connection that `migrate` holds."""

from alembic import context

connection = context.config.attributes["connection"]
# Alembic takes SQLite for an engine without transactional DDL; it has it, once we say BEGIN ourselves.
context.configure(connection=connection, transaction_per_migration=True, transactional_ddl=True)
with context.begin_transaction():
    context.run_migrations()
