"""The resource ``workers``: heartbeats and drain orders."""
