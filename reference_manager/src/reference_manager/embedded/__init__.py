"""The embedded PostgreSQL: a server that the manager finds, creates, starts and stops itself. For Linux and macOS.

One `EmbeddedPostgres` at a time owns a data folder. It holds the lock of the folder from `start` until `stop`, or until
its process ends; a second owner is refused. A server that outlived its owner is shut down before a new one starts, so
no server keeps running without an owner, and none is stopped while its owner runs.
"""

from reference_manager.embedded.binaries import find_binaries
from reference_manager.embedded.errors import EmbeddedPostgresError
from reference_manager.embedded.folder import default_data_dir
from reference_manager.embedded.server import EmbeddedPostgres, running_server_url

__all__ = ["EmbeddedPostgres", "EmbeddedPostgresError", "default_data_dir", "find_binaries", "running_server_url"]
