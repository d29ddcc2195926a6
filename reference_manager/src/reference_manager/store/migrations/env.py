"""The entry point of Alembic: runs the migrations on the connection of ``store.upgrade``, in its transaction."""

from alembic import context
from sqlalchemy import Connection

connection: Connection = context.config.attributes["connection"]
context.configure(connection=connection, version_table="migrations", version_table_schema="jobnik")
context.run_migrations()
