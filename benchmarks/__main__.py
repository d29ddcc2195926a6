"""``python -m benchmarks [engine|worker|template]``: one part, or all of them."""

import sys

from benchmarks import beside_others, hot_paths, template

PARTS = {"engine": hot_paths.main, "worker": beside_others.main, "template": template.main}

if __name__ == "__main__":
    for part in sys.argv[1:] or PARTS:
        PARTS[part]()
