"""Everything that touches PostgreSQL: migrations, routines, named queries and the pool."""
