"""What cannot work is refused, and the message says why and what to do."""

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from reference_manager.embedded import EmbeddedPostgres, EmbeddedPostgresError


def test_a_second_manager_on_the_same_folder_is_refused(used_dir: Path) -> None:
    """The first one goes on undisturbed, also after the second has given up."""
    with EmbeddedPostgres(used_dir, durable=False) as first:
        second = EmbeddedPostgres(used_dir)
        with pytest.raises(EmbeddedPostgresError, match=rf"in use by another manager \(process {os.getpid()}\)"):
            second.start()
        second.stop()
        assert first.url
        assert (used_dir / "postgres" / "postmaster.pid").exists()


def test_data_of_another_major_version_is_refused(used_dir: Path) -> None:
    """Both versions are named, and the data is not touched."""
    (used_dir / "postgres" / "PG_VERSION").write_text("13\n")
    with pytest.raises(EmbeddedPostgresError, match=r"created by PostgreSQL 13, but .* has PostgreSQL"):
        EmbeddedPostgres(used_dir).start()


def test_a_failed_start_quotes_the_servers_log(used_dir: Path) -> None:
    """The reason is in the message, not only in a file that somebody has to find; the folder is free again."""
    with pytest.raises(EmbeddedPostgresError, match='unrecognized configuration parameter "wrong_name"'):
        EmbeddedPostgres(used_dir, settings={"wrong_name": "1"}).start()
    with EmbeddedPostgres(used_dir, durable=False):
        pass


def test_a_failed_creation_quotes_initdb(data_dir: Path) -> None:
    """Binaries that do not work say so themselves, and leave no half cluster."""
    binaries = data_dir.with_name("binaries")
    binaries.mkdir()
    for name in ("postgres", "initdb"):
        program = binaries / name
        program.write_text("#!/bin/sh\necho 'a library is missing'\nexit 3\n")
        program.chmod(0o755)
    with pytest.raises(EmbeddedPostgresError, match=r"initdb failed \(exit code 3\):\na library is missing"):
        EmbeddedPostgres(data_dir, binaries=binaries).start()
    assert not list(data_dir.glob("postgres*/"))


def test_a_lost_password_is_named(used_dir: Path) -> None:
    """Without its password the cluster cannot be opened; nobody is left to guess why."""
    (used_dir / "postgres.password").unlink()
    with pytest.raises(EmbeddedPostgresError, match=r"postgres\.password is missing"):
        EmbeddedPostgres(used_dir).start()


def test_a_folder_that_holds_something_else_is_refused(data_dir: Path) -> None:
    """A folder called postgres that is no cluster is never overwritten."""
    (data_dir / "postgres").mkdir(parents=True)
    (data_dir / "postgres" / "notes.txt").write_text("mine")
    with pytest.raises(EmbeddedPostgresError, match="is not a PostgreSQL data folder"):
        EmbeddedPostgres(data_dir).start()
    assert (data_dir / "postgres" / "notes.txt").read_text() == "mine"


def test_another_thread_may_not_start_it(data_dir: Path) -> None:
    """The kernel ties the server to the thread that started it, so a thread that ends would take it along."""
    with ThreadPoolExecutor() as pool, pytest.raises(EmbeddedPostgresError, match="main thread"):
        pool.submit(EmbeddedPostgres(data_dir).start).result()


def test_a_place_where_no_folder_can_be_made_is_refused(data_dir: Path) -> None:
    """A file in the way is named."""
    data_dir.touch()
    with pytest.raises(EmbeddedPostgresError, match="cannot be created"):
        EmbeddedPostgres(data_dir).start()
