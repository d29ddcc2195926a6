"""A PostgreSQL that nobody has to install: found, created, started and stopped by the manager itself.

Who owns a data folder: the one `EmbeddedPostgres` that holds its lock, from `start` to `stop` or to the end of its
process. A second one is refused. A server that outlived its owner is ended cleanly before a new one is started, so
there is no server that nobody stops, and none that vanishes under somebody else. For Linux and macOS.
"""

from reference_manager.embedded.binaries import find_binaries
from reference_manager.embedded.errors import EmbeddedPostgresError
from reference_manager.embedded.folder import default_data_dir
from reference_manager.embedded.server import EmbeddedPostgres

__all__ = ["EmbeddedPostgres", "EmbeddedPostgresError", "default_data_dir", "find_binaries"]
