"""Renew the pictures in docs/pictures: the output of the demo as SVG, and the contact sheet that it makes.

    python -m tools.docs.pictures FOLDER

This runs the demo in FOLDER. The SVG shows the path of FOLDER. Look at both pictures before you commit them.
"""

import argparse
import io
import subprocess
import sys
from pathlib import Path

from jobnik_devtools.environments import clean_environment
from PIL import Image
from rich.console import Console
from rich.text import Text

ROOT = Path(__file__).parents[2]
PICTURES = ROOT / "docs" / "pictures"
_COLUMNS = 80
_SHEET_WIDTH = 880


def main() -> None:
    """Run the demo and write the pictures."""
    parser = argparse.ArgumentParser(prog="python -m tools.docs.pictures")
    parser.add_argument("folder", type=Path)
    folder: Path = parser.parse_args().folder
    console = Console(record=True, width=_COLUMNS, file=io.StringIO())
    console.print(Text.from_ansi(_run_demo(folder).strip("\n")))
    console.save_svg(str(PICTURES / "demo.svg"), title="make demo")
    with Image.open(folder / "demo" / "contact-sheet.jpg") as sheet:
        sheet.thumbnail((_SHEET_WIDTH, _SHEET_WIDTH))
        sheet.save(PICTURES / "contact-sheet.jpg", quality=80, optimize=True, progressive=True)


def _run_demo(folder: Path) -> str:
    # With colours as on a terminal, but with each progress bar only once, in its final state.
    terminal = {"TTY_COMPATIBLE": "1", "TTY_INTERACTIVE": "0", "COLORTERM": "truecolor", "COLUMNS": str(_COLUMNS)}
    command = [sys.executable, "-m", "tools.demo"]
    environment = clean_environment() | terminal | {"PYTHONPATH": str(ROOT)}
    return subprocess.run(command, cwd=folder, env=environment, stdout=subprocess.PIPE, text=True, check=True).stdout


if __name__ == "__main__":
    main()
