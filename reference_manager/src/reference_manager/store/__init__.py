"""Access to PostgreSQL: migrations, routines, named queries and connection pools."""
