"""``python -m benchmarks [engine|worker]``: one part, or both."""

import sys

from benchmarks import beside_others, hot_paths

PARTS = {"engine": hot_paths.main, "worker": beside_others.main}

if __name__ == "__main__":
    for part in sys.argv[1:] or PARTS:
        PARTS[part]()
