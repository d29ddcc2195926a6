"""`make demo`, as a newcomer runs it: all of it is real, and one run after the other in the same folder."""

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
CRITICAL_POINT = "The manager and its PostgreSQL are up"

# Each run renders, installs and starts everything, and the first one may have to download it.
pytestmark = pytest.mark.timeout(180)

Start = Callable[..., subprocess.Popen[str]]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where all runs of this file take place, so that later ones find what earlier ones left."""
    return tmp_path_factory.mktemp("newcomer")


@pytest.fixture
def temporary() -> Iterator[Path]:
    """Where the demo puts what it removes again; PostgreSQL can get there, as it cannot below pytest's own folders."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o711)
        yield Path(folder)


@pytest.fixture
def start_demo(folder: Path, temporary: Path) -> Iterator[Start]:
    """Start the demo in a process group of its own, as a shell does."""
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


def test_the_demos_own_pictures_become_a_contact_sheet(start_demo: Start, folder: Path, temporary: Path) -> None:
    """Every picture has a thumbnail, the sheet opens, and the table tells how fast it was; the database is removed."""
    process = start_demo()
    said, _ = process.communicate()
    assert process.returncode == 0, said
    assert "Tasks/s" in said
    assert str(folder / "demo" / "contact-sheet.jpg") in said

    thumbnails = list((folder / "demo" / "thumbnails").iterdir())
    assert len(thumbnails) == len(list(PICTURES.iterdir()))
    for thumbnail in thumbnails:
        with Image.open(thumbnail) as picture:
            assert max(picture.size) == 256
    with Image.open(folder / "demo" / "contact-sheet.jpg") as sheet:
        assert sheet.size == (1376, 1104)
        sheet.load()
    assert list(temporary.glob("jobnik-demo-*")) == []


def test_a_broken_picture_is_named_with_its_reason(start_demo: Start, folder: Path, tmp_path: Path) -> None:
    """One truncated file among good ones: tried three times and named, exit code 1, no sheet."""
    for name in ("sea.jpg", "dunes.jpg"):
        shutil.copy(PICTURES / name, tmp_path)
    whole = (PICTURES / "night-forest.jpg").read_bytes()
    broken = tmp_path / "broken [1].JPG"
    broken.write_bytes(whole[: len(whole) // 2])
    (tmp_path / "notes.txt").write_text("no picture")

    process = start_demo("--images", str(tmp_path))
    said, _ = process.communicate()
    assert process.returncode == 1, said
    assert f"✗ {broken}" in said
    assert "tried 3 times" in said
    assert "image file is truncated" in said
    assert not (folder / "demo" / "contact-sheet.jpg").exists()


def test_a_folder_without_pictures_is_refused_at_once(start_demo: Start, tmp_path: Path) -> None:
    """Nothing is started for it; the message says what counts as a picture."""
    process = start_demo("--images", str(tmp_path))
    said, _ = process.communicate()
    assert process.returncode == 1
    assert f"There is no picture in {tmp_path}" in said
    assert ".png" in said


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
def test_stopping_the_demo_leaves_nothing_running(
    start_demo: Start,
    tmp_path: Path,
    send: Callable[[int, signal.Signals], None],
    number: signal.Signals,
    exit_code: int,
) -> None:
    """In the middle of a job: manager, PostgreSQL and worker are gone soon after, whoever asked in whatever way."""
    for copy in range(400):
        (tmp_path / f"{copy}.jpg").symlink_to(PICTURES / "night-forest.jpg")
    process = start_demo("--images", str(tmp_path))
    assert process.stdout is not None
    said = ""
    while CRITICAL_POINT not in said:
        line = process.stdout.readline()
        assert line, said
        said += line
    family = psutil.Process(process.pid).children(recursive=True)
    assert any(member.name().startswith("postgres") for member in family)

    send(process.pid, number)
    rest, _ = process.communicate()
    assert process.returncode == exit_code, said + rest
    _, alive = psutil.wait_procs(family, timeout=20)
    assert alive == []
