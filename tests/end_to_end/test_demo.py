"""`make demo` as a new user runs it, with several runs in the same folder."""

import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest
from PIL import Image

ROOT = Path(__file__).resolve().parents[2]
PICTURES = ROOT / "tools" / "demo" / "pictures"
MANAGER_STARTED = "Started the manager and its PostgreSQL"

# Each run renders, installs and starts everything; the first run may also download it.
pytestmark = pytest.mark.timeout(180)

Start = Callable[..., subprocess.Popen[str]]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder that all runs in this file share, so that later runs find the files of earlier ones."""
    return tmp_path_factory.mktemp("demo")


@pytest.fixture
def temporary() -> Iterator[Path]:
    """Return a folder for the demo's temporary files. Unlike pytest's folders, PostgreSQL's user can access it."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o711)
        yield Path(folder)


@pytest.fixture
def start_demo(folder: Path, temporary: Path) -> Iterator[Start]:
    """Return a function that starts the demo in its own process group, as a shell does."""
    started: list[subprocess.Popen[str]] = []

    def start(*arguments: str) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, "-m", "tools.demo", *arguments],
            cwd=folder,
            env=os.environ | {"PYTHONPATH": str(ROOT), "COLUMNS": "200", "TMPDIR": str(temporary)},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        started.append(process)
        return process

    yield start
    for process in started:
        if process.poll() is None:
            process.terminate()
            process.communicate()


def test_demo_makes_a_contact_sheet_of_its_own_pictures(start_demo: Start, folder: Path, temporary: Path) -> None:
    """Every picture gets a thumbnail, the sheet opens, the table shows the rate, and the database is removed."""
    process = start_demo()
    output, _ = process.communicate()
    assert process.returncode == 0, output
    assert "Tasks/s" in output
    assert str(folder / "demo" / "contact-sheet.jpg") in output

    thumbnails = list((folder / "demo" / "thumbnails").iterdir())
    assert len(thumbnails) == len(list(PICTURES.iterdir()))
    for thumbnail in thumbnails:
        with Image.open(thumbnail) as picture:
            assert max(picture.size) == 256
    with Image.open(folder / "demo" / "contact-sheet.jpg") as sheet:
        assert sheet.size == (1376, 1104)
        sheet.load()
    assert list(temporary.glob("jobnik-demo-*")) == []


def test_demo_names_a_broken_picture_and_the_reason(start_demo: Start, folder: Path, tmp_path: Path) -> None:
    """A truncated file is tried three times and named; the exit code is 1, and there is no contact sheet."""
    for name in ("sea.jpg", "dunes.jpg"):
        shutil.copy(PICTURES / name, tmp_path)
    whole = (PICTURES / "night-forest.jpg").read_bytes()
    broken = tmp_path / "broken [1].JPG"
    broken.write_bytes(whole[: len(whole) // 2])
    (tmp_path / "notes.txt").write_text("no picture")

    process = start_demo("--images", str(tmp_path))
    output, _ = process.communicate()
    assert process.returncode == 1, output
    assert f"✗ {broken}" in output
    assert "failed after 1 attempt: " in output
    assert "image file is truncated" in output
    assert not (folder / "demo" / "contact-sheet.jpg").exists()


def test_demo_rejects_a_folder_without_pictures(start_demo: Start, tmp_path: Path) -> None:
    """The demo starts nothing, and the message lists the supported file types."""
    process = start_demo("--images", str(tmp_path))
    output, _ = process.communicate()
    assert process.returncode == 1
    assert f"{tmp_path} contains no pictures" in output
    assert ".png" in output


@pytest.mark.parametrize(
    ("send", "number", "exit_code"),
    [
        pytest.param(os.killpg, signal.SIGINT, 130, id="ctrl-c"),
        pytest.param(os.kill, signal.SIGTERM, 130, id="terminate"),
        pytest.param(
            os.kill,
            signal.SIGKILL,
            -signal.SIGKILL,
            id="kill",
            marks=pytest.mark.skipif(
                sys.platform != "linux", reason="only Linux ends the children of a killed process"
            ),
        ),
    ],
)
def test_stopping_the_demo_stops_all_its_processes(
    start_demo: Start,
    tmp_path: Path,
    send: Callable[[int, signal.Signals], None],
    number: signal.Signals,
    exit_code: int,
) -> None:
    """When the demo is interrupted, terminated or killed during a job, the manager, PostgreSQL and the worker end."""
    for copy in range(400):
        (tmp_path / f"{copy}.jpg").symlink_to(PICTURES / "night-forest.jpg")
    process = start_demo("--images", str(tmp_path))
    assert process.stdout is not None
    output = ""
    while MANAGER_STARTED not in output:
        line = process.stdout.readline()
        assert line, output
        output += line
    processes = psutil.Process(process.pid).children(recursive=True)
    assert any(one.name().startswith("postgres") for one in processes)

    send(process.pid, number)
    rest, _ = process.communicate()
    assert process.returncode == exit_code, output + rest
    _, alive = psutil.wait_procs(processes, timeout=20)
    assert alive == []
