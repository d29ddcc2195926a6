"""``python -m benchmarks [PART ...]``: run the given parts, or all of them except the soak."""

import argparse
from importlib import import_module
from pathlib import Path

from benchmarks.soak import run

PARTS = {"engine": "hot_paths", "worker": "comparison", "failures": "failures", "template": "template"}
SOAK = "soak"


def main() -> None:
    """Run the parts."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description="Measure Jobnik; see docs/explanation.")
    parser.add_argument("parts", nargs="*", choices=[*PARTS, SOAK], help="default: all except the soak")
    parser.add_argument("--minutes", type=float, default=60.0, help="length of the soak (default: 60)")
    parser.add_argument(
        "--output", type=Path, default=run.OUTPUT, help=f"folder for the results of the soak (default: {run.OUTPUT})"
    )
    arguments = parser.parse_args()
    for part in arguments.parts or PARTS:
        if part == SOAK:
            run.main(arguments.minutes, arguments.output)
        else:
            import_module(f"benchmarks.{PARTS[part]}").main()


if __name__ == "__main__":
    main()
