"""``python -m benchmarks [engine|worker|template]``: run the given parts, or all of them."""

import sys

from benchmarks import comparison, hot_paths, template

PARTS = {"engine": hot_paths.main, "worker": comparison.main, "template": template.main}

if __name__ == "__main__":
    for part in sys.argv[1:] or PARTS:
        PARTS[part]()
